"""A moving average of the weights, which acts in place of the weights that learn wherever a policy is judged or stored.

In: a policy and its optimiser. Out: averaged weights, put in place for a while or for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from policysmith.errors import WiringError
from policysmith.policy.parameter_exchange import ParameterExchange

__all__ = ["WeightAverage"]


class WeightAverage:
    """w̄ ← decay · w̄ + (1 - decay) · w for every weight that learns, from the weights of now on (arXiv 1806.04498)."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self._module, self._stands = decay, module, False
        self._learning = _learning(module)
        self._average = {name: p.detach().clone() for name, p in self._learning.items()}

    def follow(self, optimizer: Any) -> None:
        """Update after each step of an optimiser that has torch's as `torch_optimizer`, and go along with its swaps."""
        # On an accelerator a step that was not taken is known there alone, as the flag that fused optimisers obey.
        optimizer.torch_optimizer.register_step_post_hook(
            lambda inner, *_: self.update(getattr(inner, "found_inf", None))
        )
        getattr(optimizer, "followers", []).append(self)

    def exchange_parameters(self, exchange: ParameterExchange, undo: ExitStack) -> None:
        """Average newcomers from their present weights on, and forget what left; `undo` takes what undoes it.

        Raises `WiringError` while the average stands in the weights' place.
        """
        if self._stands:
            raise WiringError("the average stands in the place of the weights that learn: swap before or after that")
        undo.callback(self._hold, self._learning, self._average)
        learning = _learning(self._module)
        known = {id(p): self._average[name] for name, p in self._learning.items()}
        average = {n: known[id(p)] if id(p) in known else p.detach().clone() for n, p in learning.items()}
        self._hold(learning, average)

    def _hold(self, learning: dict[str, nn.Parameter], average: dict[str, Tensor]) -> None:
        self._learning, self._average = learning, average

    @torch.no_grad()
    def update(self, skipped: Tensor | None = None) -> None:
        """Take the present weights into the average, if all are finite and `skipped` is not set."""
        weights, average = [p.detach() for p in self._learning.values()], self.tensors
        if not weights:
            return
        finite = torch.isfinite(torch.stack([_whole(norm) for norm in torch._foreach_norm(weights)]).sum())
        if finite.device.type != "cpu":
            finite = finite if skipped is None else finite & (skipped == 0)
            weights = [torch.where(finite, w, a) for w, a in zip(weights, average, strict=True)]
        elif not finite:
            return
        torch._foreach_lerp_(average, weights, 1 - self.decay)

    @property
    def average(self) -> Mapping[str, Tensor]:
        """The average itself by name, not a copy."""
        return self._average

    @property
    def tensors(self) -> list[Tensor]:
        """The average itself, not a copy."""
        return list(self._average.values())

    @property
    def weights(self) -> Mapping[str, nn.Parameter]:
        """The weights that learn themselves, by name."""
        return self._learning

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The average in place of the weights; the weights that learn are put back at the end."""
        kept = self.learning()
        self._put(self._average)
        self._stands = True
        try:
            yield
        finally:
            self._stands = False
            self._put(kept)

    def settle(self) -> None:
        """Leave the average in the weights' place."""
        self._put(self._average)

    def learning(self) -> dict[str, Tensor]:
        """The weights that learn, as copies: what a resumed run needs besides the stored policy."""
        return {name: p.detach().clone() for name, p in self._learning.items()}

    def resume(self, learning: Mapping[str, Tensor]) -> None:
        """Go on with a policy that was stored averaged, and with what `learning` gave then."""
        self._average = self.learning()
        self._put(learning)

    def state(self) -> dict[str, Tensor]:
        """The average itself, as copies."""
        return {name: tensor.clone() for name, tensor in self._average.items()}

    def load_state(self, average: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave, beside the weights as they are."""
        self._average = {name: average[name].clone() for name in self._learning}

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self._learning.items():
            parameter.copy_(tensors[name])


def _learning(module: nn.Module) -> dict[str, nn.Parameter]:
    """What learns, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _whole(norm: Tensor) -> Tensor:
    """A norm over the shards of all processes."""
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
