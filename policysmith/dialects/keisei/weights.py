"""How keisei lays its weights out: two networks, their names, shapes and sizes, and what they are called here.

In: the names in a checkpoint, then sizes. Out: expected shapes, and a model's configuration of those sizes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.dialects.weight_layout import Shapes, batch_norm, conv, dense

__all__ = ["NetworkLayout", "find_layout", "gate_ratio", "gate_reduction"]

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class NetworkLayout:
    """One of the networks that keisei stores.

    Attributes:
        title: what it is, for messages.
        names: the first prefix that an original name starts with → what ours has in its place.
        stem: the weight that reads the planes of an observation.
        blocks: what the names of its repeated blocks start with, up to their number.
        shapes: (number of blocks, whether blocks of the tower are gated) → names and shapes.
        model: (sizes, number of blocks) → our configuration; raises ValueError where ours has no such model.
    """

    title: str
    names: Mapping[str, str]
    stem: str
    blocks: str
    shapes: Callable[[int, bool], Shapes]
    model: Callable[[Sizes, int], dict[str, Any]]

    def expected(self, names: Iterable[str]) -> tuple[int, Shapes]:
        """The number of blocks that the names speak of, and every name with its shape."""
        found = list(names)
        pattern = re.compile(rf"{re.escape(self.blocks)}(\d{{1,6}})\.")
        numbers = {int(match[1]) for match in map(pattern.match, found) if match}
        # A number may say anything; there are no more blocks than there are names.
        depth = max((number + 1 for number in numbers if number < len(found)), default=0)
        return depth, self.shapes(depth, any(".se." in name for name in found if name.startswith(self.blocks)))

    def our_name(self, name: str) -> str:
        """Where a tensor of the original lies in our policy."""
        prefix = next(prefix for prefix in self.names if name.startswith(prefix))
        return self.names[prefix] + name.removeprefix(prefix)


def find_layout(names: Iterable[str]) -> NetworkLayout | None:
    """The layout that most names belong to; None if none does."""
    found = list(names)
    counts = {layout.title: sum(name.startswith(tuple(layout.names)) for name in found) for layout in LAYOUTS}
    best = max(LAYOUTS, key=lambda layout: counts[layout.title])
    return best if counts[best.title] else None


def gate_ratio(width: int, hidden: int) -> float:
    """A ratio r in (0, 1] with max(1, ⌊width · r⌋) = hidden; raises ValueError if there is none."""
    for ratio in (hidden / width, (hidden + 0.5) / width):  # a quotient may round to just below what it should give
        if ratio <= 1 and max(1, int(width * ratio)) == hidden:
            return ratio
    raise ValueError(f"the gates have {hidden} hidden units for {width} channels; there may be no more than channels")


def gate_reduction(channels: int, hidden: int) -> int:
    """The number r with ⌊channels / r⌋ = hidden; raises ValueError if there is none."""
    if hidden <= channels and channels // (channels // hidden) == hidden:
        return channels // hidden
    raise ValueError(f"the gates have {hidden} hidden units for {channels} channels, which no se_reduction gives")


def _tower_shapes(depth: int, gated: bool) -> Shapes:
    shapes = conv("stem", "width", "planes", 3) | batch_norm("bn_stem", "width")
    for block in (f"res_blocks.{index}" for index in range(depth)):
        for number in (1, 2):
            shapes |= conv(f"{block}.conv{number}", "width", "width", 3) | batch_norm(f"{block}.bn{number}", "width")
        if gated:
            shapes |= conv(f"{block}.se.fc1", "hidden", "width", 1) | conv(f"{block}.se.fc2", "width", "hidden", 1)
    for head in ("policy_head", "value_head"):
        shapes |= conv(f"{head}.0", 2, "width", 1) | batch_norm(f"{head}.1", 2)
    return shapes | dense("policy_head.4", "actions", "2*points") | dense("value_head.4", 1, "2*points")


def _tower_model(sizes: Sizes, depth: int) -> dict[str, Any]:
    gates = gate_ratio(sizes["width"], sizes["hidden"]) if "hidden" in sizes else None
    return {"type": "resnet", "tower_depth": depth, "tower_width": sizes["width"], "se_ratio": gates}


def _se_resnet_shapes(depth: int, gated: bool) -> Shapes:
    shapes = conv("input_conv", "channels", "planes", 3, bias=False) | batch_norm("input_bn", "channels")
    for block in (f"blocks.{index}" for index in range(max(depth, 1))):
        for number in (1, 2):
            shapes |= conv(f"{block}.conv{number}", "channels", "channels", 3, bias=False)
            shapes |= batch_norm(f"{block}.bn{number}", "channels")
        shapes |= dense(f"{block}.global_fc.0", "pooled", "3*channels")
        shapes |= dense(f"{block}.global_fc.2", "channels", "pooled")
        shapes |= dense(f"{block}.se_fc1", "hidden", "channels") | dense(f"{block}.se_fc2", "2*channels", "hidden")
    shapes |= conv("policy_conv1", "policy", "channels", 1, bias=False) | batch_norm("policy_bn1", "policy")
    shapes |= conv("policy_conv2", "moves", "policy", 1)
    shapes |= dense("value_fc1", "value", "3*channels") | dense("value_fc2", 3, "value")
    return shapes | dense("score_fc1", "score", "3*channels") | dense("score_fc2", 1, "score")


def _se_resnet_model(sizes: Sizes, depth: int) -> dict[str, Any]:
    return {
        "type": "se_resnet",
        "num_blocks": depth,
        "channels": sizes["channels"],
        "se_reduction": gate_reduction(sizes["channels"], sizes["hidden"]),
        "global_pool_channels": sizes["pooled"],
        "policy_channels": sizes["policy"],
        "value_fc_size": sizes["value"],
        "score_fc_size": sizes["score"],
    }


TOWER = NetworkLayout(
    "residual tower",
    {
        "stem.": "components.trunk.stem.",
        "bn_stem.": "components.trunk.bn_stem.",
        "res_blocks.": "components.trunk.res_blocks.",
        "policy_head.4.": "components.policy.4.out.",
        "policy_head.": "components.policy.",
        "value_head.4.": "components.state_value.4.out.",
        "value_head.": "components.state_value.",
    },
    "stem.weight",
    "res_blocks.",
    _tower_shapes,
    _tower_model,
)
SE_RESNET = NetworkLayout(
    "se_resnet",
    {
        "input_": "components.trunk.input_",
        "blocks.": "components.trunk.blocks.",
        "policy_": "components.policy.",
        "value_": "components.value_logits.",
        "score_": "components.score_lead.",
    },
    "input_conv.weight",
    "blocks.",
    _se_resnet_shapes,
    _se_resnet_model,
)
LAYOUTS = (TOWER, SE_RESNET)
