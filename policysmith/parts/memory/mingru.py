"""minGRU: a GRU whose gates see only the input, so that a sequence is a linear scan."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from policysmith.ops.resets import Resets
from policysmith.ops.scan import linear_scan
from policysmith.parts.memory.stacked import LayerStates, StackedMemory, Weights
from policysmith.registry import register

__all__ = ["MinGRU"]


@register("mingru", stateful=True, causal=True)
class MinGRU(StackedMemory):
    """Minimal GRU (arXiv 2410.01201, appendix B): h_t = (1 - z_t) h_{t-1} + z_t g(v_t), where z_t and v_t see x_t only.

    (F,) a step → (hidden_size,). g(v) = v + 0.5 for v ≥ 0, else σ(v), so states are positive. The state is `h`,
    (B, num_layers, hidden_size). `dropout` acts between layers, `forget_bias` is where the bias of the gate that keeps
    the past, 1 - z, starts. Weights start orthogonal, biases 0.
    """

    state_names = ("h",)
    weight_names = ("weight", "bias")  # rows: z, then v

    def _shapes(self, width: int) -> tuple[tuple[int, ...], ...]:
        return (2 * self.hidden_size, width), (2 * self.hidden_size,)

    def _forget_bias(self, layer: int) -> tuple[Tensor, float]:
        return getattr(self, f"bias_l{layer}").chunk(2)[0], -1.0

    def _step(self, x_BF: Tensor, states: LayerStates, weights: Weights) -> LayerStates:
        keep, add = _keep_and_add(x_BF, weights)
        return (add.addcmul(keep, states[0]),)

    def _sequence(
        self, x_TBF: Tensor, states: LayerStates, initial: LayerStates, weights: Weights, resets: Resets
    ) -> tuple[Tensor, LayerStates]:
        keep, add = _keep_and_add(x_TBF, weights)
        # The paper scans in log space; keep < 1, so products of it are safe as they are.
        h_TBH = linear_scan(keep, add, states[0], initial[0], resets)
        return h_TBH, (h_TBH[-1],)


def _keep_and_add(x: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """1 - z and z · g(v), (*, H) each."""
    weight, bias = weights
    z, v = F.linear(x, weight, bias).chunk(2, -1)
    return (-z).sigmoid(), z.sigmoid() * torch.where(v >= 0, v + 0.5, v.sigmoid())
