"""Batch normalisation in several processes: statistics of the batch of all ranks, or one set of running ones.

In: a policy and a world. Out: the same policy, whose running statistics are alike on all ranks.

torch's SyncBatchNorm has no kernel for the CPU and takes tokens (B, T, F) for channels, so layers keep their class's
forward here, and what it hands to `F.batch_norm` is normalised by sums over all ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from policysmith.graph.module_view import bare
from policysmith.policy.actor_critic import ActorCritic
from policysmith.training.distribution.world import World

__all__ = ["average_statistics", "batch_norms", "synchronised"]


def batch_norms(policy: ActorCritic, held: bool = False) -> list[nn.Module]:
    """Every batch normalisation of the policy, or those of components whose weights are all held."""
    roots = [bare(component) for component in policy.components.values()]
    roots = [root for root in roots if not held or is_held(root)]
    return [module for root in roots for module in root.modules() if isinstance(module, _BatchNorm)]


def is_held(component: nn.Module) -> bool:
    """Whether a component has weights and none of them learns."""
    learns = [parameter.requires_grad for parameter in component.parameters()]
    return bool(learns) and not any(learns)


def average_statistics(policy: ActorCritic, world: World) -> None:
    """Give every rank the mean of all ranks' running statistics, where a layer keeps any."""
    if world.size == 1:
        return
    for layer in batch_norms(policy):
        for buffer in (layer.running_mean, layer.running_var):
            if isinstance(buffer, Tensor):
                buffer.copy_(world.mean(buffer))


@contextmanager
def synchronised(policy: ActorCritic, world: World) -> Iterator[None]:
    """Have every batch normalisation normalise by the batch of all ranks while it is in training mode."""
    layers = batch_norms(policy) if world.size > 1 else []
    classes = [type(layer) for layer in layers]
    for layer in layers:
        layer.__class__ = _synchronised_class(type(layer))
    try:
        yield
    finally:
        for layer, before in zip(layers, classes, strict=True):
            layer.__class__ = before


def _synchronised_class(kind: type[nn.Module]) -> type[nn.Module]:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        with _BatchOfAllRanks():
            normalised: Tensor = kind.forward(self, x)
        return normalised

    return type(f"Synchronised{kind.__name__}", (kind,), {"forward": forward})


class _BatchOfAllRanks(TorchFunctionMode):
    """`F.batch_norm` in training mode, by the statistics of all ranks."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.batch_norm:
            return func(*args, **(kwargs or {}))
        return _batch_norm(*args, **(kwargs or {}))


class _Total(torch.autograd.Function):
    """The sum over all ranks, whose gradient is that of all ranks' losses; torch's own such function is private."""

    @staticmethod
    def forward(context: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _total(own: Tensor) -> Tensor:
    total: Tensor = _Total.apply(own)
    return total


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """x (B, C, *) → the same, each channel normalised over rows and places of all ranks (arXiv 1502.03167)."""
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    sums = _total(torch.cat([x.sum(axes), x.new_tensor([x.numel() / x.shape[1]])]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = x - mean.view(shape)
    variance = _total(centred.square().sum(axes)) / count  # after the mean: no cancellation
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), momentum)
    normalised = centred * torch.rsqrt(variance + eps).view(shape)
    if weight is not None:
        normalised = normalised * weight.view(shape)
    return normalised if bias is None else normalised + bias.view(shape)
