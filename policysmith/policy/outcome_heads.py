"""Heads that say how a game will end: win, draw or loss, by what score, and what that is worth.

In: features, joined by the graph. Out: logits (*, 3), a score (*, 1), and from these two a value (*,).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from policysmith.ops.init import with_role
from policysmith.registry import register
from policysmith.types import EventShapes, FlatFeatures, Share, Width

__all__ = ["OUTCOME", "SCORE", "OutcomeHead", "OutcomeValue", "ScoreHead"]

OUTCOME, SCORE = "value_logits", "score_lead"
"""The edges' names by which losses of outcomes and scores find them."""


def _layers(in_features: int, hidden: int, out_features: int) -> OrderedDict[str, nn.Module]:
    out = with_role(nn.Linear(hidden, out_features), "value_out")
    return OrderedDict(fc1=nn.Linear(in_features, hidden), relu=nn.ReLU(), fc2=out)


@register("outcome_head")
class OutcomeHead(nn.Sequential):
    """Features (*, F) → logits (*, 3) of win, draw and loss, as the acting player sees them.

    Args:
        hidden: The units of the hidden layer.
    """

    def __init__(self, in_features: FlatFeatures, hidden: Width = 256) -> None:
        super().__init__(_layers(in_features, hidden, 3))


@register("score_head")
class ScoreHead(nn.Sequential):
    """Features (*, F) → score lead (*, 1) of the acting player at the end, in the environment's units.

    Args:
        hidden: The units of the hidden layer.
    """

    def __init__(self, in_features: FlatFeatures, hidden: Width = 128) -> None:
        super().__init__(_layers(in_features, hidden, 1))


@register("outcome_value", role="value")
class OutcomeValue(nn.Module):
    """Outcome logits (*, 3) and score lead (*, 1) → state value (*,) in [-1, 1]: P(win) - P(loss).

    `score_blend` = α mixes in the score: (1 - α) · (P(win) - P(loss)) + α · clamp(score, -1, 1).

    Args:
        score_blend: The share of the score in the value.
    """

    def __init__(
        self,
        event_shapes: EventShapes,
        score_blend: Share = 0.0,
    ) -> None:
        super().__init__()
        if tuple(map(tuple, event_shapes)) != ((3,), (1,)):
            found = ", ".join(str(tuple(shape)) for shape in event_shapes)
            raise ValueError(f"outcome_value takes outcome logits (3,) and a score (1,), found {found}")
        self.score_blend = score_blend

    def forward(self, value_logits: Tensor, score_lead: Tensor) -> Tensor:
        """value_logits (*, 3), score_lead (*, 1) → (*,)."""
        win, _, loss = value_logits.softmax(-1).unbind(-1)
        if not self.score_blend:
            return win - loss
        return (1.0 - self.score_blend) * (win - loss) + self.score_blend * score_lead.squeeze(-1).clamp(-1.0, 1.0)
