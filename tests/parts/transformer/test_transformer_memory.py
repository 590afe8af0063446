"""Transformer memories: acting is learning, nothing crosses an episode's beginning, what can't remember is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from policysmith.ops.init import initialize
from policysmith.ops.reset_state import State, reset_state
from policysmith.parts.transformer import TransformerMemory, gtrxl
from policysmith.registry import default_registry, part
from tests.reference.transformer import memory as slow_memory
from tests.thinning import thinned

B, T, F, CONTEXT = 3, 9, 5, 4
ATTENTIONS: dict[str, dict[str, Any]] = {
    "mha": {}, "gqa": {"heads": 4}, "mqa": {}, "mla": {}, "window": {"size": 3}, "pyramid": {},
}  # fmt: skip
POSITIONS: dict[str, dict[str, Any]] = {
    "rope": {}, "alibi": {}, "learned": {"length": 4}, "sinusoidal": {}, "time": {"length": 6}, "none": {},
}  # fmt: skip
RESIDUALS = default_registry.names("residual")


def build(attention: str = "mha", position: str = "rope", **options: Any) -> TransformerMemory:
    torch.manual_seed(0)
    spec = {"type": attention, "heads": 2, **ATTENTIONS.get(attention, {})}
    where = {"type": position, **POSITIONS[position]}
    named = {"dim": 8, "layers": 2, "context": CONTEXT, "attention": spec, "position": where, **options}
    module = TransformerMemory(F, **named).double()
    initialize(module)
    return lively(module)


def lively(module: TransformerMemory) -> TransformerMemory:
    """Gates and scales away from where they start, so that every branch counts."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "residual" in name and parameter.dim() == 1:
                parameter.copy_(torch.rand_like(parameter) + 0.5)
    return module


def inputs(seed: int = 1) -> tuple[Tensor, Tensor]:
    """Steps and random beginnings; row 0 begins at once, row 1 never, row 2 somewhere."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(B, T, generator=generator) < 0.25
    first[0, 0], first[1], first[2, 0], first[2, 5] = True, False, False, True
    return torch.randn(B, T, F, generator=generator, dtype=torch.float64), first


@torch.no_grad()
def running_state(module: TransformerMemory, first: Tensor) -> State:
    """The state after some steps, with NaN in every float of the rows that begin at once."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(B, 6, F, generator=generator, dtype=torch.float64)
    state = module.unroll(x, module.initial_state(B))[1]
    return {
        name: tensor.masked_fill(first[:, 0].view(-1, *(1,) * (tensor.dim() - 1)), float("nan"))
        if tensor.is_floating_point()
        else tensor
        for name, tensor in state.items()
    }


def stepped(module: TransformerMemory, x: Tensor, state: State, first: Tensor) -> tuple[Tensor, State]:
    """One step at a time, as the graph does it: reset, then forward."""
    initial, outputs = module.initial_state(1), []
    for t in range(x.shape[1]):
        y, state = module(x[:, t], reset_state(state, initial, first[:, t]))
        outputs.append(y)
    return torch.stack(outputs, 1), state


def outcome(module: TransformerMemory, run: Any, x: Tensor, state: State, first: Tensor) -> list[Tensor]:
    """Outputs, final state, and gradients of the input, the parameters and the given state."""
    module.zero_grad()
    x = x.clone().requires_grad_()
    held = {n: t.clone().requires_grad_(t.is_floating_point()) for n, t in state.items()}
    y, after = run(x, held, first)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ((y * weights).sum() + sum(t.square().sum() for t in after.values() if t.is_floating_point())).backward()
    kept = [t.grad[~first[:, 0]] for t in held.values() if t.requires_grad]
    return [y, *after.values(), x.grad, *kept, *(p.grad for p in module.parameters())]


def close(found: Any, expected: Any) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def assert_acting_is_learning(module: TransformerMemory) -> None:
    x, first = inputs()
    state = running_state(module, first)
    together = outcome(module, module.unroll, x, state, first)
    close(together, outcome(module, lambda *a: stepped(module, *a), x, state, first))
    assert all(t.isfinite().all() for t in together)


@pytest.mark.parametrize("position", thinned(POSITIONS, 2))
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_acting_is_learning(attention, position):
    """Outputs, state and gradients, over more steps than the context, from a state with NaN where a reset covers it."""
    for residual in RESIDUALS:
        assert_acting_is_learning(build(attention, position, residual=residual))


@pytest.mark.parametrize("placement", ["pre", "post", "sandwich"])
@pytest.mark.parametrize("norm", ["layer", "rms", {"type": "group", "groups": 2}, "batch"])
def test_acting_is_learning_wherever_norms_stand(norm, placement):
    module = build(norm=norm, placement=placement, block_norm=True, feedforward="swiglu").eval()
    assert_acting_is_learning(module)


@pytest.mark.parametrize("attention", ["mha", "mla", "pyramid"])
def test_the_state_may_be_carried_over_chunks_of_any_length(attention):
    module = build(attention)
    x, first = inputs()
    state = running_state(module, first)
    expected, after = module.unroll(x, state, first)
    for cuts in ([1, 8], [2, 1, 6], [5, 4], [1] * T):
        held, outputs = state, []
        for part_x, part_first in zip(x.split(cuts, 1), first.split(cuts, 1), strict=True):
            y, held = module.unroll(part_x, held, part_first)
            outputs.append(y)
        close([torch.cat(outputs, 1), *held.values()], [expected, *after.values()])


@pytest.mark.parametrize("position", POSITIONS)
def test_a_memory_is_each_episode_as_a_sequence_with_a_window(position):
    for attention in ATTENTIONS:
        module = build(attention, position)
        x, first = inputs()
        found, _ = module.unroll(x, module.initial_state(B), first)
        close([found], [slow_memory(module, x, first)])


def test_without_beginnings_the_episode_goes_on():
    module = build()
    x, _ = inputs()
    state = running_state(module, torch.zeros(B, T, dtype=torch.bool))
    none = torch.zeros(B, T, dtype=torch.bool)
    close([module.unroll(x, state)[0]], [module.unroll(x, state, none)[0]])
    close([module.unroll(x, state)[0]], [stepped(module, x, state, none)[0]])


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_nothing_before_a_beginning_changes_anything_after_it(attention):
    module = build(attention)
    x, first = inputs()
    first[:, 4] = True
    other = x.clone()
    other[:, :4] += 100
    for state in (running_state(module, first), module.initial_state(B)):
        found, after = module.unroll(x, state, first)
        changed, after_change = module.unroll(other, state, first)
        close([found[:, 4:], *after.values()], [changed[:, 4:], *after_change.values()])
        assert not torch.equal(found[:, :4], changed[:, :4])


def test_the_context_of_a_layer_is_what_it_says():
    """With one layer a step sees itself and the `context` - 1 before it; with two layers twice as far back."""
    for layers, reach in ((1, CONTEXT - 1), (2, 2 * (CONTEXT - 1))):
        module = build(layers=layers)
        x, _ = inputs()
        found, _ = module.unroll(x, module.initial_state(B))
        for back, seen in ((reach, True), (reach + 1, False)):
            other = x.clone()
            other[:, T - 1 - back] += 1
            changed, _ = module.unroll(other, module.initial_state(B))
            assert bool((found[:, -1] - changed[:, -1]).abs().max() > 1e-9) is seen


def test_the_state_is_positions_and_named_caches_batch_first():
    state = build("mla").initial_state(2)
    assert {name: tuple(t.shape) for name, t in state.items()} == {
        "position": (2,),
        "layers.0.latent": (2, CONTEXT, 2),
        "layers.0.shared_key": (2, CONTEXT, 2),
        "layers.1.latent": (2, CONTEXT, 2),
        "layers.1.shared_key": (2, CONTEXT, 2),
    }
    assert state["position"].dtype == torch.int64
    _, after = build("mla")(torch.zeros(2, F, dtype=torch.float64), state)
    assert after["position"].tolist() == [1, 1]


def test_more_than_ten_layers_keep_their_caches_apart():
    module = build(layers=12)
    x, first = inputs()
    close([module.unroll(x, module.initial_state(B), first)[0]], [slow_memory(module, x, first)])


def test_no_call_writes_to_the_state_or_to_the_module():
    module = build()
    x, first = inputs()
    state = module.initial_state(B)
    kept, weights = {n: t.clone() for n, t in state.items()}, {n: t.clone() for n, t in module.state_dict().items()}
    module(x[:, 0], state)
    module.unroll(x, state, first)
    assert all(torch.equal(state[n], kept[n]) for n in kept)
    assert all(torch.equal(t, weights[n]) for n, t in module.state_dict().items())


def test_features_are_projected_where_the_width_differs():
    assert isinstance(build().project, torch.nn.Linear)
    same = TransformerMemory(8, attention={"type": "mha", "heads": 2})
    assert isinstance(same.project, torch.nn.Identity)
    assert same(torch.zeros(1, 8), same.initial_state(1))[0].shape == (1, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes_and_meta_tensors_pass(dtype):
    module = build().to(dtype)
    x, first = inputs()
    y, after = module.unroll(x.to(dtype), module.initial_state(B), first)
    assert y.dtype == after["layers.0.key"].dtype == dtype and y.isfinite().all()
    meta = module.to("meta")
    y, after = meta(torch.empty(B, F, dtype=dtype, device="meta"), meta.initial_state(B))
    assert y.shape == (B, 8) and after["position"].device.type == "meta"


@pytest.mark.parametrize("kind", ["transformer_memory", "gtrxl"])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"attention": "latent_queries"}, "attention: 'latent_queries' lets a step see the whole sequence"),
        ({"norm": "instance"}, "norm: 'instance' lets a step see the whole sequence"),
        (
            {"feedforward": {"type": "moe", "router": "soft", "experts": 2}},
            "feedforward.router: 'soft' lets a step see the whole sequence",
        ),
    ],
)
def test_what_cannot_be_stateful_is_refused_by_name_and_reason(kind, options, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        part("component", {"type": kind, **options}).build(flat_features=8)
    assert "the later steps of an episode are not there yet" in str(caught.value)
    assert "; use " in str(caught.value)


def test_cross_attention_is_refused_outside_decoders():
    with pytest.raises(ValueError, match=r"'cross' (reads a source|lets a step)"):
        TransformerMemory(8, attention="cross")


def test_both_declare_that_they_are_stateful_and_causal():
    for name in ("transformer_memory", "gtrxl"):
        traits = default_registry.entry("component", name).traits
        assert traits["stateful"] is True and traits["causal"] is True


def test_gtrxl_is_a_memory_with_pre_norm_and_gru_gates():
    torch.manual_seed(0)
    options = {"dim": 8, "layers": 2, "context": CONTEXT, "attention": {"type": "mha", "heads": 2}}
    found = gtrxl(F, **options, bias=1.5)
    torch.manual_seed(0)
    expected = TransformerMemory(F, **options, residual={"type": "gtrxl", "bias": 1.5}, placement="pre")
    assert found.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), expected.parameters(), strict=True))
    assert_acting_is_learning(lively(found.double()))


def test_auxiliary_losses_of_experts_come_out_of_both_calls():
    module = build(feedforward={"type": "moe", "experts": 3, "top_k": 1})
    x, first = inputs()
    aux: dict[str, Tensor] = {}
    module.unroll(x, module.initial_state(B), first, aux=aux)
    assert aux["load_balance_loss"].dim() == 0 and aux["load_balance_loss"].requires_grad
    step: dict[str, Tensor] = {}
    module(x[:, 0], module.initial_state(B), aux=step)
    assert step.keys() == aux.keys()
