"""Attention as its definition says it, one query of one head at a time: the slow twin of ops.attend and its users."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Visible = Callable[[int, int, int], bool]  # head, index of the query, index of the key
Turn = Callable[[Tensor, int], Tensor]  # a vector and its step
Bias = Callable[[int, int], float]  # head, distance


def slow_attend(q, k, v, mask=None, bias=None, scale=None) -> Tensor:
    """(B, T, H, D), (B, S, G, D), (B, S, G, E), mask and bias (B, H, T, S) → (B, T, H, E)."""
    B, T, H, D = q.shape
    share = H // k.shape[2]
    rows = []
    for b in range(B):
        for t in range(T):
            for h in range(H):
                keys = [s for s in range(k.shape[1]) if mask is None or mask[b, h, t, s]]
                scores = [q[b, t, h] @ k[b, s, h // share] * (scale or 1 / math.sqrt(D)) for s in keys]
                if bias is not None:
                    scores = [score + bias[b, h, t, s] for score, s in zip(scores, keys, strict=True)]
                rows.append(weighted(scores, [v[b, s, h // share] for s in keys], v.new_zeros(v.shape[-1])))
    return torch.stack(rows).view(B, T, H, -1)


def weighted(scores: Sequence[Tensor], values: Sequence[Tensor], nothing: Tensor) -> Tensor:
    """Σ softmax(scores) · values; `nothing` where there are no scores."""
    if not scores:
        return nothing
    highest = max(score.item() for score in scores)
    powers = [(score - highest).exp() for score in scores]
    return sum(p / sum(powers) * value for p, value in zip(powers, values, strict=True))


def turned(x: Tensor, step: int, fraction: float = 1.0, base: float = 10_000.0) -> Tensor:
    """A vector with its pairs (r, R + r) turned by step · base^(-r/R)."""
    pairs = int(len(x) * fraction) // 2
    y = list(x)
    for r in range(pairs):
        angle = step * base ** (-r / pairs)
        y[r] = x[r] * math.cos(angle) - x[pairs + r] * math.sin(angle)
        y[pairs + r] = x[pairs + r] * math.cos(angle) + x[r] * math.sin(angle)
    return torch.stack(y)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    """Root-mean-square normalisation with eps 1e-6."""
    return x / (x.square().mean() + 1e-6).sqrt() * weight


def slow_heads(
    weights: Mapping[str, Tensor],
    x_TF: Tensor,
    source_SF: Tensor,
    heads: int,
    kv_heads: int,
    visible: Visible = lambda h, i, j: True,
    turn: Turn = lambda vector, step: vector,
    turn_queries: Turn | None = None,
    bias: Bias = lambda h, distance: 0.0,
) -> Tensor:
    """Projections, attention of each head, heads joined: a row (T, F) reads (S, F') → (T, F).

    `weights` are a module's parameters by name. The step of a token is its index; `turn_queries` is `turn` by default.
    """
    turn_queries = turn_queries or turn
    ks = [[turn(k, j) for k in split(weights, "key", x, kv_heads)] for j, x in enumerate(source_SF)]
    vs = [split(weights, "value", x, kv_heads) for x in source_SF]
    out = []
    for i, x in enumerate(x_TF):
        joined = []
        for h, q in enumerate(split(weights, "query", x, heads)):
            q, g = turn_queries(q, i), h // (heads // kv_heads)
            keys = [j for j in range(len(source_SF)) if visible(h, i, j)]
            scores = [q @ ks[j][g] / math.sqrt(len(q)) + bias(h, abs(i - j)) for j in keys]
            joined.append(weighted(scores, [vs[j][g] for j in keys], torch.zeros_like(q)))
        out.append(linear(weights, "out", torch.cat(joined)))
    return torch.stack(out)


def split(weights: Mapping[str, Tensor], name: str, x: Tensor, heads: int) -> list[Tensor]:
    """The heads of a projection, normalised where the weights have a norm for them."""
    vectors, norm = linear(weights, name, x).chunk(heads), weights.get(f"{name}_norm.weight")
    return [vector if norm is None else rms(vector, norm) for vector in vectors]


def linear(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """W x, + b where there is one."""
    y = weights[f"{name}.weight"] @ x
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y
