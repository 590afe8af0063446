"""Law 7: rows of a batch do not influence each other; types whose rows do in training say so."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from policysmith.registry import PartSpec
from policysmith.testing.case import PART, Subject, require, tuple_of

__all__ = [
    "a_nan_stays_in_its_row",
    "another_row_changes_nothing",
    "coupling_is_declared",
    "is_coupled",
    "rows_stand_alone",
]

BATCH = 4


def rows_stand_alone(subject: Subject) -> None:
    """A row alone gives what it gives in a batch; in double precision, where the order of a sum does not show."""
    model = subject.model().eval().double()
    tensors = [t.double() if t.is_floating_point() else t for t in subject.tensors(BATCH)]
    together = _run(model, tensors)
    for row in range(BATCH):
        alone = _run(model, [t[row : row + 1] for t in tensors])
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], many[row], rtol=1e-9, atol=1e-9)


def another_row_changes_nothing(subject: Subject) -> None:
    """Bit for bit, in evaluation mode."""
    model, tensors = subject.model().eval(), subject.tensors(BATCH)
    require(not _differ(model, tensors), "another first row changes the rows behind it, in evaluation mode")


def a_nan_stays_in_its_row(subject: Subject) -> None:
    """Of inputs that are all floats."""
    tensors = subject.tensors(BATCH)
    if all(t.is_floating_point() for t in tensors):
        for output in _run(subject.model().eval(), _other_first_row(tensors, float("nan"))):
            require(bool(output[1:].isfinite().all()), "a NaN in the first row reaches the rows behind it")


def coupling_is_declared(subject: Subject) -> None:
    """In training rows influence each other exactly where the type is registered with `batch_coupled=True`."""
    coupled = _differ(subject.model().train(), subject.tensors(BATCH))
    declared = is_coupled(subject.plan().node(PART).part)
    require(coupled == declared, f"rows are coupled in training: {coupled}; its type declares {declared}")


def is_coupled(part: PartSpec) -> bool:
    """Whether the type, or a part nested in its options, is registered as `batch_coupled`."""
    nested = [value for value in part.options.values() if isinstance(value, PartSpec)]
    return bool(part.entry.traits.get("batch_coupled")) or any(map(is_coupled, nested))


def _differ(model: nn.Module, tensors: list[Tensor]) -> bool:
    before, after = _run(model, tensors), _run(model, _other_first_row(tensors))
    return any(not torch.equal(b[1:], a[1:]) for b, a in zip(before, after, strict=True))


def _other_first_row(tensors: list[Tensor], value: float | None = None) -> list[Tensor]:
    """The same rows but for the first, which is filled with a value, or with that of the second row."""
    changed = [t.clone() for t in tensors]
    for tensor in changed:
        tensor[0] = tensor[1] if value is None else value
    return changed


def _run(model: nn.Module, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """The outputs of a copy, so that running statistics stay, with the same random numbers each time."""
    torch.manual_seed(0)
    return tuple_of(copy.deepcopy(model)(*tensors))
