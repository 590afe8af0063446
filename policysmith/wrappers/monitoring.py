"""WeightMonitoringModule: how a component's weight matrices are, and keeping them in bounds between optimiser steps.

In: nothing but the weights. Out: warnings in the log, numbers by name; a forward changes nothing.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from policysmith.registry import register
from policysmith.types import Count, Positive
from policysmith.wrappers.health import Health, effective_rank, weight_matrices
from policysmith.wrappers.wrapper import Attachment, Inner, Wrapper

__all__ = ["WeightMonitoringModule"]

log = logging.getLogger(__name__)


@register("monitoring", slot="wrapper")
class WeightMonitoringModule(Wrapper):
    """Watches the weight matrices of a component, and clips them to ±`clip_value` where one is given.

    `attach(optimizer)`, which trainers call, does both after optimiser steps: clipping after every one, looking after
    every `every`-th. Without it, every `every`-th forward in training mode looks (on the CPU; a policy's compiled calls
    leave that out), and `clip_weights()` clips. What is wrong is told to the log once, until it changes.

    Args:
        clip_value: The bound of every weight after an optimiser step; null has none.
        monitor_health: Whether dead units, norms and singular values are computed.
        every: After how many steps they are computed again.
    """

    transparent = True

    def __init__(
        self,
        module: Inner,
        clip_value: Positive | None = None,
        monitor_health: bool = True,
        every: Count = 100,
    ) -> None:
        super().__init__(module)
        if clip_value is not None and clip_value <= 0:
            raise ValueError(f"clip_value={clip_value} must be > 0, or None")
        if every < 1:
            raise ValueError(f"every={every} must be ≥ 1")
        self.clip_value, self.monitor_health, self.every = clip_value, monitor_health, every
        self._watch = _Watch()

    def forward(self, mapping: Any) -> Any:
        """Call what stands inside; now and then look at the weights."""
        result = self.module(mapping)
        if self.training and self.monitor_health and not self._watch.attached and not torch.compiler.is_compiling():
            parameter = next(self.parameters(), None)
            if parameter is not None and parameter.device.type == "cpu" and self._watch.due(self.every):
                self.check_health()
        return result

    def attach(self, optimizer: Any) -> Attachment:
        """Clip after every step of the optimiser (torch's, or one that holds it as `torch_optimizer`), and look."""
        inner = super().attach(optimizer)
        handle = getattr(optimizer, "torch_optimizer", optimizer).register_step_post_hook(self._after_step)
        self._watch.attached += 1
        return Attachment([inner.remove, handle.remove, self._detached])

    @torch.no_grad()
    def clip_weights(self) -> None:
        """Clamp every trainable weight matrix to ±`clip_value`, in place; not between a forward and its backward."""
        if self.clip_value is None:
            return
        weights: list[Tensor] = [p for p in self.parameters() if p.requires_grad and p.dim() >= 2]
        if weights:
            torch._foreach_clamp_min_(weights, -self.clip_value)
            torch._foreach_clamp_max_(weights, self.clip_value)

    def check_health(self) -> None:
        """Look at the weights and tell the log what is wrong with them, if that is new."""
        for name, found in self.health().items():
            if self._watch.is_new(name, complaint := found.complaint) and complaint:
                log.warning("%s: %s", name, complaint)

    def health(self) -> dict[str, Health]:
        """Each weight matrix by name: dead units, norm, largest entry. One transfer from the device."""
        named = dict(weight_matrices(self))
        if not named:
            return {}
        figures = torch.stack([Health.figures(weight) for weight in named.values()]).tolist()
        return {name: Health(*row) for name, row in zip(named, figures, strict=True)}

    def metrics(self, spectra: bool = False) -> dict[str, float]:
        """`<parameter>/dead_units`, `/norm` and `/largest` of every weight matrix as it is now.

        With `spectra` also `/singular_value`, the largest, and `/effective_rank`, which cost a decomposition each.
        """
        found = super().metrics()
        for name, health in self.health().items():
            found |= {f"{name}/{figure}": value for figure, value in health._asdict().items()}
        if spectra:
            found |= self._spectra()
        return found

    @torch.no_grad()
    def _spectra(self) -> dict[str, float]:
        found = {}
        for name, weight in weight_matrices(self):
            singular_values = torch.linalg.svdvals(weight.float())
            found[f"{name}/singular_value"] = float(singular_values[0])
            found[f"{name}/effective_rank"] = float(effective_rank(singular_values))
        return found

    def _after_step(self, *_: Any) -> None:
        self.clip_weights()
        if self.monitor_health and self._watch.due(self.every):
            self.check_health()

    def _detached(self) -> None:
        self._watch.attached -= 1


class _Watch:
    """What a monitor remembers: how often it was asked, what it said last, and how many optimisers tell it of steps."""

    def __init__(self) -> None:
        self.calls = self.attached = 0
        self._said: dict[str, str] = {}

    def due(self, every: int) -> bool:
        """Whether this call, of all so far, is the first, or `every` calls after one that was."""
        self.calls += 1
        return (self.calls - 1) % every == 0

    def is_new(self, name: str, complaint: str) -> bool:
        before, self._said[name] = self._said.get(name, ""), complaint
        return before != complaint

    def __getstate__(self) -> dict[str, Any]:
        """A copy is attached to nothing."""
        return {**self.__dict__, "attached": 0}
