"""RegularizedModule: the size of a component's weights as a loss beside its outputs.

In: a mapping. Out: the same one; in training mode `regularization_loss` is in it, or in its sink of auxiliary losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from policysmith.ops.balance import add_loss
from policysmith.registry import register
from policysmith.types import NonNegative
from policysmith.wrappers.wrapper import Inner, Wrapper, add_report

__all__ = ["RegularizedModule"]

LOSS = "regularization_loss"

# The parameters that wrappers around the present call have taken on: a nested one leaves them out. It lives as long as
# the outer call and is seen by what is called inside it alone, however deep it lies.
_TAKEN: ContextVar[tuple[nn.Parameter, ...]] = ContextVar("taken", default=())
_TAKEN_IN_TRACE: list[tuple[nn.Parameter, ...]] = []  # torch.compile, which traces one thread at a time, knows no such


@register("regularized", slot="wrapper")
class RegularizedModule(Wrapper):
    """Adds l2_scale · Σ p² + l1_scale · Σ |p| over the trainable parameters to `regularization_loss`, in training mode.

    A plain mapping gets a scalar, a TensorDict the scalar expanded to its batch shape (so its mean is the loss); what
    other modules have put there is added to. Inside a policy the loss goes to the sink (`return_aux=True`), and
    trainers add it. Of nested regularisers the outermost decides: each parameter counts once, by its scales.

    Args:
        l2_scale: The weight of the sum of squares.
        l1_scale: The weight of the sum of absolute values.
    """

    transparent = True

    def __init__(self, module: Inner, l2_scale: NonNegative = 0.01, l1_scale: NonNegative = 0.0) -> None:
        super().__init__(module)
        if min(l2_scale, l1_scale) < 0:
            raise ValueError(f"l2_scale={l2_scale} and l1_scale={l1_scale} must be ≥ 0")
        self.l2_scale, self.l1_scale = l2_scale, l1_scale

    @property
    def reports(self) -> tuple[str, ...]:  # type: ignore[override]
        """This loss, and what is reported inside."""
        return tuple(dict.fromkeys((*super().reports, LOSS)))

    def forward(self, mapping: Any) -> Any:
        """Call what stands inside, then add the loss."""
        return self._around(self.module, mapping, lambda result, loss: add_report(mapping, result, LOSS, loss))

    def report(self, sink: dict[str, Any]) -> None:
        """Add the loss to a sink, and what is reported inside."""
        self._around(super().report, sink, lambda _, loss: add_loss(sink, LOSS, loss))

    def _around(self, call: Callable[[Any], Any], argument: Any, add: Callable[[Any, Tensor], None]) -> Any:
        """`call(argument)`, in which nested regularisers leave out what this one takes on; then the loss."""
        if not self.training:
            return call(argument)
        taken = _taken()
        known = {id(p) for p in taken}
        own = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        with _taking((*taken, *own)):
            result = call(argument)
        if own or not taken:  # an outer one has taken all
            add(result, self.penalty(own))
        return result

    def penalty(self, parameters: Sequence[nn.Parameter] | None = None) -> Tensor:
        """The loss of these parameters, or of all trainable ones: a scalar, differentiable."""
        if parameters is None:
            parameters = [p for p in self.parameters() if p.requires_grad]
        if not parameters or not (self.l2_scale or self.l1_scale):
            return torch.zeros((), device=parameters[0].device if parameters else None)
        l2 = self.l2_scale * _sum_of_squares(parameters) if self.l2_scale else 0.0
        return l2 + self.l1_scale * _norms(parameters, 1).sum() if self.l1_scale else l2  # type: ignore[return-value]


def _sum_of_squares(parameters: Sequence[Tensor]) -> Tensor:
    if torch.compiler.is_compiling():  # which makes kernels of its own
        return _norms(parameters, 2).square().sum()
    total: Tensor = _SumOfSquares.apply(*parameters)
    return total


class _SumOfSquares(torch.autograd.Function):
    """Σ p² of tensors in two kernel launches; torch's own gradient of a norm takes several for each of them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*parameters: Tensor) -> Tensor:
        return _norms(parameters, 2).square().sum()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch._foreach_mul(ctx.saved_tensors, 2 * gradient))


def _norms(parameters: Sequence[Tensor], order: float) -> Tensor:
    """The norm of each, in one kernel launch where torch has one."""
    norms: Sequence[Tensor] = torch._foreach_norm(list(parameters), order)
    if len({(norm.dtype, norm.device) for norm in norms}) > 1:
        norms = [norm.to(norms[0]) for norm in norms]
    return torch.stack(list(norms))


def _taken() -> tuple[nn.Parameter, ...]:
    if torch.compiler.is_compiling():
        return _TAKEN_IN_TRACE[-1] if _TAKEN_IN_TRACE else ()
    return _TAKEN.get()


@contextmanager
def _taking(parameters: tuple[nn.Parameter, ...]) -> Iterator[None]:
    if torch.compiler.is_compiling():
        _TAKEN_IN_TRACE.append(parameters)
        yield
        _TAKEN_IN_TRACE.pop()
        return
    token = _TAKEN.set(parameters)
    try:
        yield
    finally:
        _TAKEN.reset(token)
