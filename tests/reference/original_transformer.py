"""The policy of the original transformer factory written plainly, with the names of its stored weights.

B batch, T steps, F features, E width, H heads, L scales.
"""

import itertools
import math

import torch
from torch import nn

KERNELS = (1, 3, 5)


def conv_norm(width, norm):
    return nn.BatchNorm1d(width) if norm == "batch" else nn.InstanceNorm1d(width, affine=norm == "affine instance")


class Basic(nn.Module):
    def __init__(self, features, hidden, dim, layers, norm):
        super().__init__()
        sizes = [features, *[hidden] * (layers - 1), dim]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv1d(i, o, 3, padding=1), nn.GELU(), conv_norm(o, norm), nn.Dropout(0.1))
            for i, o in itertools.pairwise(sizes)
        )

    def forward(self, x_BFT):
        for layer in self.layers:
            x_BFT = layer(x_BFT)
        return x_BFT


class Residual(nn.Module):
    def __init__(self, width, norm):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv1d(width, width, 3, padding=1), conv_norm(width, norm)
        self.conv2, self.norm2 = nn.Conv1d(width, width, 3, padding=1), conv_norm(width, norm)

    def forward(self, x):
        y = nn.functional.gelu(self.norm1(self.conv1(x)))
        return nn.functional.gelu(x + self.norm2(self.conv2(y)))


class Inception(nn.Module):
    def __init__(self, inputs, width, norm):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv1d(inputs, width, k, padding=k // 2), nn.GELU(), conv_norm(width, norm))
            for k in KERNELS
        )

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


class Projected(nn.Module):
    """What the resnet and the inception extractor share: maps of single steps around the blocks."""

    def __init__(self, features, hidden, dim, layers, norm, kind):
        super().__init__()
        self.input_proj = nn.Sequential(nn.Conv1d(features, hidden, 1), nn.GELU())
        if kind == "resnet":
            self.res_blocks, last = nn.ModuleList(Residual(hidden, norm) for _ in range(layers)), hidden
        else:
            share, last = hidden // 3, hidden // 3 * 3
            self.blocks = nn.ModuleList(Inception(last if i else hidden, share, norm) for i in range(layers))
        self.output_proj = nn.Conv1d(last, dim, 1)

    def forward(self, x_BFT):
        x = self.input_proj(x_BFT)
        for block in self.res_blocks if hasattr(self, "res_blocks") else self.blocks:
            x = block(x)
        return self.output_proj(x)


class TimeEmbedding(nn.Module):
    def __init__(self, dim, length):
        super().__init__()
        self.position_embedding = nn.Parameter(torch.zeros(1, length, dim))
        self.temporal_encoder = nn.Sequential(nn.Linear(1, dim // 2), nn.GELU(), nn.Linear(dim // 2, dim))

    def forward(self, x_BTE):
        T = x_BTE.shape[1]
        return x_BTE + self.position_embedding[:, :T] + self.temporal_encoder(torch.arange(T).float()[:, None])


def attend(q_TD, k_TD, v_TD, sees_TT):
    scores = (q_TD @ k_TD.transpose(-1, -2) / math.sqrt(q_TD.shape[-1])).masked_fill(~sees_TT, -math.inf)
    return scores.softmax(-1) @ v_TD


class HeadAttention(nn.Module):
    """Multi-head attention, or with one head of keys and values multi-query attention; `names` of the projections."""

    def __init__(self, dim, heads, names, multi_query):
        super().__init__()
        self.heads, self.names, self.one = heads, names, multi_query
        for name, rows in zip(names, (dim, *[dim // heads if multi_query else dim] * 2, dim), strict=True):
            setattr(self, name, nn.Linear(dim, rows, bias=False))

    def forward(self, x, sees_TT):
        q, k, v = (getattr(self, name)(x) for name in self.names[:3])
        d = q.shape[-1] // self.heads
        cut = [slice(h * d, (h + 1) * d) for h in range(self.heads)]
        parts = [attend(q[..., c], *((k, v) if self.one else (k[..., c], v[..., c])), sees_TT) for c in cut]
        return getattr(self, self.names[3])(torch.cat(parts, -1))


class Pyramid(nn.Module):
    """Each head with layers of its own and one scale; it ignores the mask that it is given, unless `honest`."""

    def __init__(self, dim, heads, names, steps, honest):
        super().__init__()
        self.heads, self.names, self.honest = heads, names, honest
        for name in names[:3]:
            setattr(self, name, nn.ModuleList(nn.Linear(dim, dim // heads) for _ in range(heads)))
        setattr(self, names[3], nn.Linear(dim, dim))
        masks = torch.zeros(min(5, heads), steps, steps)
        for level in range(len(masks)):
            for i in range(steps):
                for j in range(steps):
                    near = abs(i - j) <= 2**level or abs(i - j) % 2 ** (1 + level) == 0
                    masks[level, i, j] = float(near)
        self.register_buffer("masks", masks)

    def forward(self, x, sees_TT):
        T, parts = x.shape[1], []
        for h in range(self.heads):
            pattern = self.masks[min(h, len(self.masks) - 1), :T, :T] == 1
            q, k, v = (getattr(self, name)[h](x) for name in self.names[:3])
            parts.append(attend(q, k, v, pattern & sees_TT if self.honest else pattern))
        return getattr(self, self.names[3])(torch.cat(parts, -1))


class FeedForward(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(0.1), nn.Linear(hidden, dim))

    def forward(self, x):
        return self.network(x)


class Mixture(nn.Module):
    """Gates are the softmax over the best logits alone."""

    def __init__(self, dim, hidden, experts, top_k):
        super().__init__()
        self.experts = nn.ModuleList(FeedForward(dim, hidden) for _ in range(experts))
        self.gate, self.top_k = nn.Linear(dim, experts, bias=False), top_k

    def forward(self, x):
        rows = []
        for row in x.flatten(0, 1):
            best, which = self.gate(row).topk(self.top_k)
            gates = best.softmax(-1)
            rows.append(sum(g * self.experts[int(i)](row) for g, i in zip(gates, which, strict=True)))
        return torch.stack(rows).view(x.shape)


class Block(nn.Module):
    NAMES = {  # noqa: RUF012
        "encoder": ("norm1", "norm2", "gate1", "gate2"),
        "decoder": ("norm_self", "norm_ffn", "gate_self", "gate_ffn"),
    }

    def __init__(self, side, dim, attention, ffn, scale, gated, final_norm):
        super().__init__()
        self.names, self.scale = self.NAMES[side], scale
        self.self_attn, self.ffn = attention, ffn
        for name in self.names[:2]:
            setattr(self, name, nn.LayerNorm(dim))
        if gated:
            for name in self.names[2:]:
                setattr(self, name, nn.Parameter(torch.ones(1)))
        if final_norm:
            self.final_norm = nn.LayerNorm(dim)

    def forward(self, x, sees_TT):
        norm1, norm2, gate1, gate2 = (getattr(self, name, 1.0) for name in self.names)
        x = x + gate1 * self.scale * self.self_attn(norm1(x), sees_TT)
        x = x + gate2 * self.scale * self.ffn(norm2(x))
        return self.final_norm(x) if hasattr(self, "final_norm") else x


def head(dim, hidden, layers, outputs, norm=False, dropout=0.1):
    modules = []
    for _ in range(layers):
        drop = [nn.Dropout(dropout)] if dropout else []
        modules += [nn.Linear(dim, hidden), *([nn.LayerNorm(hidden)] if norm else []), nn.GELU(), *drop]
        dim = hidden
    return nn.Sequential(*modules, nn.Linear(dim, outputs))


class OriginalTransformer(nn.Module):
    """windows (B, T, F) → logits (B, A), value (B, 1), as `config`, a flat configuration, says.

    `honest` pyramids honour the causal mask; the original's did not.
    """

    def __init__(self, config, names=("q_proj", "k_proj", "v_proj", "out_proj"), conv_norm="batch", honest=False):
        super().__init__()
        c = config
        dim, heads, steps = c["embedding_dim"], c["n_heads"], c["window_size"]
        sizes = (c["n_features"], c["feature_extractor_dim"], dim, c["feature_extractor_layers"], conv_norm)
        kind = "resnet" if c["use_skip_connections"] else c["feature_extractor_type"]
        self.feature_extractor = Basic(*sizes) if kind == "basic" else Projected(*sizes, kind)
        self.side = "decoder" if c["architecture"] == "decoder_only" else "encoder"
        hidden = c["ffn_dim"] or 4 * dim

        def attention():
            if c["attention_type"] in ("pyr", "pyramid"):
                return Pyramid(dim, heads, names, steps, honest)
            return HeadAttention(dim, heads, names, c["attention_type"] in ("mqn", "mqa"))

        def ffn():
            if c["ffn_type"] == "standard":
                return FeedForward(dim, hidden)
            return Mixture(dim, hidden, c["n_experts"], c["top_k"] or 2)

        rest = (c["residual_scale"], c["use_gated_residual"], c["use_final_norm"])
        count = c[f"n_{self.side}_layers"]
        blocks = nn.ModuleList(Block(self.side, dim, attention(), ffn(), *rest) for _ in range(count))
        self.core_model = nn.Module()
        setattr(self.core_model, f"{self.side}_time_embedding", TimeEmbedding(dim, steps))
        setattr(self.core_model, f"{self.side}_blocks", blocks)
        setattr(self.core_model, f"{self.side}_norm", nn.LayerNorm(dim))
        drop = c["dropout"] if c["head_dropout"] is None else c["head_dropout"]
        shape = (dim, c["head_hidden_dim"], c["head_n_layers"])
        self.actor = head(*shape, c["action_dim"], c["head_use_layer_norm"], drop)
        self.critic = head(*shape, 1, c["head_use_layer_norm"], drop)

    def forward(self, x_BTF):
        x = self.feature_extractor(x_BTF.transpose(1, 2)).transpose(1, 2)
        core, T = self.core_model, x.shape[1]
        x = getattr(core, f"{self.side}_time_embedding")(x)
        for block in getattr(core, f"{self.side}_blocks"):
            x = block(x, torch.ones(T, T, dtype=torch.bool).tril())
        x = getattr(core, f"{self.side}_norm")(x)[:, -1]
        return self.actor(x), self.critic(x)
