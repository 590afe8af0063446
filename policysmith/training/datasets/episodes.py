"""Whole episodes as columns: the one form that every dataset is read into. R rows, E episodes, T steps of one.

In: columns, and how long the episodes are. Out: rows to sample, checked. Nothing here knows of a policy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Protocol

import torch
from torch import Tensor

from policysmith.errors import DatasetError
from policysmith.registry import PartSpec, Slot

__all__ = ["ACTION", "MASK", "OBSERVATION", "REWARD", "TERMINATED", "Dataset", "DatasetOption", "Episodes", "closed"]

OBSERVATION, ACTION, MASK = "observation", "action", "action_mask"
REWARD, TERMINATED = "reward", "terminated"
CHUNK = 1 << 16  # rows looked at together: a column may be larger than the memory
DatasetOption = Annotated[PartSpec | str, Slot("dataset")]


@dataclass(frozen=True, eq=False)
class Episodes:
    """Recorded episodes: each has T rows, a step each, and one more that closes it.

    Columns are (R, …) in the environment's own units, R = Σ (T + 1): `observation`, `action` and `action_mask` (of
    structured spaces one a leaf, `observation.image`), `reward`, and `terminated`, true at a last step that ended
    the episode by itself. A closing row holds the observation after the last action, if `final` says that it is
    known, else that before it; what else it holds means nothing. `place` is what messages call the whole.
    """

    columns: Mapping[str, Tensor]
    lengths: Tensor
    observation_space: Any = None
    action_space: Any = None
    final: bool = True
    place: str = "the dataset"

    def __post_init__(self) -> None:
        problems = _problems(self)
        if problems:
            raise DatasetError(f"{self.place}: {'; '.join(problems)}")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def steps(self) -> int:
        """Steps of all episodes, closing rows not counted."""
        return int(self.lengths.sum())

    @cached_property
    def starts(self) -> Tensor:
        """(E,) the row of each episode's first step."""
        return _starts(self.lengths + 1)

    @cached_property
    def fingerprint(self) -> list[int]:
        """What a resumed run compares: episodes, steps, and a sum that tells orders of lengths apart."""
        weights = torch.arange(1, len(self) + 1)
        return [len(self), self.steps, int((self.lengths * weights).sum() % 2**31)]

    def rows(self, episodes: Tensor) -> Tensor:
        """The rows of every step of these episodes, in their order."""
        lengths, starts = self.lengths[episodes], self.starts[episodes]
        offsets = torch.arange(int(lengths.sum())) - _starts(lengths).repeat_interleave(lengths)
        return starts.repeat_interleave(lengths) + offsets

    @cached_property
    def last_rows(self) -> Tensor:
        """(R,) the row of the last step of each row's episode."""
        return (self.starts + self.lengths - 1).repeat_interleave(self.lengths + 1)

    def require(self, names: Collection[str], reader: str) -> None:
        """Raise `DatasetError` for columns that `reader` needs and that were not recorded."""
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise DatasetError(f"{self.place}: has no {' and no '.join(missing)}, which {reader} needs")
        if REWARD in names and (bad := self.not_finite(REWARD)):
            raise DatasetError(f"{self.place}: {bad}")

    def not_finite(self, name: str) -> str:
        """Where a column holds a number that is not finite, as a sentence; empty where it holds none.

        Closing rows count only where they hold an observation: what else they hold means nothing.
        """
        column = self.columns[name]
        if not column.is_floating_point():
            return ""
        found: list[Tensor] = []
        for start in range(0, len(column), CHUNK):
            finite = (
                torch.isfinite(column[start : start + CHUNK]).flatten(1).all(1)
                if column.dim() > 1
                else (torch.isfinite(column[start : start + CHUNK]))
            )
            found.append((~finite).nonzero().flatten() + start)
        rows = torch.cat(found)
        if not (self.final and name.split(".")[0] == OBSERVATION):
            rows = rows[~torch.isin(rows, self.last_rows[rows] + 1)]
        if not len(rows):
            return ""
        row = int(rows[0])
        episode = int(torch.searchsorted(self.starts, row, right=True)) - 1
        values = column[row].flatten()
        value = float(values[~torch.isfinite(values)][0])
        more = f", and {len(rows) - 1:,} more rows have such numbers" if len(rows) > 1 else ""
        place = f"row {row:,} (episode {episode:,}, step {row - int(self.starts[episode]):,})"
        return f"{name!r} is {value:g} in {place}{more}: mend or leave out these episodes"

    def returns(self, gamma: float) -> Tensor:
        """(R,) the discounted sum of rewards from each step to its episode's end; 0 in closing rows."""
        import numpy as np

        rewards = self.columns[REWARD].to(torch.float64).numpy()
        result = np.zeros(len(rewards), np.float32)
        order = np.argsort(-self.lengths.numpy(), kind="stable")  # the longest first: all that still run are in front
        starts, lengths = self.starts.numpy()[order], self.lengths.numpy()[order]
        total = np.zeros(len(order))
        running = np.searchsorted(-lengths, -np.arange(lengths[0]), side="left")  # episodes longer than t
        for t in range(int(lengths[0]) - 1, -1, -1):
            rows = starts[: running[t]] + t
            total[: running[t]] = rewards[rows] + gamma * total[: running[t]]
            result[rows] = total[: running[t]]
        return torch.from_numpy(result)


class Dataset(Protocol):
    """A way to store episodes: its options say where they are."""

    def open(self) -> Episodes:
        """The episodes; raises `DatasetError` for what is missing or damaged."""
        ...


def closed(
    columns: Mapping[str, Tensor],
    lengths: Tensor,
    last: Mapping[str, Tensor] | None = None,
    **known: Any,
) -> Episodes:
    """Episodes of columns with a row a step (Σ T rows); `last` are the observations (E, …) that close them."""
    place = known.get("place", "the dataset")
    steps = int(lengths.sum())
    wrong = [f"{name} has {len(column)} rows" for name, column in columns.items() if len(column) != steps]
    wrong += [f"the last {name} has {len(c)} rows" for name, c in (last or {}).items() if len(c) != len(lengths)]
    if wrong or not len(lengths) or int(lengths.min()) < 1:
        shape = f"{len(lengths)} episodes of {steps} steps in all, of one step at least"
        raise DatasetError(f"{place}: {'; '.join(wrong) or 'an episode has no step'}; expected {shape}")
    ends = (lengths + 1).cumsum(0) - 1
    source = (torch.arange(steps + len(lengths)) - torch.arange(len(lengths)).repeat_interleave(lengths + 1)).clone()
    source[ends] -= 1  # closing rows repeat the last step
    full = {name: column[source] for name, column in columns.items()}
    for name, column in (last or {}).items():
        full[name][ends] = column
    return replace(Episodes(full, lengths, **known), final=last is not None)


def _starts(lengths: Tensor) -> Tensor:
    return lengths.cumsum(0) - lengths


def _problems(episodes: Episodes) -> list[str]:
    columns, lengths = episodes.columns, episodes.lengths
    if not len(lengths):
        return ["it has no episode"]
    if int(lengths.min()) < 1:
        return [f"episode {int(lengths.argmin())} has no step"]
    rows = int((lengths + 1).sum())
    found = [f"{n} has {len(c)} rows, expected {rows}" for n, c in columns.items() if len(c) != rows]
    for wanted in (OBSERVATION, ACTION):
        if not any(name == wanted or name.startswith(f"{wanted}.") for name in columns):
            found.append(f"there is no column {wanted!r}; there are: {', '.join(columns) or 'none'}")
    return found
