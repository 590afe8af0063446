"""The one attention call: softmax(q kᵀ · scale + bias) v over the keys that a mask allows.

B batch, T queries, S keys, H query heads, G key heads (H is a multiple of G), D width of keys, E width of values.
Wraps torch's fused kernel and its thorns: rows without keys, triangles of T ≠ S, one query over few key heads, D ≠ E.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from policysmith.ops.leaf_function import leaf_function

__all__ = ["attend"]

# Kernels that give zeros, and zero gradients, to a query that sees nothing, as a test shows; others may give NaN.
ZEROS_WHERE_NOTHING_IS_SEEN = ("cpu",)


@leaf_function
def attend(
    q_BTHD: Tensor,
    k_BSGD: Tensor,
    v_BSGE: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Attention of each query head over its key head (consecutive query heads share one): → (B, T, H, E).

    `mask` bool, True where a key may be seen, and `bias`, added to the scores, broadcast to (B, H, T, S) from (T, S) at
    least. `causal` allows keys up to the query's own place; it needs T == S or raises ValueError. A query that sees no
    key gives zeros. `dropout` is the probability to drop a weight: pass 0 outside training. `scale` is 1/√D unless
    given.
    """
    T, grouped = q_BTHD.size(1), q_BTHD.size(2) != k_BSGD.size(2)
    if causal and (S := k_BSGD.size(1)) != T:
        raise ValueError(f"causal attention needs as many keys as queries, found {S} keys, {T} queries: give a mask")
    if causal and (mask is not None or bias is not None):
        triangle = torch.ones(T, T, dtype=torch.bool, device=q_BTHD.device).tril()
        mask, causal = triangle if mask is None else mask & triangle, False
    if bias is not None and bias.dtype != q_BTHD.dtype:
        bias = bias.to(q_BTHD.dtype)
    if grouped and T == 1:
        return _one_query(q_BTHD, k_BSGD, v_BSGE, mask, bias, dropout, scale)
    return _fused(q_BTHD, k_BSGD, v_BSGE, mask, bias, causal, dropout, scale)


def _one_query(
    q_B1HD: Tensor,
    k_BSGD: Tensor,
    v_BSGE: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    dropout: float,
    scale: float | None,
) -> Tensor:
    """The heads that share keys as queries of one head: torch would copy the keys for each of them."""
    H, G = q_B1HD.shape[2], k_BSGD.shape[2]

    def fold(tensor: Tensor | None) -> Tensor | None:
        """(B|1, H, 1, S) → (B|1, G, H/G, S); what is the same for all heads broadcasts as it is."""
        per_head = tensor is not None and tensor.dim() > 2 and tensor.shape[-3] > 1
        return tensor.unflatten(-3, (G, H // G)).squeeze(-2) if per_head else tensor  # type: ignore[union-attr]

    q_BTGD = q_B1HD.squeeze(1).unflatten(1, (G, H // G)).transpose(1, 2)
    y_BTGE = _fused(q_BTGD, k_BSGD, v_BSGE, fold(mask), fold(bias), False, dropout, scale)
    return y_BTGE.transpose(1, 2).flatten(1, 2).unsqueeze(1)


def _fused(
    q_BTHD: Tensor,
    k_BSGD: Tensor,
    v_BSGE: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    causal: bool,
    dropout: float,
    scale: float | None,
) -> Tensor:
    if k_BSGD.size(-1) != v_BSGE.size(-1):
        same = _same_width(q_BTHD, k_BSGD, v_BSGE)
        scale = q_BTHD.size(-1) ** -0.5 if scale is None else scale
        return _fused(*same, mask, bias, causal, dropout, scale)[..., : v_BSGE.size(-1)]
    q, k, v = q_BTHD.transpose(1, 2), k_BSGD.transpose(1, 2), v_BSGE.transpose(1, 2)
    seen = None
    if mask is not None and q.device.type not in ZEROS_WHERE_NOTHING_IS_SEEN:
        seen = mask.any(-1, keepdim=True)
        mask = mask | ~seen
    allowed = mask if bias is None else bias if mask is None else bias.masked_fill(~mask, float("-inf"))
    grouped = q.size(1) != k.size(1)
    y = F.scaled_dot_product_attention(q, k, v, allowed, dropout, causal, scale=scale, enable_gqa=grouped)
    y = y if seen is None else torch.where(seen, y, 0)
    return y.transpose(1, 2)


def _same_width(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros behind the narrower of keys and values, which change nothing: kernels take one width only."""
    more = k.shape[-1] - v.shape[-1]
    if more < 0:
        return F.pad(q, (0, -more)), F.pad(k, (0, -more)), v
    return q, k, F.pad(v, (0, more))
