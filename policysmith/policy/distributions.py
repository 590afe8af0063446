"""The policy's distribution behind the interface of `torch.distributions`, for those who want one.

Discrete, MultiDiscrete and MultiBinary, Gaussian and composite spaces look alike from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from policysmith.policy.actions import ActionDistribution
from policysmith.policy.structures import Tensors

__all__ = ["DistributionView", "named_parameters"]


class DistributionView:
    """`sample()`, `mode`, `log_prob(action)`, `entropy()` over a batch of flat parameters (B, P).

    `parameters` names the parts: `logits`, or `loc` and `scale`, or for a composite space one such dict a leaf.
    """

    def __init__(self, actions: ActionDistribution, params: Tensor, masks: Sequence[Tensor] = ()) -> None:
        self._actions, self._params, self._masks = actions, params, tuple(masks)

    def sample(self) -> Any:
        """An action of every row, in the space's structure; no gradient."""
        return self._actions.structure([a.detach() for a in self._choose(False)])

    @property
    def mode(self) -> Any:
        """The most likely action of every row (for a squashed Gaussian the image of its mean)."""
        return self._actions.structure(self._choose(True))

    def log_prob(self, action: Tensors) -> Tensor:
        """Action → (B,)."""
        return self._actions.evaluate(self._params, self._actions.leaves_of(action), self._masks)[0]

    def entropy(self) -> Tensor:
        """(B,), in nats; for a squashed Gaussian by quadrature."""
        return self._actions.evaluate(self._params, self._choose(True), self._masks)[1]

    @property
    def parameters(self) -> Any:
        """The distribution's parameters by name, in the structure of the space."""
        return self._actions.structure(named_parameters(self._actions, self._params))

    def _choose(self, deterministic: bool) -> list[Tensor]:
        return self._actions.choose(self._params, self._masks, deterministic)[0]


def named_parameters(actions: ActionDistribution, params: Tensor) -> list[dict[str, Tensor]]:
    """For each leaf its parameters by name: `logits` (B, P), or `loc` and `scale` (B, D)."""
    named = []
    for leaf, part in zip(actions.leaves, actions._split(params), strict=True):
        if leaf.mask_width:
            named.append({"logits": part})
        else:
            loc, log_std = leaf.split(part)
            named.append({"loc": loc, "scale": log_std.exp()})
    return named
