"""Recorded episodes as one policy reads them: leaves of observations, actions and masks. R rows of the data.

In: episodes and a policy. Out: tensors for any rows, in the network's dtypes; or one error with all that does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policysmith.errors import DatasetError, did_you_mean
from policysmith.policy.actor_critic import ActorCritic
from policysmith.training.datasets.episodes import ACTION, MASK, TERMINATED, Episodes

__all__ = ["OfflineData"]


class Column(NamedTuple):
    """One column and what turns its rows into what the network takes."""

    rows: Tensor
    dtype: torch.dtype
    start: Tensor | None = None

    def at(self, rows: Tensor) -> Tensor:
        """(N, …) the values in these rows."""
        values = self.rows.index_select(0, rows)
        if self.start is not None:
            values = values - self.start
        return values if values.dtype == self.dtype else values.to(self.dtype)


class OfflineData:
    """Episodes bound to a policy; `episodes` holds what else was recorded.

    `given` are observations that the data lacks and someone else makes: leaf → column (R, …).
    """

    def __init__(self, episodes: Episodes, policy: ActorCritic, given: Mapping[str, Tensor] | None = None) -> None:
        self.episodes, self.device = episodes, policy.device
        columns: dict[str, Tensor] = {**episodes.columns, **(given or {})}
        problems: list[str] = []
        self.observations = [
            _bound(columns, leaf.name, leaf.space, leaf.spec.shape, leaf.spec.dtype, problems)
            for leaf in policy.observations.leaves
        ]
        names = [".".join(map(str, (ACTION, *path))) for path in policy.actions.paths]
        self.actions = [
            _bound(columns, name, leaf.space, leaf.shape, torch.int64 if leaf.mask_width else torch.float32, problems)
            for name, leaf in zip(names, policy.actions.leaves, strict=True)
        ]
        self.masks = _masks(columns, policy, names, problems)
        read = [*(leaf.name for leaf in policy.observations.leaves), *names]
        problems += [bad for name in read if name in episodes.columns and (bad := episodes.not_finite(name))]
        if problems:
            raise DatasetError(f"{episodes.place} does not fit the policy: {'; '.join(problems)}")

    def observe(self, rows: Tensor) -> list[Tensor]:
        """Leaves of the observations in these rows."""
        return [column.at(rows).to(self.device) for column in self.observations]

    def acted(self, rows: Tensor) -> list[Tensor]:
        """Leaves of the actions."""
        return [column.at(rows).to(self.device) for column in self.actions]

    def legal(self, rows: Tensor) -> list[Tensor]:
        """Masks, one a discrete leaf, or none."""
        return [column.at(rows).to(self.device) for column in self.masks]

    def column(self, name: str, rows: Tensor) -> Tensor:
        """Another column, as float32."""
        return self.episodes.columns[name].index_select(0, rows).to(self.device, torch.float32)

    def chunk(self, rows: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Rows (N, H) of the next `steps` steps, an episode's last one again after its end; and which are real."""
        wanted = rows.unsqueeze(1) + torch.arange(steps)
        last = self.episodes.last_rows[rows].unsqueeze(1)
        return torch.minimum(wanted, last), wanted <= last

    def ends(self, rows: Tensor) -> Tensor:
        """1 where a step ended its episode by itself, so that nothing comes after it."""
        return self.column(TERMINATED, rows)


def _bound(
    columns: Mapping[str, Tensor], name: str, space: Any, shape: tuple[int, ...], dtype: torch.dtype, found: list[str]
) -> Column:
    column = columns.get(name)
    if column is None:
        hint = did_you_mean(name, columns) or f"; it has: {', '.join(columns)}"
        found.append(f"it has no {name!r}{hint}")
        return Column(torch.empty(0), dtype)
    start = getattr(space, "start", 0)
    is_action = name.split(".")[0] == ACTION  # those are scored in the environment's own numbers
    shifted = torch.as_tensor(np.asarray(start)) if np.any(start) and not is_action else None
    bound = Column(column, dtype, shifted)
    if tuple(column.shape[1:]) != tuple(shape):
        found.append(f"{name!r} has shape {tuple(column.shape[1:])}, expected {tuple(shape)}")
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        _check_range(name, column, space, found)
    return bound


def _check_range(name: str, column: Tensor, space: Any, found: list[str]) -> None:
    if column.dtype.is_floating_point:
        found.append(f"{name!r} is {column.dtype}, and choices are integers")
        return
    start = np.asarray(getattr(space, "start", 0))
    size = np.asarray(space.n if isinstance(space, spaces.Discrete) else getattr(space, "nvec", 2))
    values = column if column.dtype != torch.bool else column.to(torch.uint8)
    low, high = (f(values, 0).numpy() for f in (torch.amin, torch.amax))
    if np.any(low < start) or np.any(high >= start + size):
        choices = f"{start.min()} to {(start + size).max() - 1}"
        found.append(f"{name!r} has values from {low.min()} to {high.max()}, and the space has {choices}")


def _masks(columns: Mapping[str, Tensor], policy: ActorCritic, names: list[str], found: list[str]) -> list[Column]:
    """A mask of each discrete leaf where any is recorded; those that are not are all legal."""
    path = policy.observations.mask_path
    own = {} if path is None else {MASK: columns.get(".".join(map(str, ("observation", *path))))}
    masks, some = [], False
    for index in policy.actions.discrete:
        name, width = MASK + names[index].removeprefix(ACTION), policy.actions.leaves[index].mask_width
        column = columns.get(name)
        column = own.get(name) if column is None else column
        some = some or column is not None
        if column is None:
            column = torch.ones(1, width, dtype=torch.bool).expand(len(next(iter(columns.values()))), width)
        elif tuple(column.shape[1:]) != (width,):
            found.append(f"{name!r} has shape {tuple(column.shape[1:])}, expected ({width},)")
        masks.append(Column(column, torch.bool))
    return masks if some else []
