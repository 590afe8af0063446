"""How the processes of a run share the work of a step: alone, with gradients averaged, or with weights sharded.

In: a policy and the loss of this rank's part of a batch. Out: a loss whose gradients are those of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from policysmith.errors import WiringError
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.parameter_exchange import ParameterExchange
from policysmith.training.distribution.world import World
from policysmith.training.optim.optimizers import Optimizers

__all__ = ["ALONE", "Replicated", "Strategy", "StrategyName", "P"]

P = TypeVar("P")
StrategyName = Literal["ddp", "fsdp"]


class Strategy:
    """One process; what the others refine. A strategy is made after the weights are known and before the optimiser."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()

    def loss(self, make: Callable[[], Tensor], weight: float = 1.0, final: bool = True) -> Tensor:
        """The loss that `make` gives, ready for `backward`; gradients add up until that of the `final` one is made.

        `weight` is this rank's share of what counts, times the number of ranks: the mean over ranks of weighted
        means is the mean over all.
        """
        value = make()
        return value if weight == 1.0 else value * weight

    def evened(self, parts: Sequence[tuple[P, float]], count: int) -> Sequence[tuple[P, float]]:
        """The parts of a batch with their shares; as many on every rank, at most `count`, where each is an exchange."""
        return parts

    def follow(self, optimizer: Optimizers) -> None:
        """All ranks take a step of this optimiser, or none; look after its gradients, and its parameters in a swap."""
        if self.world.size > 1:
            optimizer.guard.agree = self.world.total

    @contextmanager
    def whole(self) -> Iterator[None]:
        """With all weights at hand on every rank: for acting, judging and saving."""
        yield

    def gathered(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by name, whole: as they are stored, whatever the number of ranks."""
        return dict(state)

    def release(self) -> None:
        """Leave the policy with whole weights of its own, at the end of the run."""

    @property
    def shards(self) -> bool:
        """Whether weights are sharded, so that checkpoints between are."""
        return False


ALONE = Strategy()


class Replicated(Strategy):
    """Every rank has all weights, and torch's DistributedDataParallel averages gradients while they are made.

    Only what learns is wrapped, in a module of its own: programs read the live weights, so the wrapper's forward is
    handed the loss rather than the observations. Parameters that a step does not use are looked for each time: whether
    an expert is used depends on the data, and whether a head is, on the objective. What no rank used keeps no gradient.
    """

    def __init__(self, world: World, policy: ActorCritic, extra: nn.Module | None = None) -> None:
        super().__init__(world)
        self._modules: list[nn.Module] = [policy] if extra is None else [policy, extra]
        world.share_of_writer(_tensors(self._modules))
        self._engine = self._made()

    def loss(self, make: Callable[[], Tensor], weight: float = 1.0, final: bool = True) -> Tensor:
        """DDP looks through the loss's graph for what it uses; without `final` it does nothing."""
        with nullcontext() if final else self._engine.no_sync():
            shared: Tensor = self._engine(super().loss(make, weight))
        return shared

    def follow(self, optimizer: Optimizers) -> None:
        """What a swap brings is averaged over ranks as well."""
        super().follow(optimizer)
        optimizer.followers.append(self)

    def exchange_parameters(self, exchange: ParameterExchange, undo: ExitStack) -> None:
        """Give newcomers the weights of rank 0, and DDP the parameters of now; `undo` takes what undoes it.

        All ranks swap at the same time. Raises `WiringError` for a guarded swap: one rank would undo it alone.
        """
        if exchange.guarded:
            raise WiringError(
                f"guard would undo the swap on the one rank that meets a bad number, and {self.world.size} train as "
                "one: swap without guard"
            )
        self.world.share_of_writer(_tensors(exchange.after.values()))
        undo.callback(setattr, self, "_engine", self._engine)  # its hooks are still on the parameters it had
        self._engine = self._made()

    def _made(self) -> DistributedDataParallel:
        """DDP over what learns now. An earlier one is inert outside its own steps, and its end takes its hooks off."""
        learning = {id(p): p for module in self._modules for p in module.parameters() if p.requires_grad}
        devices = [self.world.device] if self.world.device.type == "cuda" else None
        through = _Through(list(learning.values())).to(self.world.device)
        return DistributedDataParallel(through, device_ids=devices, find_unused_parameters=True)


def _tensors(modules: Iterable[nn.Module]) -> list[Tensor]:
    return [t for module in modules for t in (*module.parameters(), *module.buffers())]


class _Through(nn.Module):
    """What learns, as a module that hands on what it is given."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.learning = nn.ParameterList(parameters)
        # DDP prints an advice against looking where the first step leaves nothing unused; a later one may.
        self.never = nn.Parameter(torch.zeros(1))

    def forward(self, value: Tensor) -> Tensor:
        """The loss as it is."""
        return value
