"""A rollout as training data: rows where the policy is memoryless, sequences where it remembers.

T steps, N environments, S sequences of L steps, R rows.
In: a rollout and its columns. Out: random minibatches, each in parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from policysmith.policy.actor_critic import ActorCritic
from policysmith.training.rollout.rollout import Rollout

__all__ = ["Batches", "Columns", "Extra", "Minibatch", "RowBatches", "SequenceBatches", "keep_times"]

# log_prob, entropy, value (R,), a mapping of auxiliary losses and statistics, then the extra edges (R, …) asked for.
Evaluation = tuple[Any, ...]


class Columns(NamedTuple):
    """What the loss needs of each transition besides what the policy reads; (R,) each, or (T, N) before flattening."""

    log_prob: Tensor
    advantage: Tensor
    returns: Tensor
    value: Tensor


class Extra(NamedTuple):
    """Edges of the plan to evaluate besides the value, and what teaches them: targets (T, N)."""

    edges: Sequence[str] = ()
    targets: Sequence[Tensor] = ()


class Minibatch(NamedTuple):
    """Some transitions: `evaluate()` → (log_prob, entropy, value, auxiliary losses and statistics, *edges), columns,
    and targets (R,) of the edges.
    """

    evaluate: Callable[[], Evaluation]
    columns: Columns
    targets: Sequence[Tensor] = ()


class Batches(ABC):
    """A rollout, ready to be cut into minibatches."""

    @abstractmethod
    def in_parts(self, count: int, parts: int) -> Iterator[list[Minibatch]]:
        """About equal minibatches in a random order, each cut into at most `parts`."""

    def minibatches(self, count: int) -> Iterator[Minibatch]:
        """About equal minibatches in a random order."""
        return (whole for (whole,) in self.in_parts(count, 1))


class RowBatches(Batches):
    """Transitions one by one, in any order: for memoryless policies."""

    def __init__(self, policy: ActorCritic, rollout: Rollout, columns: Columns, extra: Extra = Extra()) -> None:  # noqa: B008 - immutable
        like = columns.advantage
        chosen = rollout.actions if rollout.draws is None else rollout.draws
        leaves = [*rollout.observations, *chosen, *(_over_rows(mask, like) for mask in rollout.masks)]
        valid = rollout.valid
        self.leaves = [leaf.flatten(0, 1) if valid is None else leaf[valid] for leaf in leaves]
        self.columns = Columns(*(column.flatten() if valid is None else column[valid] for column in columns))
        self.targets = [target.flatten() if valid is None else target[valid] for target in extra.targets]
        self.reports = policy.reports
        drawn = {} if rollout.draws is None else {"drawn": True}
        self._evaluate = policy.evaluating(len(rollout.masks), return_aux=self.reports, extra=extra.edges, **drawn)

    def in_parts(self, count: int, parts: int) -> Iterator[list[Minibatch]]:
        """About equal minibatches, each cut into at most `parts`: rows are shuffled once an epoch, then sliced."""
        rows = len(self.columns.log_prob)
        order = torch.randperm(rows, device=self.columns.log_prob.device)
        leaves = [leaf.index_select(0, order) for leaf in self.leaves]
        columns = torch.stack(self.columns).index_select(1, order)
        targets = [target.index_select(0, order) for target in self.targets]

        def taken(start: int, end: int) -> Minibatch:
            part = [leaf[start:end] for leaf in leaves]
            told = [target[start:end] for target in targets]
            return Minibatch(partial(self._run, part), Columns(*columns[:, start:end].unbind(0)), told)

        for start, end in _slices(0, rows, count):
            yield [taken(*piece) for piece in _slices(start, end, parts)]

    def _run(self, leaves: list[Tensor]) -> Evaluation:
        results = self._evaluate(*leaves)
        aux, edges = (results[-1], results[3:-1]) if self.reports else ({}, results[3:])
        return (*results[:3], aux, *edges)


class SequenceBatches(Batches):
    """Sequences of `length` steps, each with the state before it: for policies with memory.

    With `burn_in` the state is made anew, without gradient, from that many steps before the sequence; the first
    sequence of a rollout has none before it and starts from the state that it acted with (R2D2, openreview r1lyTjAqYX).
    """

    def __init__(
        self,
        policy: ActorCritic,
        rollout: Rollout,
        columns: Columns,
        length: int,
        burn_in: int = 0,
        extra: Extra = Extra(),  # noqa: B008 - immutable
    ) -> None:
        assert rollout.first is not None
        self.policy, self.length, self.burn_in = policy, length, burn_in
        steps, self.environments = rollout.first.shape
        times = keep_times(steps, length, burn_in)
        self.observations = [_cut(leaf, length) for leaf in rollout.observations]
        self.drawn = rollout.draws is not None
        self.actions = [_cut(leaf, length) for leaf in rollout.draws or rollout.actions]
        self.masks = [_cut(_over_rows(mask, columns.advantage), length) for mask in rollout.masks]
        self.first = _cut(rollout.first, length)
        self.columns = Columns(*(_cut(column, length) for column in columns))
        self.edges, self.targets = extra.edges, [_cut(target, length) for target in extra.targets]
        self.valid = None if rollout.valid is None else _cut(rollout.valid, length)
        self.state = {
            key: torch.cat([rollout.states[time][key] for time in times]) for key in next(iter(rollout.states.values()))
        }
        if burn_in:
            self._before = [_before(leaf, length, burn_in) for leaf in rollout.observations]
            self._first_before = _before(rollout.first, length, burn_in)

    def in_parts(self, count: int, parts: int) -> Iterator[list[Minibatch]]:
        """About equal minibatches, each cut into at most `parts`: sequences are shuffled once an epoch, then sliced."""
        order = torch.randperm(len(self.first), device=self.first.device)
        if self.valid is not None:
            order = order[self.valid.any(1)[order]]  # of a sequence without a valid step there is no mean
        for start, end in _slices(0, len(order), count):
            yield [self._taken(order[slice(*piece)]) for piece in _slices(start, end, parts)]

    def _taken(self, chosen: Tensor) -> Minibatch:
        valid = None if self.valid is None else self.valid[chosen]
        flat = [
            column[chosen].flatten() if valid is None else column[chosen][valid]
            for column in (*self.columns, *self.targets)
        ]
        told = flat[len(self.columns) :]
        return Minibatch(partial(self._run, chosen, valid), Columns(*flat[: len(self.columns)]), told)

    def _run(self, chosen: Tensor, valid: Tensor | None) -> Evaluation:
        aux: dict[str, Tensor] = {}
        leaves, actions, masks = (
            [leaf[chosen].flatten(0, 1) for leaf in group] for group in (self.observations, self.actions, self.masks)
        )
        rows = (len(chosen), self.length)
        sink = aux if self.policy.reports else None
        results: Any = self.policy.evaluate_leaves(
            leaves, actions, masks, rows, self._state(chosen), self.first[chosen], sink, self.edges, self.drawn
        )
        if valid is not None:
            results = [result[valid.flatten()] for result in results]
        return (*results[:3], aux, *results[3:])

    def _state(self, chosen: Tensor) -> dict[str, Tensor]:
        """The state before each chosen sequence."""
        state = {key: tensor[chosen] for key, tensor in self.state.items()}
        late = (chosen >= self.environments).nonzero().flatten()  # sequences of later chunks have steps before them
        if not self.burn_in or not len(late):
            return state
        source = chosen[late] - self.environments
        with torch.no_grad():
            observations = self.policy.observations.assemble([leaf[source] for leaf in self._before])
            started = {key: tensor[late] for key, tensor in state.items()}
            _, _, burned = self.policy.unroll(observations, started, self._first_before[source])
        return {key: tensor.index_copy(0, late, burned[key]) for key, tensor in state.items()}


def keep_times(steps: int, length: int, burn_in: int = 0) -> list[int]:
    """The steps of a rollout whose state is needed: where each sequence, or its burn-in, begins."""
    return [max(0, start - burn_in) for start in range(0, steps, length)]


def _slices(start: int, end: int, count: int) -> list[tuple[int, int]]:
    """At most `count` about equal pieces of a range."""
    size = -(-(end - start) // count)
    return [(at, min(at + size, end)) for at in range(start, end, size)]


def _cut(tensor: Tensor, length: int) -> Tensor:
    """(T, N, *) → (S, L, *), sequences ordered by chunk of time, then environment."""
    return tensor.unflatten(0, (-1, length)).movedim(2, 1).flatten(0, 1)


def _before(tensor: Tensor, length: int, burn_in: int) -> Tensor:
    """(T, N, *) → ((K − 1)·N, burn_in, *): the steps before each chunk of time but the first."""
    parts = [tensor[start - burn_in : start].movedim(1, 0) for start in range(length, len(tensor), length)]
    return torch.cat(parts) if parts else tensor[:0].movedim(1, 0)


def _over_rows(mask: Tensor, like: Tensor) -> Tensor:
    """A mask (T, 1 or N, A) for every row."""
    return mask.expand(*like.shape, mask.shape[-1])
