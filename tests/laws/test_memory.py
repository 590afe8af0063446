"""Laws 4 to 7 and 12 for every registered component with memory: acting step by step is learning over sequences.

A type's cases are those of `cases.py`; T steps of B rows, in double precision unless a law is about types of numbers.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from policysmith.ops.init import initialize
from policysmith.ops.state import State, reset_state

from .cases import IDS, REGISTRY, case_of, plan_of

B, T = 5, 9
MEMORIES = [i for i in IDS if REGISTRY.entry("component", case_of(i)[0]).traits.get("stateful")]
every_memory = pytest.mark.parametrize("case_id", MEMORIES)

# type → why one step can't be vectorised with `torch.vmap`.
NOT_VMAPPED: dict[str, str] = {}


def memory_of(case_id: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The component of a case in evaluation mode, every parameter moved off its start."""
    node = plan_of(case_id).node("part")
    torch.manual_seed(0)
    module: nn.Module = node.part.build(**node.context)
    initialize(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.to(dtype).eval()


def features_of(case_id: str) -> int:
    return plan_of(case_id).node("part").context["flat_features"]


def inputs_of(case_id: str, batch: int = B, steps: int = T, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, steps, features_of(case_id), generator=torch.Generator().manual_seed(1)).to(dtype)


def state_of(module: Any, case_id: str, batch: int = B) -> State:
    """A state as it is in the midst of episodes: where four steps with resets lead, from random numbers."""
    generator = torch.Generator().manual_seed(2)
    state = {
        name: torch.randn(t.shape, generator=generator).to(t.dtype) if t.is_floating_point() else t
        for name, t in module.initial_state(batch).items()
    }
    dtype = next(module.parameters()).dtype
    with torch.no_grad():
        return module.unroll(inputs_of(case_id, batch, 4, dtype), state, firsts("some", batch, 4))[1]


def firsts(kind: str, batch: int = B, steps: int = T) -> Tensor:
    """Steps that begin an episode: a few, most, all, none, one late in one row, or the first of every row."""
    first = torch.zeros(batch, steps, dtype=torch.bool)
    if kind in ("some", "most"):
        chance = torch.rand(batch, steps, generator=torch.Generator().manual_seed(3))
        first = chance < {"some": 0.2, "most": 0.7}[kind]
        first[0], first[1, 0], first[2, 0], first[2, 1] = False, True, True, True
    first[:] |= kind == "all"
    first[-1, -1] |= kind == "late"
    first[:, 0] |= kind == "start"
    return first


FIRSTS = ("some", "most", "all", "none", "late", "start")
every_first = pytest.mark.parametrize("kind", FIRSTS)


def stepped(module: Any, x_BTF: Tensor, state: State, first_BT: Tensor) -> tuple[Tensor, State]:
    """The definition: reset, then one step, T times."""
    outputs = []
    for x, first in zip(x_BTF.unbind(1), first_BT.unbind(1), strict=True):
        y, state = module(x, reset_state(state, module.initial_state(1), first))
        outputs.append(y)
    return torch.stack(outputs, 1), state


def leaves(state: State) -> State:
    return {n: t.clone().requires_grad_(t.is_floating_point()) for n, t in state.items()}


def outcome(function: Callable[..., Any], module: nn.Module, x: Tensor, state: State, first: Tensor) -> dict[str, Any]:
    """Outputs and final state, and the gradients of inputs, parameters and initial state of a sum that weighs all."""
    x, state = x.clone().requires_grad_(), leaves(state)
    module.zero_grad()
    y, after = function(x, state, first)
    values = {"output": y, **{f"final {n}": t for n, t in after.items()}}
    floats = [v for v in values.values() if v.is_floating_point()]
    sum((v * torch.linspace(0.5, 2, v.numel()).to(v).view(v.shape)).sum() for v in floats).backward()
    gradients = {"of inputs": x, **{f"of initial {n}": t for n, t in state.items()}, **dict(module.named_parameters())}
    found = {f"gradient {n}": torch.zeros_like(t) if t.grad is None else t.grad.clone() for n, t in gradients.items()}
    return {n: v.detach() for n, v in values.items()} | found


def assert_close(found: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-10) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(
            value, expected[name], rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_there_are_memories_to_try():
    assert {"gru", "gtrxl", "lstm", "mingru", "transformer_memory"} <= set(MEMORIES)


@every_memory
@every_first
def test_acting_step_by_step_equals_learning_over_the_sequence(case_id, kind):
    """Law 4, gradients too, those of the state that is passed in among them."""
    module, x = memory_of(case_id), inputs_of(case_id)
    state, first = state_of(module, case_id), firsts(kind)
    expected = outcome(lambda *given: stepped(module, *given), module, x, state, first)
    assert_close(outcome(module.unroll, module, x, state, first), expected)


@every_memory
def test_no_marks_are_marks_that_are_all_false(case_id):
    module, x = memory_of(case_id), inputs_of(case_id)
    state = state_of(module, case_id)
    expected = outcome(module.unroll, module, x, state, firsts("none"))
    assert_close(outcome(lambda x, state, first: module.unroll(x, state, None), module, x, state, None), expected, 0.0)


@every_memory
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_garbage_in_a_state_that_a_reset_covers_is_gone(case_id, garbage):
    module, x, first = memory_of(case_id), inputs_of(case_id), firsts("some")
    state, covered = state_of(module, case_id), firsts("some")[:, 0]
    assert covered.any() and not covered.all()
    spoilt = {n: t.clone() for n, t in state.items()}
    for tensor in spoilt.values():
        tensor[covered] = garbage if tensor.is_floating_point() else -(2**40)
    expected = outcome(module.unroll, module, x, state, first)
    assert_close(outcome(module.unroll, module, x, spoilt, first), expected, 0.0)
    assert_close(outcome(lambda *given: stepped(module, *given), module, x, spoilt, first), expected)


@every_memory
def test_nothing_before_a_reset_changes_anything_after_it(case_id):
    """Law 5: other inputs and another state before the last reset of every row."""
    module, x = memory_of(case_id), inputs_of(case_id)
    state = state_of(module, case_id)
    first = firsts("none")
    for row in range(B):
        first[row, 1 + row] = True
    before = torch.arange(T) < torch.arange(1, 1 + B).unsqueeze(1)
    other_x = torch.where(before.unsqueeze(-1), 50 * torch.randn_like(x), x)
    other_state = {n: t + 7 for n, t in state.items()}
    with torch.no_grad():
        y, after = module.unroll(x, state, first)
        other_y, other_after = module.unroll(other_x, other_state, first)
    assert not torch.allclose(y[before], other_y[before])
    torch.testing.assert_close(other_y[~before], y[~before], rtol=1e-10, atol=1e-10)
    seen = [continued(module, x, a) for a in (after, other_after)]
    torch.testing.assert_close(*seen, rtol=1e-10, atol=1e-10)


def continued(module: Any, x: Tensor, state: State) -> Tensor:
    """What a state leads to: two states that lead to the same are the same (rings hold stale slots)."""
    with torch.no_grad():
        return module.unroll(x, state, None)[0]


@every_memory
def test_no_gradient_flows_back_across_a_reset(case_id):
    module, first = memory_of(case_id), firsts("none")
    first[:, 4] = True
    x, state = inputs_of(case_id).requires_grad_(), leaves(state_of(module, case_id))
    module.unroll(x, state, first)[0][:, 4:].square().sum().backward()
    assert not x.grad[:, :4].any()
    assert x.grad[:, 4:].any()
    assert not any(t.grad is not None and t.grad.any() for t in state.values())


@every_memory
def test_no_output_sees_a_later_input(case_id):
    """Law 6."""
    module, x = memory_of(case_id), inputs_of(case_id)
    state, first = state_of(module, case_id), firsts("some")
    later = x.clone()
    later[:, 6:] += 10
    marks = first.clone()
    marks[:, 6:] = ~marks[:, 6:]
    with torch.no_grad():
        y, other = module.unroll(x, state, first)[0], module.unroll(later, state, marks)[0]
    torch.testing.assert_close(other[:, :6], y[:, :6], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(other[:, 6:], y[:, 6:])


@every_memory
def test_the_state_is_remembered(case_id):
    module, x = memory_of(case_id), inputs_of(case_id)
    state = state_of(module, case_id)
    with torch.no_grad():
        remembered = module.unroll(x, state, None)[0][:, 0]
        forgotten = module.unroll(x, module.initial_state(B), None)[0][:, 0]
    assert not torch.allclose(remembered, forgotten)


@every_memory
def test_a_row_alone_is_that_row_in_the_batch(case_id):
    """Law 7."""
    module, x = memory_of(case_id), inputs_of(case_id)
    state, first = state_of(module, case_id), firsts("some")
    with torch.no_grad():
        y, after = module.unroll(x, state, first)
        for row in range(B):
            one = slice(row, row + 1)
            y_row, after_row = module.unroll(x[one], {n: t[one] for n, t in state.items()}, first[one])
            assert_close({"y": y_row, **after_row}, {"y": y[one], **{n: t[one] for n, t in after.items()}})


@every_memory
@pytest.mark.parametrize("cut", [1, 4, 8])
def test_chunks_that_hand_on_their_state_are_one_sequence(case_id, cut):
    module, x = memory_of(case_id), inputs_of(case_id)
    state, first = state_of(module, case_id), firsts("some")

    def in_chunks(x: Tensor, state: State, first: Tensor) -> tuple[Tensor, State]:
        head, state = module.unroll(x[:, :cut], state, first[:, :cut])
        tail, state = module.unroll(x[:, cut:], state, first[:, cut:])
        return torch.cat([head, tail], 1), state

    expected = outcome(module.unroll, module, x, state, first)
    assert_close(outcome(in_chunks, module, x, state, first), expected)


@every_memory
def test_a_call_changes_neither_the_module_nor_what_it_is_given(case_id):
    module, x = memory_of(case_id), inputs_of(case_id)
    state, first = state_of(module, case_id), firsts("some")
    given = copy.deepcopy((x, state, first, module.state_dict()))
    names = set(vars(module))
    module.unroll(x, state, first)
    module(x[:, 0], state)
    found = (x, state, first, module.state_dict())
    assert set(vars(module)) == names
    for a, b in zip(given, found, strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=0)


@every_memory
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_state_is_batch_first_and_of_the_modules_type_and_stays_so(case_id, dtype):
    module = memory_of(case_id, dtype)
    x, initial = inputs_of(case_id, dtype=dtype), module.initial_state(B)
    looks = {n: (t.shape, t.dtype) for n, t in initial.items()}
    assert all(t.shape[0] == B and t.dtype in (dtype, torch.int64) for t in initial.values())
    y_step, after_step = module(x[:, 0], initial)
    y, after = module.unroll(x, initial, firsts("some"))
    assert {n: (t.shape, t.dtype) for n, t in after_step.items()} == looks
    assert {n: (t.shape, t.dtype) for n, t in after.items()} == looks
    assert (y_step.dtype, y.dtype) == (dtype, dtype)
    assert y.shape == (B, T, *y_step.shape[1:])
    assert all(torch.equal(module.initial_state(1)[n].expand_as(t), t) for n, t in initial.items())


@every_memory
def test_on_meta_tensors_shapes_follow(case_id):
    module = memory_of(case_id)
    real = module.unroll(inputs_of(case_id), module.initial_state(B), firsts("some"))
    ghost = copy.deepcopy(module).to("meta")
    initial = ghost.initial_state(B)
    assert all(t.is_meta for t in initial.values())
    x = inputs_of(case_id).to("meta")
    y, after = ghost.unroll(x, initial, firsts("some").to("meta"))
    assert y.is_meta and y.shape == real[0].shape
    assert {n: (t.shape, t.dtype) for n, t in after.items()} == {n: (t.shape, t.dtype) for n, t in real[1].items()}
    assert ghost(x[:, 0], initial)[0].shape == y[:, 0].shape


@every_memory
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_copy_computes_the_same(case_id, copier):
    module, x = memory_of(case_id), inputs_of(case_id)
    state, first = state_of(module, case_id), firsts("some")
    expected = outcome(module.unroll, module, x, state, first)
    twin = copier(module)
    assert_close(outcome(twin.unroll, twin, x, state, first), expected, 0.0)


@every_memory
def test_one_step_exports(case_id):
    module = memory_of(case_id)
    x, state = inputs_of(case_id)[:, 0], state_of(module, case_id)
    program = torch.export.export(module, (x, state))
    torch.testing.assert_close(program.module()(x, state), module(x, state))


@every_memory
def test_one_step_compiles_whole(case_id):
    module = memory_of(case_id)
    x, state = inputs_of(case_id)[:, 0], state_of(module, case_id)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, state), module(x, state))


@every_memory
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # attention runs row by row there
def test_one_step_vectorises_or_is_listed(case_id):
    module = memory_of(case_id)
    x, state = inputs_of(case_id)[:, 0], state_of(module, case_id)

    def works() -> None:
        alone = torch.vmap(module)(x.unsqueeze(1), {n: t.unsqueeze(1) for n, t in state.items()})
        y, after = module(x, state)
        torch.testing.assert_close(alone, (y.unsqueeze(1), {n: t.unsqueeze(1) for n, t in after.items()}))

    if case_of(case_id)[0] not in NOT_VMAPPED:
        works()
        return
    with pytest.raises(Exception):  # noqa: B017 - whatever torch raises
        works()
