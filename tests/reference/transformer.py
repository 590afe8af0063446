"""Slow twins of transformers: attention, blocks and gates written out, and memory as one pass an episode.

B batch, T steps, D width, H heads. Nothing here shares code with what it checks but the weights.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from policysmith.ops.timeline import over_sequence
from policysmith.parts.transformer import TransformerMemory


def attention(q_TD: Tensor, k_SD: Tensor, v_SD: Tensor, heads: int, may_see: Any) -> Tensor:
    """One row, head by head and query by query; `may_see(t, s)` says which keys count. Rows without keys are zero."""
    width = q_TD.shape[-1] // heads
    rows = []
    for t, q_D in enumerate(q_TD):
        seen = [s for s in range(len(k_SD)) if may_see(t, s)]
        parts = []
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            scores = torch.stack([q_D[part] @ k_SD[s, part] / math.sqrt(width) for s in seen])
            parts.append((scores.softmax(0).unsqueeze(-1) * torch.stack([v_SD[s, part] for s in seen])).sum(0))
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def self_attention(module: nn.Module, x_TD: Tensor, causal: bool) -> Tensor:
    """Multi-head attention of one row, without positions."""
    q, k, v = (x_TD @ layer.weight.T for layer in (module.query, module.key, module.value))
    return attention(q, k, v, module.heads, lambda t, s: s <= t or not causal) @ module.out.weight.T


def cross_attention(module: nn.Module, x_TD: Tensor, source_SD: Tensor, may_see: Any) -> Tensor:
    """Attention of one row to its source."""
    q, k, v = x_TD @ module.query.weight.T, source_SD @ module.key.weight.T, source_SD @ module.value.weight.T
    return attention(q, k, v, module.heads, may_see) @ module.out.weight.T


def feedforward(module: nn.Module, x_TD: Tensor) -> Tensor:
    """down(gelu(up(x))) with the exact GELU."""
    h = x_TD @ module.up.weight.T + module.up.bias
    h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
    return h @ module.down.weight.T + module.down.bias


def layer_norm(module: nn.Module, x_TD: Tensor) -> Tensor:
    """(x - mean) / √(variance + eps), scaled and shifted."""
    centred = x_TD - x_TD.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * module.weight + module.bias


def encoder_block(block: nn.Module, x_TD: Tensor, causal: bool, placement: str) -> Tensor:
    """A block with layer norms and plain sums, on one row."""
    for around, f in (
        (block.attention_branch, lambda z: self_attention(block.attention, z, causal)),
        (block.feedforward_branch, lambda z: feedforward(block.feedforward, z)),
    ):
        if placement == "pre":
            x_TD = x_TD + f(layer_norm(around.norm_in, x_TD))
        elif placement == "post":
            x_TD = layer_norm(around.norm_after, x_TD + f(x_TD))
        else:
            x_TD = x_TD + layer_norm(around.norm_out, f(layer_norm(around.norm_in, x_TD)))
    return x_TD


def gtrxl_gate(gate: nn.Module, x_D: Tensor, y_D: Tensor) -> Tensor:
    """arXiv 1910.06764, eq. 7, of one vector: r, z, ĥ, g in the paper's letters, behind its ReLU."""
    y = y_D.clamp_min(0)
    W_r, U_r = gate.branch_reset.weight, gate.stream_reset.weight
    W_z, U_z = gate.branch_update.weight, gate.stream_update.weight
    W_g, U_g = gate.branch_candidate.weight, gate.stream_candidate.weight
    r = 1 / (1 + torch.exp(-(W_r @ y + U_r @ x_D)))
    z = 1 / (1 + torch.exp(-(W_z @ y + U_z @ x_D - gate.update_bias)))
    h = torch.tanh(W_g @ y + U_g @ (r * x_D))
    return (1 - z) * x_D + z * h


def episodes(first_T: Tensor) -> list[slice]:
    """The episodes of one row: where each begins and ends."""
    begins = [t for t in range(len(first_T)) if t == 0 or first_T[t]]
    return [slice(a, b) for a, b in zip(begins, [*begins[1:], len(first_T)], strict=True)]


def memory(module: TransformerMemory, x_BTF: Tensor, first_BT: Tensor) -> Tensor:
    """Outputs (B, T, D) from the initial state: every episode by itself, a sequence with a window."""
    rows = []
    for x_TF, first_T in zip(x_BTF, first_BT, strict=True):
        pieces = []
        for episode in episodes(first_T):
            x = module.project(x_TF[episode].unsqueeze(0))
            timeline = over_sequence(x, causal=True, window=module.context)
            # A position's own length is no limit of an episode.
            object.__setattr__(timeline, "position", module.position)
            x = module.position.embed(x, timeline.positions)
            for block in module.blocks:
                x, _ = block(x, timeline)
            pieces.append(module.norm(x).squeeze(0))
        rows.append(torch.cat(pieces))
    return torch.stack(rows)
