"""Frozen: a component that computes and does not learn."""

from __future__ import annotations

from typing import Any, Self

from policysmith.registry import register
from policysmith.wrappers.wrapper import Inner, Wrapper

__all__ = ["Frozen"]


@register("frozen", slot="wrapper", owns_weights=True)
class Frozen(Wrapper):
    """Holds a component as it is: no gradients for its weights, no statistics, and no dropout in training mode.

    Gradients pass through it to what lies before. The parameters stay frozen if the wrapper is taken off again;
    `requires_grad_(True)` thaws them.
    """

    transparent = True

    def __init__(self, module: Inner) -> None:
        super().__init__(module)
        module.requires_grad_(False)
        module.eval()

    def train(self, mode: bool = True) -> Self:
        """What is inside stays in evaluation mode."""
        self.module.eval()
        return self

    @property
    def learner(self) -> Any:
        """Nothing: running statistics stay."""
        return None
