"""What a policy is asked for: the key of its programs, which says what tensors come in and what goes out."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["Kind", "PolicyCall"]

Kind = Literal[
    # of a policy without memory: leaves of an observation, then chosen actions if any, then masks
    "forward", "act", "draw", "evaluate", "evaluate_draws", "score", "value", "edges",
    # one step of a policy with memory: leaves of an observation, then the state's tensors, then masks
    "step_forward", "step", "step_draw", "step_value",
]  # fmt: skip


class PolicyCall(NamedTuple):
    """One way to call a policy; calls that are equal run the same program.

    `masks` is how many masks of legal actions come in, `greedy` takes the best action in place of a drawn one, and
    `edges` names edges of the plan that are given besides. A policy makes and looks up one at every call, so this is a
    named tuple: a dataclass takes three times as long.
    """

    kind: Kind
    masks: int = 0
    greedy: bool = False
    edges: tuple[str, ...] = ()

    @property
    def takes_actions(self) -> bool:
        """Whether chosen actions come in."""
        return self.kind in ("evaluate", "evaluate_draws", "score")

    def heads(self, policy: str, value: str) -> list[str]:
        """The edges that are needed, given the two heads' edges: what is not needed does not run."""
        if self.kind in ("value", "step_value"):
            return [value]
        if self.kind == "score":
            return [policy]
        return list(self.edges) if self.kind == "edges" else [policy, value, *self.edges]
