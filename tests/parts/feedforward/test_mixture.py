"""Mixtures of experts: every way to compute them is the loop over rows."""

from __future__ import annotations

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from policysmith.ops import grouped_linear
from policysmith.ops.init import initialize
from policysmith.parts.feedforward import MixtureOfExperts, update_biases
from policysmith.registry import part
from tests.reference import mixture_of_experts as reference

D, E = 8, 5
IMPLEMENTATIONS = ["dense", "gather", "sorted", "auto"]
EXPERTS = ["mlp", "swiglu", {"type": "mlp", "activation": "relu2", "bias": False, "hidden": 12}]
every_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
every_expert = pytest.mark.parametrize("expert", EXPERTS, ids=["mlp", "swiglu", "narrow"])


def mixture(dtype: torch.dtype = torch.double, **options) -> MixtureOfExperts:
    torch.manual_seed(0)
    moe = MixtureOfExperts(**{"dim": D, "experts": E, **options}).to(dtype)
    for name, parameter in moe.router.named_parameters():
        if name != "scale":
            nn.init.normal_(parameter)
    return moe


def slow(moe: MixtureOfExperts, x: torch.Tensor) -> torch.Tensor:
    router = moe.router
    bias = None if router.bias_steps is None else router.bias_steps * router.bias_speed
    y, _ = reference.mixture(
        x, router.gate.weight, list(moe.experts), router.top_k, router.score, router.normalize, bias
    )
    return y + sum(shared(x) for shared in moe.shared)


def gradients(moe: MixtureOfExperts, function, x: torch.Tensor, out: torch.Tensor) -> dict[str, torch.Tensor]:
    """Values and gradients; a parameter without one counts as zero."""
    moe.zero_grad()
    x = x.clone().requires_grad_()
    y = function(x)
    (y * out).sum().backward()
    grads = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in moe.named_parameters()}
    return {"y": y.detach(), "x": x.grad, **grads}


def assert_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], msg=lambda m, n=name: f"{n}: {m}", **tolerance)


@every_implementation
@every_expert
@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_values_and_gradients_equal_the_loop_over_rows(implementation, expert, score):
    router = {"type": "topk", "score": score, "bias_speed": 0.1}
    moe = mixture(expert=expert, router=router, shared_experts=1, implementation=implementation)
    moe.router.update_bias(torch.arange(E))
    x, out = torch.randn(3, 4, D).double(), torch.randn(3, 4, D).double()
    assert_same(gradients(moe, moe, x, out), gradients(moe, partial(slow, moe), x, out))


@every_implementation
@pytest.mark.parametrize("top_k", [1, 3, E])
def test_any_number_of_choices_equals_the_loop_over_rows(implementation, top_k):
    moe = mixture(top_k=top_k, implementation=implementation)
    x, out = torch.randn(6, D).double(), torch.randn(6, D).double()
    assert_same(gradients(moe, moe, x, out), gradients(moe, partial(slow, moe), x, out))


@pytest.mark.parametrize("pays", [True, False])
@every_expert
def test_the_grouped_product_equals_the_loop_over_rows(pays, expert, monkeypatch):
    limits = {("cpu", torch.float32): grouped_linear.GroupedLimits(10**9, 10**9)} if pays else {}
    monkeypatch.setattr(grouped_linear, "MEASURED_FASTER", limits)
    moe = mixture(torch.float32, expert=expert, implementation="sorted")
    calls = []
    monkeypatch.setattr(
        "policysmith.parts.feedforward.experts.grouped_linear",
        lambda *args: calls.append(1) or grouped_linear.grouped_linear(*args),
    )
    x, out = torch.randn(7, D), torch.randn(7, D)
    with torch.no_grad():
        moe.router.gate.weight[3] -= 100 * x.mean(0)  # so that an expert stays idle, in the middle of the stack
    fast, looped = gradients(moe, moe, x, out), gradients(moe, partial(slow, moe), x, out)
    assert_same(fast, looped, rtol=1e-4, atol=1e-5)
    assert bool(calls) == pays


def test_the_grouped_product_gives_idle_experts_no_gradient_and_spreads_no_nan():
    moe = mixture(torch.float32, top_k=1, experts=4, implementation="sorted")
    with torch.no_grad():
        moe.router.gate.weight.zero_()[:3, :3] = 10 * torch.eye(3)
        moe.experts[1].up.weight.fill_(float("nan"))
    x = torch.eye(D)[[0, 1, 2, 0]].requires_grad_()
    layers = moe.experts[0].up.weight, moe.experts[0].down.weight
    assert grouped_linear.grouped_pays(x, layers, 3, stacked=False)
    y = moe(x)
    y.sum().backward()
    assert y.isnan().any(-1).tolist() == [False, True, False, False]
    assert x.grad.isnan().any(-1).tolist() == [False, True, False, False]
    assert moe.experts[3].up.weight.grad is None
    assert all(moe.experts[e].up.weight.grad.isfinite().all() for e in (0, 2))


@pytest.mark.parametrize(("dim", "hidden"), [(6, 8), (8, 6), (7, 5)])
@pytest.mark.parametrize("expert", ["mlp", "swiglu"])
def test_widths_that_the_grouped_product_cannot_take_are_looped(dim, hidden, expert):
    options = {"expert": {"type": expert, "hidden": hidden}, "implementation": "sorted"}
    moe, x = mixture(torch.float32, dim=dim, **options), torch.randn(9, dim)
    torch.testing.assert_close(moe(x), slow(moe, x))
    torch.testing.assert_close(moe.frozen()(x), slow(moe, x))


@pytest.mark.parametrize("spoil", ["hook", "swap", "prelu"])
def test_experts_that_are_more_than_two_layers_are_never_stacked(spoil, monkeypatch):
    moe = mixture(torch.float32, implementation="sorted")
    seen = []
    if spoil == "hook":
        moe.experts[0].up.register_forward_hook(lambda *args: seen.append(1))
    elif spoil == "swap":
        moe.experts[0].up = nn.Sequential(moe.experts[0].up)
    else:
        for i, expert in enumerate(moe.experts):
            expert.activation = nn.PReLU(init=i / 10)
    x = torch.randn(9, D)
    torch.testing.assert_close(moe(x), slow(moe, x))
    with pytest.raises(ValueError, match="other weights or hooks"):
        moe.frozen()
    assert bool(seen) == (spoil == "hook")


@pytest.mark.parametrize("implementation", ["gather", "sorted", "auto"])
def test_an_optimiser_leaves_experts_without_rows_alone(implementation):
    moe = mixture(torch.float32, implementation=implementation, router="task")
    optimizer = torch.optim.AdamW(moe.parameters(), lr=0.1, weight_decay=0.1)
    before = copy.deepcopy(moe.state_dict())
    for _ in range(2):
        optimizer.zero_grad()
        moe(torch.randn(4, D), task=torch.tensor([1, 3, 3, 1])).sum().backward()
        optimizer.step()
    assert [moe.experts[e].up.weight.grad is None for e in range(E)] == [True, False, True, False, True]
    moved = {n.split(".")[1] for n, p in moe.state_dict().items() if not torch.equal(p, before[n])}
    assert moved == {"1", "3"}


@every_implementation
@pytest.mark.parametrize("router", ["topk", "task"])
def test_nan_in_an_expert_reaches_only_rows_that_use_it(implementation, router):
    moe = mixture(router=router, implementation=implementation)
    for parameter in moe.experts[2].parameters():
        nn.init.constant_(parameter, float("nan"))
    x, task = torch.randn(9, D).double().requires_grad_(), torch.arange(9) % E
    used = moe.router(x, task).experts_NK.eq(2).any(-1)
    assert 0 < used.sum() < 9
    y = moe(x, task=task)
    assert torch.equal(y.isnan().any(-1), used)
    y.sum().backward()
    assert torch.equal(x.grad.isnan().any(-1), used)
    others = [p for n, p in moe.experts.named_parameters() if not n.startswith("2.") and p.grad is not None]
    assert others
    assert all(p.grad.isfinite().all() for p in others)


@every_implementation
@pytest.mark.parametrize("router", ["topk", "task", "soft"])
def test_rows_of_a_batch_do_not_meet(implementation, router):
    moe = mixture(router=router, **({} if router == "soft" else {"implementation": implementation})).eval()
    x, task = torch.randn(6, 4, D).double(), torch.arange(6) % E
    whole = moe(x, task=task)
    for row in range(6):
        torch.testing.assert_close(moe(x[row : row + 1], task=task[row : row + 1])[0], whole[row])
    x[0] = float("nan")
    assert torch.equal(moe(x, task=task)[1:].isfinite(), torch.ones(5, 4, D, dtype=torch.bool))


@pytest.mark.parametrize("router", ["topk", "task", "soft"])
@pytest.mark.parametrize("shape", [(D,), (0, D), (3, D), (2, 3, D), (2, 0, D), (0, 3, D), (2, 3, 2, D)])
def test_any_leading_dimensions_pass(router, shape):
    moe = mixture(router=router, shared_experts=1)
    x = torch.randn(shape).double().requires_grad_()
    aux = {}
    y = moe(x, aux, task=torch.zeros(shape[:-1], dtype=torch.int64))
    assert y.shape == x.shape
    assert all(value.isfinite().all() for value in aux.values())
    y.sum().backward()
    assert x.grad.shape == x.shape


def test_a_view_that_is_not_contiguous_passes():
    moe, x = mixture(), torch.randn(D, 4, 3).double().permute(2, 1, 0)
    torch.testing.assert_close(moe(x), moe(x.contiguous()))
    soft = mixture(router="soft")
    torch.testing.assert_close(soft(x), soft(x.contiguous()))
    torch.testing.assert_close(soft(x[:, 0]), soft(x[:, 0].contiguous()))


@pytest.mark.parametrize("router", ["topk", "soft"])
def test_half_precision_is_close(router):
    moe, x = mixture(torch.float32, router=router), torch.randn(5, 4, D)
    y = copy.deepcopy(moe).to(torch.bfloat16)(x.bfloat16())
    assert y.dtype == torch.bfloat16
    close = (y.float() - moe(x)).abs().amax(-1) < 0.1  # but for rows whose choice falls the other way
    assert close.float().mean() > 0.8


@pytest.mark.parametrize("router", ["topk", "soft"])
@every_implementation
def test_autocast_gives_the_type_that_a_plain_feedforward_gives(router, implementation):
    moe = mixture(torch.float32, router=router, **({} if router == "soft" else {"implementation": implementation}))
    with torch.autocast("cpu", torch.bfloat16):
        assert moe(torch.randn(9, D)).dtype == torch.bfloat16


def test_tasks_of_sequences_hold_for_all_their_tokens():
    moe = mixture(router="task")
    x, task = torch.randn(3, 4, D).double(), torch.tensor([4, 0, 2])
    y = moe(x, task=task)
    for row in range(3):
        torch.testing.assert_close(y[row], moe.experts[int(task[row])](x[row]))
    torch.testing.assert_close(moe(x, task=task[:, None].expand(3, 4)), y)
    with pytest.raises(ValueError, match=r"task of shape \(4,\) does not fit rows of shape \(3, 4\)"):
        moe(x, task=torch.zeros(4, dtype=torch.int64))


def test_tasks_with_several_experts_take_their_mean():
    table = [[0, 1], [3, 2]]
    moe = mixture(router={"type": "task", "assignment": table})
    x, task = torch.randn(6, D).double(), torch.tensor([0, 1, 1, 0, 0, 1])
    torch.testing.assert_close(moe(x, task=task), reference.by_table(x, task, table, list(moe.experts)))


@pytest.mark.parametrize("slots", [1, 3])
def test_soft_mixing_equals_its_loops(slots):
    moe = mixture(router={"type": "soft", "slots": slots})
    nn.init.constant_(moe.router.scale, 3.0)
    x, out = torch.randn(2, 6, D).double(), torch.randn(2, 6, D).double()

    def by_hand(x):
        return reference.soft_mixture(x, moe.router.phi.weight, moe.router.scale, list(moe.experts), slots)

    assert_same(gradients(moe, moe, x, out), gradients(moe, by_hand, x, out))


def test_soft_rows_without_a_sequence_are_samples_of_their_own():
    moe, x = mixture(router="soft"), torch.randn(4, D).double()
    torch.testing.assert_close(moe(x), moe(x[:, None])[:, 0])


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_losses_equal_their_loops_and_are_weighted_once(score):
    router = {"type": "topk", "score": score}
    moe = mixture(router=router, balance_coef=0.3, z_coef=0.7)
    x, aux = torch.randn(3, 4, D).double(), {}
    moe(x, aux)
    balance, z = reference.losses(x, moe.router.gate.weight, 2, score)
    torch.testing.assert_close(aux["load_balance_loss"], 0.3 * balance, check_dtype=False)
    torch.testing.assert_close(aux["router_z_loss"], 0.7 * z)
    aux["load_balance_loss"].backward()
    assert moe.router.gate.weight.grad.any()
    moe(x, aux)
    torch.testing.assert_close(aux["load_balance_loss"], 0.6 * balance, check_dtype=False)


def test_even_routing_costs_the_coefficient_and_collapse_that_times_the_experts():
    moe = mixture(experts=4, top_k=1, balance_coef=0.01)
    x, even, collapsed = torch.eye(D)[:4].double(), {}, {}
    with torch.no_grad():
        moe.router.gate.weight.zero_()[:, :4] = 1e3 * torch.eye(4)
    moe(x, even)
    assert even["load_balance_loss"].item() == pytest.approx(0.01)
    with torch.no_grad():
        moe.router.gate.weight[0] = 1e6
    moe(x, collapsed)
    assert collapsed["load_balance_loss"].item() == pytest.approx(0.04)
    assert collapsed["moe/load"].tolist() == [[1, 0, 0, 0]]
    assert collapsed["moe/dead"].item() == 0.75


def test_even_logits_cost_the_squared_log_of_the_experts():
    moe = mixture(z_coef=1.0)
    nn.init.zeros_(moe.router.gate.weight)
    aux = {}
    moe(torch.randn(3, D).double(), aux)
    assert aux["router_z_loss"].item() == pytest.approx(math.log(E) ** 2)
    assert aux["moe/entropy"].item() == pytest.approx(math.log(E))


def test_statistics_say_what_happened():
    moe = mixture()
    x, aux = torch.randn(20, D).double(), {}
    moe(x, aux)
    _, chosen = reference.mixture(x, moe.router.gate.weight, list(moe.experts), 2)
    counts = torch.tensor([sum(row.count(e) for row in chosen) for e in range(E)])
    torch.testing.assert_close(aux["moe/load"][0], counts / 40)
    entropies = [reference.entropy(torch.softmax(moe.router.gate.weight @ row, 0)) for row in x]
    assert aux["moe/entropy"].item() == pytest.approx(sum(entropies) / 20, rel=1e-5)
    assert not any(v.requires_grad for k, v in aux.items() if k.startswith("moe/"))


@pytest.mark.parametrize("router", ["task", "soft"])
def test_routers_without_scores_report_their_load_and_no_losses(router):
    moe, aux = mixture(router=router), {}
    moe(torch.randn(6, D).double(), aux, task=torch.arange(6) % 2)
    assert sorted(aux) == ["moe/dead", "moe/entropy", "moe/load"]
    assert aux["moe/load"].sum().item() == pytest.approx(1)
    if router == "task":
        assert aux["moe/load"].tolist() == [[0.5, 0.5, 0, 0, 0]]
        assert aux["moe/dead"].item() == pytest.approx(0.6)


def test_without_a_sink_nothing_is_reported_and_nothing_changes():
    moe, x = mixture(), torch.randn(6, D).double()
    assert torch.equal(moe(x), moe(x, {}))


def test_biases_are_updated_layer_by_layer():
    router = {"type": "topk", "bias_speed": 0.1}
    stack = nn.Sequential(mixture(router=router), mixture(router="topk"), mixture(experts=3, router=router))
    x, aux = torch.randn(20, D).double(), {}
    for moe in stack:
        x = moe(x, aux)
    update_biases(stack, aux["moe/load"])
    for moe, load in zip(stack, aux["moe/load"], strict=True):
        if moe.router.bias_steps is not None:
            load = load[: len(moe.experts)]
            assert moe.router.bias_steps.tolist() == torch.sign(load.mean() - load).tolist()
            assert moe.router.bias_steps.any()
    with pytest.raises(ValueError, match="2 rows of load for 3 mixtures"):
        update_biases(stack, aux["moe/load"][:2])


def test_a_forward_writes_nothing_to_the_module():
    moe = mixture(router={"type": "topk", "bias_speed": 0.1, "jitter": 0.1}).train()
    before = copy.deepcopy(moe.state_dict())
    attributes = {name: dict(vars(m)) for name, m in moe.named_modules()}
    moe(torch.randn(6, D).double(), {})
    assert all(torch.equal(value, before[name]) for name, value in moe.state_dict().items())
    for name, m in moe.named_modules():
        assert vars(m).keys() == attributes[name].keys()
        assert all(value is attributes[name][key] for key, value in vars(m).items())


@every_implementation
def test_the_same_seed_gives_the_same_bits(implementation):
    def run():
        moe = mixture(torch.float32, implementation=implementation, router={"type": "topk", "jitter": 0.1})
        torch.manual_seed(1)
        return gradients(moe, moe, torch.randn(40, D), torch.ones(40, D))

    first, second = run(), run()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("router", ["topk", "soft"])
@pytest.mark.parametrize("frozen", [False, True])
def test_it_compiles_whole_and_exports_for_any_batch(router, frozen):
    moe = mixture(torch.float32, router=router, shared_experts=1).eval()
    called = moe.frozen() if frozen else moe
    x = torch.randn(5, 4, D)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(called, backend="eager", fullgraph=True)(x), moe(x))
    program = torch.export.export(called, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for batch in (1, 5, 8):
        x = torch.randn(batch, 4, D)
        torch.testing.assert_close(program.module()(x), moe(x))


def test_compiled_training_with_a_sink_equals_eager():
    moe, x = mixture(torch.float32), torch.randn(9, D)

    def step(x):
        aux = {}
        return moe(x, aux), aux

    torch._dynamo.reset()
    (y, aux), (expected, expected_aux) = torch.compile(step, backend="eager", fullgraph=True)(x), step(x)
    torch.testing.assert_close(y, expected)
    assert aux.keys() == expected_aux.keys()
    for name in aux:
        torch.testing.assert_close(aux[name], expected_aux[name])


def test_on_meta_tensors_only_shapes_flow():
    moe = mixture(torch.float32).to("meta")
    aux = {}
    assert moe(torch.zeros(3, 4, D, device="meta"), aux).shape == (3, 4, D)
    assert aux["load_balance_loss"].is_meta


@pytest.mark.parametrize("router", ["topk", "soft"])
def test_planned_operations_are_those_of_a_run(router, monkeypatch):
    monkeypatch.setattr(grouped_linear, "MEASURED_FASTER", {})  # torch's counter doesn't know grouped_mm
    moe, x = mixture(torch.float32, router=router, shared_experts=1), torch.randn(9, 2, D)
    counts = []
    for device in ("cpu", "meta"):
        with FlopCounterMode(display=False) as counter:
            moe.to(device)(x.to(device))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("router", ["topk", "soft", "task"])
def test_copies_are_equal_and_independent(router):
    moe, x, task = mixture(router=router), torch.randn(6, D).double(), torch.arange(6) % E
    expected = moe(x, task=task)
    for twin in (copy.deepcopy(moe), pickle.loads(pickle.dumps(moe))):
        assert torch.equal(twin(x, task=task), expected)
        nn.init.zeros_(twin.experts[0].up.weight)
    assert torch.equal(moe(x, task=task), expected)


def test_parameters_are_those_of_the_closed_form():
    moe = MixtureOfExperts(256)
    assert sum(p.numel() for p in moe.parameters()) == 8 * (8 * 256**2 + 5 * 256) + 256 * 8


def test_routers_start_small_and_experts_orthogonal():
    moe = MixtureOfExperts(64, router="topk")
    initialize(moe)
    assert moe.router.gate.weight.std().item() == pytest.approx(0.02, rel=0.2)
    weight = moe.experts[3].down.weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(64), rtol=0, atol=1e-4)
    soft = MixtureOfExperts(64, router="soft")
    initialize(soft)
    assert soft.router.scale.item() == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"experts": 0}, "experts=0"),
        ({"top_k": 0}, "top_k=0 is not between 1 and experts=5"),
        ({"top_k": 6}, "top_k=6 is not between 1 and experts=5"),
        ({"expert": "moe"}, "can't be a mixture itself"),
        ({"router": "soft", "top_k": 2}, "top_k=2 means nothing to router 'soft'"),
        ({"router": "soft", "implementation": "sorted"}, "implementation='sorted' means nothing to router 'soft'"),
        ({"router": "task", "top_k": 1}, "top_k=1 means nothing to router 'task'"),
        ({"router": "task", "balance_coef": 0.1}, "balance_coef=0.1 means nothing to router 'task'"),
        ({"router": "soft", "z_coef": 0.1}, "z_coef=0.1 means nothing to router 'soft'"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_their_values(options, says):
    with pytest.raises(ValueError, match=says):
        MixtureOfExperts(**{"dim": D, "experts": E, **options})


def test_two_of_two_or_more_experts_are_chosen_unless_told():
    assert [MixtureOfExperts(D, experts).router.top_k for experts in (1, 2, 8)] == [1, 2, 2]


def test_a_spec_survives_encoding():
    spec = part("feedforward", {"type": "moe", "experts": 4, "router": {"type": "soft", "slots": 2}, "expert": "geglu"})
    assert part("feedforward", spec.encode()) == spec
    moe = spec.build(dim=D)
    assert len(moe.experts) == 4
    assert moe.router.slots == 2
