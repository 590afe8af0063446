"""Which version of an expert runs start from, when a run has made another one.

In: what is known of the head and of the one that came. Out: which of them is the head now. Nothing is lost either way:
the other stays a version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from policysmith.errors import SkillError, did_you_mean

__all__ = ["Choice", "Contender", "HeadPolicy", "find_head_policy"]

Choice = Literal["candidate", "head", "branch", "average"]


@dataclass(frozen=True)
class Contender:
    """One version: the frames that trained it in all, its score at its own skill (None: not evaluated), its parents."""

    version: str
    frames: int
    score: float | None
    parents: tuple[str, ...]


HeadPolicy = Callable[[Contender, Contender], Choice]
"""`policy(head, candidate)`: who is the head now; `branch` keeps the head and gives the candidate a name."""


def best_evaluation(head: Contender, candidate: Contender) -> Choice:
    """The one with the better score; of equal ones the one with more frames.

    Where a score is missing there is nothing to compare: an evaluated head stays, and otherwise a candidate takes the
    place of the head that it continues, and of no other.
    """
    if head.score is not None and candidate.score is not None:
        better = (candidate.score, candidate.frames) > (head.score, head.frames)
        return "candidate" if better else "head"
    return "candidate" if head.score is None and _continues(candidate, head) else "head"


def most_frames(head: Contender, candidate: Contender) -> Choice:
    """The one that was trained longer, however well it does."""
    return "candidate" if candidate.frames > head.frames else "head"


def keep_both(head: Contender, candidate: Contender) -> Choice:
    """A version that continues the head takes its place; any other is kept beside it as a branch with a name."""
    return "candidate" if _continues(candidate, head) else "branch"


def average(head: Contender, candidate: Contender) -> Choice:
    """The mean of the two where both come from one parent; else as `best-evaluation` says."""
    return "average" if set(head.parents) & set(candidate.parents) else best_evaluation(head, candidate)


HEAD_POLICIES: Mapping[str, HeadPolicy] = {
    "best-evaluation": best_evaluation,
    "most-frames": most_frames,
    "keep-both": keep_both,
    "average": average,
}


def find_head_policy(policy: str | HeadPolicy) -> HeadPolicy:
    """The policy of a name, or the function itself. Raises `SkillError` for an unknown name."""
    if callable(policy):
        return policy
    if policy not in HEAD_POLICIES:
        hint = did_you_mean(policy, HEAD_POLICIES)
        raise SkillError(f"there is no head policy {policy!r}{hint}; there are: {', '.join(HEAD_POLICIES)}")
    return HEAD_POLICIES[policy]


def _continues(candidate: Contender, head: Contender) -> bool:
    return head.version in candidate.parents
