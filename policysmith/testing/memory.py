"""Laws 4 to 7 for a component with memory: acting step by step is learning over the sequence.

B rows, T steps, F features; double precision, every parameter moved off its start. A memory has `initial_state(batch)`,
`forward(x (B, F), state)` and `unroll(x (B, T, F), state, first (B, T) | None)`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from policysmith.ops.init import initialize
from policysmith.ops.reset_state import State, reset_state
from policysmith.testing.case import PART, Subject, require

__all__ = [
    "a_call_changes_nothing_it_is_given",
    "acting_is_learning",
    "chunks_are_one_sequence",
    "garbage_before_a_reset_is_gone",
    "no_gradient_crosses_a_reset",
    "no_output_sees_a_later_input",
    "nothing_crosses_a_reset",
    "the_state_is_remembered",
]

B, T = 5, 9
TOLERANCE = 1e-10  # double precision over nine steps: what is not rounding is far above


def memory_of(subject: Subject, dtype: torch.dtype = torch.float64) -> Any:
    """The module in evaluation mode, every parameter moved off its start, so that none is 0 or equal to another."""
    node = subject.plan().node(PART)
    torch.manual_seed(0)
    module: nn.Module = node.part.build(**node.context)
    initialize(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.to(dtype).eval()


def sequence_of(subject: Subject, batch: int = B, steps: int = T, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random inputs (batch, steps, F)."""
    features: Any = subject.plan().node(PART).context["flat_features"]
    return torch.randn(batch, steps, features, generator=torch.Generator().manual_seed(1)).to(dtype)


def state_of(module: Any, subject: Subject, batch: int = B) -> State:
    """A state as it is in the midst of episodes: where four steps with resets lead, from random numbers."""
    generator = torch.Generator().manual_seed(2)
    state = {
        name: torch.randn(t.shape, generator=generator).to(t.dtype) if t.is_floating_point() else t
        for name, t in module.initial_state(batch).items()
    }
    dtype = next(module.parameters()).dtype
    with torch.no_grad():
        after: State = module.unroll(sequence_of(subject, batch, 4, dtype), state, firsts("some", batch, 4))[1]
    return after


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


def stepped(module: Any, x_BTF: Tensor, state: State, first_BT: Tensor) -> tuple[Tensor, State]:
    """The definition: reset, then one step, T times."""
    outputs = []
    for x, first in zip(x_BTF.unbind(1), first_BT.unbind(1), strict=True):
        y, state = module(x, reset_state(state, module.initial_state(1), first))
        outputs.append(y)
    return torch.stack(outputs, 1), state


def outcome(
    function: Callable[..., Any], module: Any, x: Tensor, state: State, first: Tensor | None
) -> dict[str, Tensor]:
    """Outputs and final state, and the gradients of inputs, parameters and initial state of a sum that weighs all."""
    x, state = x.clone().requires_grad_(), _leaves(state)
    module.zero_grad()
    y, after = function(x, state, first)
    values = {"output": y, **{f"final {n}": t for n, t in after.items()}}
    floats = [v for v in values.values() if v.is_floating_point()]
    torch.autograd.backward([(v * torch.linspace(0.5, 2, v.numel()).to(v).view(v.shape)).sum() for v in floats])
    gradients = {"of inputs": x, **{f"of initial {n}": t for n, t in state.items()}, **dict(module.named_parameters())}
    found = {f"gradient {n}": torch.zeros_like(t) if t.grad is None else t.grad.clone() for n, t in gradients.items()}
    return {n: v.detach() for n, v in values.items()} | found


def require_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = TOLERANCE) -> None:
    """The same names and, within a tolerance, the same tensors."""
    require(found.keys() == expected.keys(), f"{list(found)} where {list(expected)} is expected")
    for name, value in found.items():
        explain: Callable[[str], str] = f"{name}: {{}}".format
        torch.testing.assert_close(value, expected[name], rtol=tolerance, atol=tolerance, msg=explain)


def acting_is_learning(subject: Subject) -> None:
    """Law 4: outputs, final state and all gradients of steps equal those of the sequence, wherever episodes begin."""
    for kind in FIRSTS:
        module, x = memory_of(subject), sequence_of(subject)
        state, first = state_of(module, subject), firsts(kind)
        expected = outcome(partial(stepped, module), module, x, state, first)
        require_close(outcome(module.unroll, module, x, state, first), expected)
    none = outcome(module.unroll, module, x, state, firsts("none"))
    require_close(outcome(module.unroll, module, x, state, None), none, 0.0)


def garbage_before_a_reset_is_gone(subject: Subject) -> None:
    """What a state holds where an episode begins has no effect, be it NaN: a reset selects, it does not multiply."""
    module, x, first = memory_of(subject), sequence_of(subject), firsts("some")
    state, covered = state_of(module, subject), firsts("some")[:, 0]
    expected = outcome(module.unroll, module, x, state, first)
    for garbage in (float("nan"), float("inf"), -float("inf"), 1e30):
        spoilt = {n: t.clone() for n, t in state.items()}
        for tensor in spoilt.values():
            tensor[covered] = garbage if tensor.is_floating_point() else -(2**40)
        require_close(outcome(module.unroll, module, x, spoilt, first), expected, 0.0)
        require_close(outcome(partial(stepped, module), module, x, spoilt, first), expected)


def nothing_crosses_a_reset(subject: Subject) -> None:
    """Law 5: other inputs and another state before the last reset of a row change nothing from there on."""
    module, x = memory_of(subject), sequence_of(subject)
    state, first = state_of(module, subject), firsts("none")
    for row in range(B):
        first[row, 1 + row] = True
    before = torch.arange(T) < torch.arange(1, 1 + B).unsqueeze(1)
    other_x = torch.where(before.unsqueeze(-1), 50 * torch.randn_like(x), x)
    other_state = {n: t + 7 for n, t in state.items()}
    with torch.no_grad():
        y, after = module.unroll(x, state, first)
        other_y, other_after = module.unroll(other_x, other_state, first)
        require(not torch.allclose(y[before], other_y[before]), "other inputs give the same outputs")
        require_close({"output": other_y[~before]}, {"output": y[~before]})
        # Rings hold stale slots: two states are the same if they lead to the same.
        seen = [module.unroll(x, a, None)[0] for a in (after, other_after)]
    require_close({"what the state leads to": seen[1]}, {"what the state leads to": seen[0]})


def no_gradient_crosses_a_reset(subject: Subject) -> None:
    """Of an output, only the steps of its own episode get a gradient."""
    module, first = memory_of(subject), firsts("none")
    first[:, 4] = True
    x, state = sequence_of(subject).requires_grad_(), _leaves(state_of(module, subject))
    module.unroll(x, state, first)[0][:, 4:].square().sum().backward()
    assert x.grad is not None
    require(bool(x.grad[:, 4:].any()), "no gradient reaches the episode's own steps")
    require(not x.grad[:, :4].any(), "a gradient reaches the steps of an earlier episode")
    crossed = [n for n, t in state.items() if t.grad is not None and t.grad.any()]
    require(not crossed, f"a gradient reaches the state {crossed} of an earlier episode")


def no_output_sees_a_later_input(subject: Subject) -> None:
    """Law 6."""
    module, x = memory_of(subject), sequence_of(subject)
    state, first = state_of(module, subject), firsts("some")
    later, marks = x.clone(), first.clone()
    later[:, 6:] += 10
    marks[:, 6:] = ~marks[:, 6:]
    with torch.no_grad():
        y, other = module.unroll(x, state, first)[0], module.unroll(later, state, marks)[0]
    require_close({"output": other[:, :6]}, {"output": y[:, :6]})
    require(not torch.allclose(other[:, 6:], y[:, 6:]), "other inputs give the same outputs")


def the_state_is_remembered(subject: Subject) -> None:
    """Another state gives another output."""
    module, x = memory_of(subject), sequence_of(subject)
    with torch.no_grad():
        remembered = module.unroll(x, state_of(module, subject), None)[0][:, 0]
        forgotten = module.unroll(x, module.initial_state(B), None)[0][:, 0]
    require(not torch.allclose(remembered, forgotten), "the state has no effect on the output")


def chunks_are_one_sequence(subject: Subject) -> None:
    """A sequence cut in two, the state handed on, gives the same values and gradients."""
    module, x = memory_of(subject), sequence_of(subject)
    state, first = state_of(module, subject), firsts("some")
    expected = outcome(module.unroll, module, x, state, first)
    for cut in (1, 4, 8):

        def in_chunks(x: Tensor, state: State, first: Tensor, cut: int = cut) -> tuple[Tensor, State]:
            head, state = module.unroll(x[:, :cut], state, first[:, :cut])
            tail, state = module.unroll(x[:, cut:], state, first[:, cut:])
            return torch.cat([head, tail], 1), state

        require_close(outcome(in_chunks, module, x, state, first), expected)


def a_call_changes_nothing_it_is_given(subject: Subject) -> None:
    """Neither the module, nor inputs, state and marks."""
    module, x = memory_of(subject), sequence_of(subject)
    state, first = state_of(module, subject), firsts("some")
    given, names = copy.deepcopy((x, state, first, module.state_dict())), set(vars(module))
    module.unroll(x, state, first)
    module(x[:, 0], state)
    require(set(vars(module)) == names, f"a call writes {set(vars(module)) - names} to the module")
    for before, after in zip(given, (x, state, first, module.state_dict()), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=0)


def _leaves(state: State) -> State:
    return {n: t.clone().requires_grad_(t.is_floating_point()) for n, t in state.items()}
