"""What a component is assembled from: the parts in its slots, in the order the data passes them.

In: a checked part. Out: plain data for pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from policysmith.registry import PartSpec

__all__ = ["assembly"]

# Where a block's norms sit around its two branches (attention, feed-forward).
_BLOCKS = {
    "pre": ("norm", "{branch}", "residual"),
    "post": ("{branch}", "residual", "norm"),
    "sandwich": ("norm", "{branch}", "norm", "residual"),
}
_STACKS = ("layers", "decoder_layers")


def assembly(part: PartSpec) -> list[dict[str, Any]]:
    """Stages in order, each `{name, detail, parts}`; a repeated block is a stage with its own stages in `parts`.

    Empty for parts that hold no attention: an activation or a norm needs no picture.
    """
    if not isinstance(part.options.get("attention"), PartSpec):
        return []
    stages = [_stage("position", part.options["position"])] if _given(part, "position") else []
    encoder, decoder = (int(part.options.get(name) or 0) for name in _STACKS)
    architecture = part.options.get("architecture")
    if architecture == "encoder_decoder":
        stages.append(_block("encoder block", encoder, part, ("attention", "feedforward")))
        stages.append(_block("decoder block", decoder or encoder, part, ("attention", "cross", "feedforward")))
    else:
        stages.append(_block("block", encoder, part, ("attention", "feedforward")))
    if part.options.get("final_norm"):
        stages.append(_stage("final norm", part.options["norm"]))
    return stages


def _block(name: str, count: int, part: PartSpec, branches: tuple[str, ...]) -> dict[str, Any]:
    pattern = _BLOCKS[str(part.options.get("placement", "pre"))]
    parts = []
    for branch in branches:
        for slot in pattern:
            where = slot.format(branch=branch)
            if where == "cross":
                parts.append({"name": "attention", "detail": "cross", "parts": []})
            elif _given(part, where):
                parts.append(_stage(where, part.options[where]))
    return {"name": f"{name} × {count}", "detail": "", "parts": parts}


def _given(part: PartSpec, slot: str) -> bool:
    option = part.options.get(slot)
    return isinstance(option, PartSpec) and option.type != "none"


def _stage(name: str, part: PartSpec) -> dict[str, Any]:
    nested = [(slot, option) for slot, option in part.options.items() if _structural(option)]
    nested.sort(key=lambda item: item[1].slot != "router")  # a router sends, then experts work
    inner = [_stage(slot, option) for slot, option in nested]
    return {"name": name.replace("feedforward", "feed-forward"), "detail": _detail(part), "parts": inner}


def _structural(option: Any) -> bool:
    return isinstance(option, PartSpec) and option.slot in ("router", "feedforward", "attention")


def _detail(part: PartSpec) -> str:
    return " · ".join([part.type, *_stated(part)])


def _stated(part: PartSpec) -> Iterator[str]:
    """Options that say something: plain ones that differ from their default, and how many heads or experts."""
    for name, value in part.options.items():
        _, default = part.entry.schema.parameters[name]
        telling = name in ("heads", "kv_heads", "experts", "top_k") or default != value
        if telling and isinstance(value, bool | int | float | str):
            yield f"{name} {value}"
