"""What is drawn from recorded episodes: rows for memoryless policies, windows of steps for those that remember.

B windows, L steps, N transitions. In: data and episodes to draw from. Out: batches in an order that follows from the
seed and the number of the update alone, so that a resumed run draws what an uninterrupted one does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from policysmith.policy.actor_critic import ActorCritic
from policysmith.training.datasets.episodes import Episodes
from policysmith.training.offline.data import OfflineData

__all__ = [
    "Batch",
    "Evaluated",
    "Sampler",
    "evaluate",
    "parameters_of",
    "score",
    "split_episodes",
    "units_of",
    "make_batch",
]


class Batch(NamedTuple):
    """Some transitions: their `rows` (N,) in the data, and what the policy reads.

    For windows, leaves are (B·L, …), `shape` is (B, L), and `valid` (B·L,) marks the N steps that count: others are
    padding, or run only to make the state.
    """

    rows: Tensor
    observations: list[Tensor]
    actions: list[Tensor]
    masks: list[Tensor]
    shape: tuple[int, int] | None = None
    valid: Tensor | None = None
    known: Mapping[str, Tensor] = {}
    """What an objective found of the batch that this is a part of, or drew for it (see `Learner.parts`)."""


class Evaluated(NamedTuple):
    """What a policy says of a batch's transitions: (N,) each, and auxiliary losses and statistics."""

    log_prob: Tensor
    entropy: Tensor
    value: Tensor
    aux: dict[str, Tensor]


def split_episodes(count: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Which episodes teach and which are held out, drawn by the seed; each side that should have one has one."""
    held_out = min(max(round(share * count), 1), count - 1) if share else 0
    order = torch.randperm(count, generator=_generator(seed, -1))
    return order[held_out:].sort().values, order[:held_out].sort().values


def units_of(policy: ActorCritic, episodes: Episodes, chosen: Tensor, length: int | None, burn_in: int) -> Tensor:
    """What a sampler draws: rows (U,), or for a policy with memory windows (U, 3): first row, burn-in, end.

    Windows of `length` steps (None: the whole episode) follow each other through an episode; the last is shorter. Up
    to `burn_in` steps before each are run too, and do not count.
    """
    if not policy.has_memory:
        return episodes.rows(chosen)
    windows = []
    for episode in chosen.tolist():
        start, steps = int(episodes.starts[episode]), int(episodes.lengths[episode])
        for offset in range(0, steps, length or steps):
            before = min(burn_in, offset)
            windows.append((start + offset - before, before, start + min(steps, offset + (length or steps))))
    return torch.tensor(windows, dtype=torch.int64).reshape(-1, 3)


class Sampler:
    """Batches of units: every epoch in a new order that the seed and the epoch's number give.

    `ahead` is by how many batches its place in the data is further than the updates that are counted: other than 0
    where a run goes on with batches of another size.
    """

    def __init__(self, data: OfflineData, units: Tensor, size: int, seed: int) -> None:
        self.data, self.units, self.size, self.seed = data, units, size, seed
        self.per_epoch = -(-len(units) // size)
        self.ahead = 0
        self._epoch, self._order = -1, units

    def go_on(self, update: int, epochs: float) -> None:
        """Have that update be the first after so many epochs."""
        self.ahead = round(epochs * self.per_epoch) - update

    def epochs(self, update: int) -> float:
        """How often all units were drawn before that update."""
        return (update + self.ahead) / self.per_epoch

    def batch(self, update: int) -> Batch:
        """The batch of that update, counted from 0."""
        return make_batch(self.data, self.drawn(update))

    def weight(self, update: int) -> float:
        """How much the batch counts beside those of other processes."""
        return 1.0

    def drawn(self, update: int) -> Tensor:
        """The units of that update."""
        epoch, index = divmod(update + self.ahead, self.per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(len(self.units), generator=_generator(self.seed, epoch))
            self._epoch, self._order = epoch, self.units[order]
        return self._order[index * self.size : (index + 1) * self.size]

    def __iter__(self) -> Iterator[Batch]:
        """Every unit once, in the data's order."""
        return (make_batch(self.data, part) for part in self.units.split(self.size))


def make_batch(data: OfflineData, units: Tensor) -> Batch:
    """The transitions of some units."""
    if units.ndim == 1:
        return Batch(units, data.observe(units), data.acted(units), data.legal(units))
    begin, before, end = (column.unsqueeze(1) for column in units.unbind(1))
    steps_BL = begin + torch.arange(int((end - begin).max()))
    valid = ((steps_BL >= begin + before) & (steps_BL < end)).flatten()
    rows = torch.minimum(steps_BL, end - 1).flatten()  # padding repeats a window's last step
    shape = (len(units), steps_BL.shape[1])
    return Batch(rows[valid], data.observe(rows), data.acted(rows), data.legal(rows), shape, valid.to(data.device))


def evaluate(policy: ActorCritic, batch: Batch) -> Evaluated:
    """Log-probabilities, entropies and values of a batch's transitions, differentiable."""
    aux: dict[str, Tensor] = {}
    if batch.shape is None:
        call = policy.evaluating(len(batch.masks), return_aux=policy.reports)
        log_prob, entropy, value, *rest = call(*batch.observations, *batch.actions, *batch.masks)
        return Evaluated(log_prob, entropy, value, rest[0] if rest else aux)
    assert batch.valid is not None
    sink = aux if policy.reports else None
    results: Any = policy.evaluate_leaves(
        batch.observations, batch.actions, batch.masks, batch.shape, None, _begins(batch.shape, policy.device), sink
    )
    log_prob, entropy, value = (result[batch.valid] for result in results)
    return Evaluated(log_prob, entropy, value, aux)


def score(policy: ActorCritic, batch: Batch) -> Evaluated:
    """`evaluate` where the value is not asked for: that of a memoryless policy is not computed, and empty."""
    if batch.shape is not None:
        return evaluate(policy, batch)
    call = policy.scoring(len(batch.masks), return_aux=policy.reports)
    log_prob, entropy, *rest = call(*batch.observations, *batch.actions, *batch.masks)
    return Evaluated(log_prob, entropy, log_prob.new_empty(0), rest[0] if rest else {})


def parameters_of(policy: ActorCritic, batch: Batch) -> Tensor:
    """(N, P) the parameters of the policy's distribution."""
    if batch.shape is None:
        params: Tensor = policy.forward(policy.observations.assemble(batch.observations))[0]
        return params
    sequences = [leaf.unflatten(0, batch.shape) for leaf in batch.observations]
    first = _begins(batch.shape, policy.device)
    return policy.unroll(policy.observations.assemble(sequences), None, first)[0].flatten(0, 1)[batch.valid]


def _begins(shape: tuple[int, int], device: torch.device) -> Tensor:
    """(B, L): every window begins from the initial state."""
    first = torch.zeros(shape, dtype=torch.bool, device=device)
    first[:, 0] = True
    return first


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch + 1) % 2**63)
