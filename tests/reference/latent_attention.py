"""Multi-head latent attention as the paper writes it: every head's keys and values expanded, one token at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .attention import Bias, Turn, Visible, linear, rms, weighted


def slow_latent_attention(
    weights: Mapping[str, Tensor],
    x_TF: Tensor,
    heads: int,
    kv_rank: int,
    rope_dim: int,
    visible: Visible = lambda h, i, j: True,
    turn: Turn = lambda vector, step: vector,
    bias: Bias = lambda h, distance: 0.0,
) -> Tensor:
    """A row (T, F) → (T, F); appendix C of arXiv 2405.04434, with the parameters of our module by name."""
    ks, vs = [], []
    for j, x in enumerate(x_TF):
        compressed = linear(weights, "latent", x)
        latent, shared = rms(compressed[:kv_rank], weights["latent_norm.weight"]), turn(compressed[kv_rank:], j)
        ks.append([torch.cat((content, shared)) for content in linear(weights, "key", latent).chunk(heads)])
        vs.append(linear(weights, "value", latent).chunk(heads))
    out = []
    for i, x in enumerate(x_TF):
        joined = []
        for h, q in enumerate(query(weights, x).chunk(heads)):
            q = torch.cat((q[:-rope_dim], turn(q[-rope_dim:], i)))
            keys = [j for j in range(len(x_TF)) if visible(h, i, j)]
            scores = [q @ ks[j][h] / math.sqrt(len(q)) + bias(h, abs(i - j)) for j in keys]
            joined.append(weighted(scores, [vs[j][h] for j in keys], x.new_zeros(0)))
        out.append(linear(weights, "out", torch.cat(joined)))
    return torch.stack(out)


def query(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """All heads' queries, through a latent where there is one."""
    if "query.down.weight" in weights:
        x = rms(linear(weights, "query.down", x), weights["query.norm.weight"])
    return linear(weights, "query.up", x)
