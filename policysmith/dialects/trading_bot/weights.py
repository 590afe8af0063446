"""How the original transformer factory lays its weights out, and what of ours is made of them.

In: checked options and the names in a checkpoint. Out: for each of our tensors those of the original that it is made
of, with shapes in which sizes are named as the options are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from policysmith.dialects.tensor_pieces import Piece, dense, same_vectors
from policysmith.dialects.trading_bot.extractor_weights import extractor
from policysmith.dialects.weight_layout import Shapes, Size

__all__ = ["CROSS", "counted", "pieces", "scales", "side_of"]

LEVELS = 5  # scales of pyramid attention at most
CROSS = re.compile(r"core_model\.decoder_blocks\.\d+\.(?:norm_cross|cross_attn|gate_cross)(?:\.|$)")
STACK = "components.stack.core"
# What a decoder's block calls its norms and gates, and what an encoder's does.
BLOCK = {"decoder": ("norm_self", "norm_ffn", "gate_self", "gate_ffn"), "encoder": ("norm1", "norm2", "gate1", "gate2")}
# Projections inside attention are told by what their names say: `q_proj`, `query` and `w_q` are alike.
ROLES = {
    "query": {"q", "query", "queries", "wq"},
    "key": {"k", "key", "keys", "wk"},
    "value": {"v", "value", "values", "wv"},
    "out": {"o", "out", "output", "wo"},
}
NO_ROLE = {"w", "to", "fc", "head", "heads", "layer", "layers", "linear", "linears"}
NO_ROLE |= {"proj", "projs", "projection", "projections"}

Options = Mapping[str, Any]
Names = Mapping[str, Tensor]
Place = tuple[str, str | None, str]  # role, number of the head if it has its own, weight or bias


def pieces(options: Options, tensors: Names) -> list[Piece]:
    """All of our tensors; `tensors` tell what a name may be spelled like."""
    side = side_of(options)
    blocks = (_block(options, tensors, side, index) for index in range(options[f"n_{side}_layers"]))
    return [
        *extractor(options, tensors),
        *_time(f"core_model.{side}_time_embedding", options["window_size"]),
        *chain.from_iterable(blocks),
        *_layer_norm(f"{STACK}.encoder_norm", f"core_model.{side}_norm"),
        *_head(options, tensors, "actor", "policy", "action_dim"),
        *_head(options, tensors, "critic", "state_value", 1),
    ]


def side_of(options: Options) -> str:
    """Whose blocks there are: encoder or decoder."""
    return "decoder" if options["architecture"] == "decoder_only" else "encoder"


def counted(options: Options, names: Collection[str]) -> dict[str, int]:
    """How many blocks, experts and layers the names speak of, by option: never more than there are names."""
    side, extractor_has = side_of(options), {"basic": "layers", "resnet": "res_blocks", "inception": "blocks"}
    patterns = {
        f"n_{side}_layers": rf"core_model\.{side}_blocks\.(\d{{1,6}})\.",
        "feature_extractor_layers": (
            rf"feature_extractor\.{extractor_has[options['feature_extractor_type']]}\.(\d{{1,6}})\."
        ),
    }
    if options["ffn_type"] == "moe":
        patterns["n_experts"] = rf"core_model\.{side}_blocks\.0\.ffn\.experts\.(\d{{1,6}})\."
    return {name: _count(names, re.compile(pattern)) for name, pattern in patterns.items()}


def levels(heads: int) -> int:
    """How many scales pyramid attention of so many heads has."""
    return min(LEVELS, heads)


def scales(count: int, steps: int) -> Tensor:
    """What each scale of pyramid attention sees: (count, steps, steps), 1 where a key is seen."""
    distance_TT = (torch.arange(steps)[:, None] - torch.arange(steps)).abs()
    reach_L11 = 2 ** torch.arange(count)[:, None, None]
    return ((distance_TT <= reach_L11) | (distance_TT % (2 * reach_L11) == 0)).float()


def _count(names: Collection[str], pattern: re.Pattern[str]) -> int:
    numbers = {int(match[1]) for match in map(pattern.match, names) if match}
    return max((number + 1 for number in numbers if number < len(names)), default=0)


def _time(theirs: str, length: int) -> list[Piece]:
    """Its network reads the step t, ours (t + 1) / length: w t + b = (w length) (t + 1) / length + (b - w)."""
    ours, network = f"{STACK}.encoder_position", f"{theirs}.temporal_encoder"
    weight: Shapes = {f"{network}.0.weight": ("embedding_dim // 2", 1)}
    bias: Shapes = {f"{network}.0.bias": ("embedding_dim // 2",)}
    table: Shapes = {f"{theirs}.position_embedding": (1, "window_size", "embedding_dim")}
    return [
        Piece(f"{ours}.table.weight", table, lambda table_1TE: table_1TE.squeeze(0)),
        Piece(f"{ours}.hidden.weight", weight, lambda w: w.double() * length),
        Piece(f"{ours}.hidden.bias", weight | bias, lambda w, b: b.double() - w.double().squeeze(1)),
        *dense(f"{ours}.out", f"{network}.2", "embedding_dim", "embedding_dim // 2"),
    ]


def _block(options: Options, tensors: Names, side: str, index: int) -> list[Piece]:
    theirs, ours = f"core_model.{side}_blocks.{index}", f"{STACK}.encoder_blocks.{index}"
    norm1, norm2, gate1, gate2 = (f"{theirs}.{name}" for name in BLOCK[side])
    found = [
        *_layer_norm(f"{ours}.attention_branch.norm_in", norm1),
        *_layer_norm(f"{ours}.feedforward_branch.norm_in", norm2),
        *_attention(options, tensors, f"{ours}.attention", f"{theirs}.self_attn"),
        *_feedforward(options, f"{ours}.feedforward", f"{theirs}.ffn"),
    ]
    if options["use_gated_residual"]:
        found += _gate(tensors, f"{ours}.attention_branch.residual.gate", gate1)
        found += _gate(tensors, f"{ours}.feedforward_branch.residual.gate", gate2)
    return found + (_layer_norm(f"{ours}.final_norm", f"{theirs}.final_norm") if options["use_final_norm"] else [])


def _layer_norm(ours: str, theirs: str) -> list[Piece]:
    return same_vectors(ours, theirs, "embedding_dim", ("weight", "bias"))


def _gate(tensors: Names, ours: str, theirs: str) -> list[Piece]:
    is_scalar = theirs in tensors and not tensors[theirs].ndim
    return [Piece(ours, {theirs: () if is_scalar else (1,)}, lambda gate: gate.reshape(1))]


def _feedforward(options: Options, ours: str, theirs: str) -> list[Piece]:
    if options["ffn_type"] == "standard":
        return _two_layers(ours, theirs)
    experts = range(options["n_experts"])
    gate: Shapes = {f"{theirs}.gate.weight": ("n_experts", "embedding_dim")}
    return [
        *chain.from_iterable(_two_layers(f"{ours}.experts.{j}", f"{theirs}.experts.{j}") for j in experts),
        Piece(f"{ours}.router.gate.weight", gate),
    ]


def _two_layers(ours: str, theirs: str) -> list[Piece]:
    up = dense(f"{ours}.up", f"{theirs}.network.0", "ffn_dim", "embedding_dim")
    return up + dense(f"{ours}.down", f"{theirs}.network.3", "embedding_dim", "ffn_dim")


def _attention(options: Options, tensors: Names, ours: str, theirs: str) -> list[Piece]:
    kind, named = options["attention_type"], _projections(tensors, theirs)
    if kind == "pyramid":
        return _pyramid(options["n_heads"], named, ours, theirs)
    shared: Size = "embedding_dim / n_heads" if kind == "mqa" else "embedding_dim"
    rows: dict[str, Size] = {"query": "embedding_dim", "key": shared, "value": shared, "out": "embedding_dim"}
    spelled = {role: named.get((role, None, "weight"), f"{theirs}.{role}.weight") for role in rows}
    return [Piece(f"{ours}.{role}.weight", {spelled[role]: (rows[role], "embedding_dim")}) for role in rows]


def _pyramid(heads: int, named: Mapping[Place, str], ours: str, theirs: str) -> list[Piece]:
    """Its heads have layers of their own, which lie one behind the other in ours."""
    shapes: dict[str, tuple[Size, ...]] = {
        "weight": ("embedding_dim / n_heads", "embedding_dim"),
        "bias": ("embedding_dim / n_heads",),
    }
    found = []
    for role in ("query", "key", "value"):
        for kind, shape in shapes.items():
            places: list[Place] = [(role, str(head), kind) for head in range(heads)]
            spelled = [named.get(place, f"{theirs}.{role}.{place[1]}.{kind}") for place in places]
            found.append(Piece(f"{ours}.{role}.{kind}", dict.fromkeys(spelled, shape), lambda *each: torch.cat(each)))
    for kind, out in (("weight", ("embedding_dim", "embedding_dim")), ("bias", ("embedding_dim",))):
        found.append(Piece(f"{ours}.out.{kind}", {named.get(("out", None, kind), f"{theirs}.out.{kind}"): out}))
    return [*found, Piece(None, {f"{theirs}.masks": (levels(heads), "masked steps", "masked steps")})]


def _projections(tensors: Names, theirs: str) -> dict[Place, str]:
    """Where each tensor of an attention belongs → its name; what two names claim is nobody's."""
    claims: dict[Place, list[str]] = defaultdict(list)
    for name in tensors:
        place = _place(name.removeprefix(f"{theirs}.")) if name.startswith(f"{theirs}.") else None
        if place is not None:
            claims[place].append(name)
    return {place: names[0] for place, names in claims.items() if len(names) == 1}


def _place(name: str) -> Place | None:
    """The role, head and kind that a name such as `q_projs.3.weight` speaks of."""
    *path, kind = name.split(".")
    numbers = [segment for segment in path if segment.isdecimal()]
    words = set(chain.from_iterable(s.lower().split("_") for s in path if not s.isdecimal())) - NO_ROLE
    roles = [role for role, spellings in ROLES.items() if words and words <= spellings]
    if kind not in ("weight", "bias") or len(numbers) > 1 or not (roles or (path and not words)):
        return None
    return (roles[0] if roles else "out", numbers[0] if numbers else None, kind)


def _head(options: Options, tensors: Names, theirs: str, last: str, outputs: Size) -> list[Piece]:
    """The layers of a head; what is between them has no weights, so their numbers in the file may be any that rise."""
    depth, norms = options["head_n_layers"], options["head_use_layer_norm"]
    dropout = options["dropout"] if options["head_dropout"] is None else options["head_dropout"]
    step = 2 + norms + bool(dropout)
    numbers = sorted([step * layer + part for layer in range(depth) for part in range(1 + norms)] + [step * depth])
    spelled, width, found = _modules(tensors, theirs, numbers), "embedding_dim", []
    for number, name in zip(numbers[:-1], spelled[:-1], strict=True):
        ours = f"components.{theirs}.{number}"
        if number % step:
            found += same_vectors(ours, name, "head_hidden_dim", ("weight", "bias"))
        else:
            found += dense(ours, name, "head_hidden_dim", width)
            width = "head_hidden_dim"
    return found + dense(f"components.{last}.out", spelled[-1], outputs, width)


def _modules(tensors: Names, head: str, numbers: list[int]) -> list[str]:
    pattern = re.compile(rf"{head}\.(\d{{1,6}})\.")
    found = sorted({int(match[1]) for match in map(pattern.match, tensors) if match})
    if len(numbers) == 1 and f"{head}.weight" in tensors:
        return [head]
    return [f"{head}.{number}" for number in (found if len(found) == len(numbers) else numbers)]
