"""A policy head that makes actions by following a flow (arXiv 2210.02747). F features, H steps, D numbers an action.

In: features (*, F). Out: distribution parameters (*, 2D) about the first action of a chunk of H. It learns by the
objective `flow_matching`: its likelihoods say nothing of the flow.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from policysmith.ops.init import with_role
from policysmith.parts.activations import Activation
from policysmith.parts.mlp import MLP
from policysmith.registry import register
from policysmith.types import ActionLayout, FlatFeatures, Positive, Repeats, Width

__all__ = ["FlowHead"]

FREQUENCIES = 8  # of the flow's time, in octaves: enough to tell hundredths apart


@register("flow_head", role="policy")
class FlowHead(nn.Module):
    """Features (*, F) → parameters (*, 2D) of a narrow Gaussian about an action that a flow has made.

    A network gives the velocity that carries noise to a chunk of `horizon` actions in `steps` Euler steps; the first
    action is played. The noise is a draw that is stored with the weights, so that the same features give the same
    action, or with `sampled` a new one each time. For a Box action space.

    Args:
        hidden: widths of the velocity's network.
        activation: its activation.
        horizon: actions of a chunk.
        steps: Euler steps from noise to actions.
        deviation: standard deviation about the action, in its units.
        sampled: whether each action begins from new noise.
    """

    start: Tensor
    centre: Tensor
    spread: Tensor
    octaves: Tensor

    def __init__(
        self,
        in_features: FlatFeatures,
        layout: ActionLayout,
        hidden: list[Width] = [128, 128],  # noqa: B006 - read only
        activation: Activation = "silu",
        horizon: Width = 1,
        steps: Repeats = 8,
        deviation: Positive = 0.01,
        sampled: bool = False,
    ) -> None:
        super().__init__()
        if len(layout) != 1 or layout[0][0] != layout[0][1]:
            raise ValueError("flow_head makes the actions of one Box; use action_head for other spaces")
        self.size, self.horizon, self.steps, self.sampled = layout[0][0], horizon, steps, sampled
        width = horizon * self.size
        self.body = MLP(in_features + width + 2 * FREQUENCIES, hidden, activation)
        self.out = with_role(nn.Linear(hidden[-1], width), "projection")
        self.log_deviation = math.log(deviation)
        self.register_buffer("start", torch.randn(width))
        self.register_buffer("centre", torch.zeros(self.size))
        self.register_buffer("spread", torch.ones(self.size))
        self.register_buffer("octaves", math.pi * 2.0 ** torch.arange(FREQUENCIES), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (*, F) → (*, 2D)."""
        loc = self.chunk(x)[..., : self.size] * self.spread + self.centre
        return torch.cat([loc, torch.full_like(loc, self.log_deviation)], -1)

    def chunk(self, x: Tensor) -> Tensor:
        """x (*, F) → (*, H·D) normalised actions, by Euler steps from noise."""
        start = self.start.to(x.dtype).expand(*x.shape[:-1], -1)
        y = torch.randn_like(start) if self.sampled else start
        for step in range(self.steps):
            time = torch.full_like(y[..., :1], step / self.steps)
            y = y + self.velocity(x, y, time) / self.steps
        return y

    def velocity(self, x: Tensor, y: Tensor, time: Tensor) -> Tensor:
        """Features (*, F), normalised actions on their way (*, H·D), time in [0, 1] (*, 1) → (*, H·D)."""
        phase = time * self.octaves
        return self.out(self.body(torch.cat([x, y, phase.sin(), phase.cos()], -1)))
