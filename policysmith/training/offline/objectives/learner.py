"""What an objective of offline learning is: a loss of batches, and whatever it learns besides the policy.

In: a policy, the data it reads, and batches. Out: a loss to be minimised, and scalars that say how it goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from policysmith.graph.plan import Plan
from policysmith.policy.actor_critic import ActorCritic
from policysmith.registry import PartSpec, Registry, Slot
from policysmith.training.datasets.episodes import Episodes
from policysmith.training.offline.batches import Batch
from policysmith.training.offline.data import OfflineData
from policysmith.training.offline.micro_batches import MicroBatch, micro_batches

__all__ = ["Learner", "Loss", "Objective", "ObjectiveOption", "Start", "bind", "total", "weights_of"]

ObjectiveOption = Annotated[PartSpec | str, Slot("offline_objective")]


class Loss(NamedTuple):
    """What to minimise, and scalars (tensors, detached when they are kept) by name."""

    value: Tensor
    scalars: Mapping[str, Tensor]


@dataclass(frozen=True)
class Start:
    """What a learner is made from; `seed` is where its own weights come from."""

    policy: ActorCritic
    episodes: Episodes
    seed: int
    registry: Registry


class Learner:
    """The loss of one run. Subclasses give `loss`; those that learn more than the policy hold it in `extra`."""

    def __init__(self, policy: ActorCritic, data: OfflineData) -> None:
        self.policy, self.data = policy, data
        self.extra: nn.Module = nn.Module()

    def loss(self, batch: Batch) -> Loss:
        """The loss of a batch; also of held-out ones, then without gradients."""
        raise NotImplementedError

    def parts(self, batch: Batch, count: int) -> list[MicroBatch]:
        """The batch in at most `count` parts, the sum of whose losses by their shares is the loss of the whole.

        Subclasses whose loss has figures of the whole batch in it, or noise, give them to the parts as `known`.
        """
        return micro_batches(batch, count)

    def train(self, mode: bool) -> None:
        """Set the training mode of all that learns."""
        self.policy.train(mode)
        self.extra.train(mode)

    def take_statistics(self, batch: Batch) -> None:
        """Let running normalisers see a batch; called for all that teaches, before the first update."""
        seen = batch.observations if batch.valid is None else [leaf[batch.valid] for leaf in batch.observations]
        self.policy.update_statistics(self.policy.observations.assemble(seen))

    def after_step(self) -> None:
        """What follows an optimiser's step, such as moving targets."""

    def measure(self, batch: Batch) -> Mapping[str, Tensor]:
        """What else is told of held-out transitions: means over the batch."""
        return {}

    def parameters(self) -> Sequence[nn.Parameter]:
        """All that is trained, the policy's first."""
        return [p for module in (self.policy, self.extra) for p in module.parameters() if p.requires_grad]


class Objective(Protocol):
    """A registered objective: options, and what makes a learner of them."""

    def check(self, plan: Plan) -> None:
        """Raise `ConfigError` for the plan of a policy that can't learn so."""

    def start(self, start: Start) -> Learner:
        """The learner of one run; raises `DatasetError` where the data lacks what it needs."""


def bind(start: Start, *needs: str, reader: str) -> OfflineData:
    """The data as the policy reads it, with the columns that an objective needs."""
    start.episodes.require(needs, reader)
    return OfflineData(start.episodes, start.policy)


def total(loss: Tensor, aux: Mapping[str, Tensor]) -> Tensor:
    """The loss with the auxiliary losses that components report, weighted by themselves."""
    for name, term in aux.items():
        if name.endswith("_loss"):
            loss = loss + term
    return loss


@torch.no_grad()
def weights_of(advantage: Tensor, temperature: float, largest: float) -> Tensor:
    """exp(A / temperature), at most `largest`: how much each transition is to be imitated."""
    return (advantage / temperature).exp().clamp(max=largest)
