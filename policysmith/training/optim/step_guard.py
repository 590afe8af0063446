"""One step of an optimiser, taken only where the loss and all gradients are finite, alike on all processes.

In: losses and parameters. Out: gradients, clipped, and updated weights; or weights and moments as they were, counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

__all__ = ["Skipped", "StepGuard", "all_finite", "backward", "clip_gradients", "gradient_norm", "local_part"]


class Skipped(NamedTuple):
    """Steps that were not taken: how many, and the most of them in a row."""

    steps: int = 0
    in_a_row: int = 0


class StepGuard:
    """Counts the steps that an optimiser does not take, because their loss or gradients are not finite.

    `agree` makes one figure of those of several processes: their sum; None where there is one. On an accelerator
    nothing is waited for: torch's fused optimisers are told on the device to leave everything as it is, and counts stay
    there until they are asked for.
    """

    def __init__(self) -> None:
        self.agree: Callable[[Tensor], Tensor] | None = None
        self._counts: Tensor | None = None  # skipped, the present run of them, and the longest one; on a device
        self._count = self._run = self._longest = 0

    def step(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        parameters: Sequence[nn.Parameter],
        loss: Tensor | Iterable[Tensor],
        max_grad_norm: float | None,
        on_gradients: Iterable[Callable[[], None]] = (),
    ) -> None:
        """Backward, clip, update."""
        total = backward(parameters, loss)
        for look in on_gradients:
            look()
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients:  # finite where both are, and the norm is needed for clipping in any case
            total = total + (
                gradient_norm(gradients) if max_grad_norm is None else clip_gradients(gradients, max_grad_norm)
            )
        if total.device.type == "cpu":
            self._step(optimizers, total)
        else:
            self._step_there(optimizers, total)

    def taken(self) -> Skipped:
        """What was skipped since the last call; a run that goes on is counted on."""
        if self._counts is not None:
            self._count, self._run, self._longest = map(int, self._counts.tolist())
            self._counts = self._counts * self._counts.new_tensor([0.0, 1.0, 0.0])
        found = Skipped(self._count, max(self._longest, self._run))
        self._count = self._longest = 0
        return found

    def _step(self, optimizers: Sequence[torch.optim.Optimizer], total: Tensor) -> None:
        bad = not math.isfinite(total)
        if self.agree is not None:
            bad = bool(self.agree(torch.tensor(float(bad))) > 0)
        if bad:
            self._count, self._run = self._count + 1, self._run + 1
            self._longest = max(self._longest, self._run)
            return
        self._run = 0
        for optimizer in optimizers:
            optimizer.step()

    def _step_there(self, optimizers: Sequence[torch.optim.Optimizer], total: Tensor) -> None:
        bad = (~torch.isfinite(total)).float()
        if self.agree is not None:
            bad = self.agree(bad).clamp(max=1.0)
        if self._counts is None:
            self._counts = torch.zeros(3, device=bad.device)
        count, run, longest = self._counts.unbind()
        run = (run + 1) * bad  # both are finite
        self._counts = torch.stack([count + bad, run, torch.maximum(longest, run)])
        for optimizer in optimizers:
            if optimizer.defaults.get("fused"):
                optimizer.found_inf, optimizer.grad_scale = bad, None  # type: ignore[attr-defined]
                optimizer.step()
            elif not bad.item():  # others know no such flag, and are waited for
                optimizer.step()


def backward(parameters: Sequence[nn.Parameter], loss: Tensor | Iterable[Tensor]) -> Tensor:
    """The gradients of a loss, or of the sum of several, in place of those that parameters have; returns that sum."""
    for parameter in parameters:
        parameter.grad = None
    terms = []
    for term in [loss] if isinstance(loss, Tensor) else loss:
        term.backward()
        terms.append(term.detach())
    return sum(terms[1:], terms[0]) if terms else torch.zeros(())


@torch.no_grad()
def gradient_norm(gradients: list[Tensor]) -> Tensor:
    """The L2 norm over all gradients."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm.full_tensor() if isinstance(norm, DTensor) else norm  # over the shards of all processes


@torch.no_grad()
def clip_gradients(gradients: list[Tensor], max_norm: float) -> Tensor:
    """Scale gradients in place so that their global L2 norm is at most `max_norm`; returns the norm before."""
    norm = gradient_norm(gradients)
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


@torch.no_grad()
def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number of these tensors is finite; asks the device once."""
    local = [local_part(tensor) for tensor in tensors]
    local = [tensor for tensor in local if tensor.numel()]
    if not local:
        return True
    # The largest magnitude: NaN is handed on, and unlike a sum of squares it never overflows.
    return bool(torch.stack([norm.double() for norm in torch._foreach_norm(local, math.inf)]).isfinite().all())


def local_part(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that lies here, or the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
