"""Weights, gradients and moments sharded over the ranks by torch's FSDP2.

In: a policy. Out: the same policy, whose weights are sharded but while a pass runs or `whole()` asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from policysmith.errors import PolicysmithError, WiringError
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.parameter_exchange import SHARDED, ParameterExchange
from policysmith.training.distribution.strategy import P, Strategy
from policysmith.training.distribution.world import World
from policysmith.training.optim.optimizers import Optimizers

__all__ = ["Sharded"]


class Sharded(Strategy):
    """Every rank keeps a part of each weight that learns, of its gradient and of its moments.

    Programs read the live parameter dictionaries, where FSDP2 puts the whole weights while the root's forward runs. So
    the root's forward is the loss itself, and no component carries a hook that would keep its code from running.
    Weights that do not learn stay whole on every rank.
    """

    def __init__(self, world: World, policy: ActorCritic) -> None:
        super().__init__(world)
        world.share_of_writer([*policy.parameters(), *policy.buffers()])
        self._policy = policy
        held = {p for p in policy.parameters() if not p.requires_grad}
        self._learning = [name for name, p in policy.named_parameters() if p.requires_grad]
        self._used: set[str] = set()
        mesh = init_device_mesh(world.device.type, (world.size,))
        self._root: Any = fully_shard(_Root(policy), mesh=mesh, ignored_params=held)
        if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
            reason = f"torch {torch.__version__} can't shard weights that a rank leaves out"
            raise PolicysmithError(f"training.strategy: {reason}; take torch 2.13 or newer, or ddp")
        self._root.set_reduce_scatter_unused_params(True)  # ranks may use different experts

    def loss(self, make: Callable[[], Tensor], weight: float = 1.0, final: bool = True) -> Tensor:
        """The whole weights are gathered for `make`, and again for its backward."""
        self._root.set_requires_gradient_sync(final)
        value: Tensor = self._root(lambda: self._noted(super(Sharded, self).loss(make, weight)))
        return value

    def evened(self, parts: Sequence[tuple[P, float]], count: int) -> Sequence[tuple[P, float]]:
        """Every part gathers the weights, so a rank that has fewer steps over its last one again, without counting."""
        return [*parts, *[(parts[-1][0], 0.0)] * (count - len(parts))]

    def follow(self, optimizer: Optimizers) -> None:
        """What no rank used has a gradient of zeros by now, and an optimiser would move it by its momentum."""
        super().follow(optimizer)
        optimizer.on_gradients(self._drop_unused)
        optimizer.followers.append(self)

    def exchange_parameters(self, exchange: ParameterExchange, undo: ExitStack) -> None:
        """Raises `WiringError`: FSDP2 can't take other weights, also while whole ones stand in their place."""
        raise WiringError(SHARDED)

    def _noted(self, value: Tensor) -> Tensor:
        """The loss, after noting which weights it depends on: those whole ones that FSDP2 has put in place."""
        names = {id(parameter): name for name, parameter in self._policy.named_parameters()}
        self._used |= {names[found] for found in map(id, _leaves(value)) if found in names}
        return value

    def _drop_unused(self) -> None:
        used = self.world.total(torch.tensor([float(name in self._used) for name in self._learning])).tolist()
        parameters = dict(self._policy.named_parameters())
        for name, count in zip(self._learning, used, strict=True):
            if not count:
                parameters[name].grad = None
        self._used = set()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Whole copies in the weights' place, not FSDP2's own: those become shards again when a state dict is made."""
        sharded = self._make_whole()
        try:
            yield
        finally:
            for store, name, parameter in sharded:
                store[name] = parameter

    def gathered(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Moments and the like, whole."""
        return {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in state.items()}

    @property
    def shards(self) -> bool:
        """They are."""
        return True

    def release(self) -> None:
        """Whole weights take the shards' place; what the optimiser holds is no longer theirs."""
        self._make_whole()

    @torch.no_grad()
    def _make_whole(self) -> list[tuple[dict[str, Any], str, DTensor]]:
        """Put whole copies in the place of all shards; returns where each was. Shared weights stay shared."""
        made: dict[int, nn.Parameter] = {}
        places: list[tuple[dict[str, Any], str, DTensor]] = []
        for module in self._policy.modules():
            for name, parameter in module._parameters.items():
                if isinstance(parameter, DTensor):
                    if id(parameter) not in made:
                        made[id(parameter)] = nn.Parameter(parameter.full_tensor(), parameter.requires_grad)
                    module._parameters[name] = made[id(parameter)]
                    places.append((module._parameters, name, parameter))
        return places


def _leaves(value: Tensor) -> Iterator[Tensor]:
    """The tensors that ask for a gradient of a value."""
    waiting, met = [value.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in met:
            continue
        met.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            yield leaf
        waiting += [following for following, _ in node.next_functions]


class _Root(nn.Module):
    """The policy below a forward that runs what it is given."""

    def __init__(self, policy: ActorCritic) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, make: Callable[[], Tensor]) -> Tensor:
        """What `make` gives, while the weights are whole."""
        return make()
