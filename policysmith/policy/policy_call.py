"""What a policy is asked for: the key of its programs, and what each call reads of tensors and gives back.

In: leaves of an observation, the state's tensors if the policy has a memory, chosen actions if any, then masks of legal
actions. Out: what the call is for, and after one step of a policy with memory its state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor

from policysmith.compile.runner import Task, Values
from policysmith.compile.stand_in import stand_in
from policysmith.graph.memory_component import FIRST
from policysmith.graph.plan import Plan
from policysmith.policy.actions import ActionDistribution
from policysmith.policy.execution import Runtime
from policysmith.policy.state_layout import StateLayout

__all__ = ["FORWARD", "VALUE", "Kind", "PolicyCall", "PolicyTasks"]

Kind = Literal["forward", "act", "draw", "evaluate", "evaluate_draws", "score", "value", "edges"]


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

    @property
    def gives_state(self) -> bool:
        """Whether the state after the step comes out, of a policy that has one."""
        return self.kind in ("forward", "act", "draw")

    def heads(self, policy: str, value: str) -> list[str]:
        """The edges that are needed, given the two heads' edges: what is not needed does not run."""
        if self.kind == "value":
            return [value]
        if self.kind == "score":
            return [policy]
        return list(self.edges) if self.kind == "edges" else [policy, value, *self.edges]


FORWARD, VALUE = PolicyCall("forward"), PolicyCall("value")


class PolicyTasks:
    """The tasks of a policy's calls: of one step (`step`), and of whole sequences (`sequence`)."""

    def __init__(self, plan: Plan, actions: ActionDistribution, state: StateLayout, runtime: Runtime) -> None:
        self.policy_edge, self.value_edge = _edge(plan, "policy"), _edge(plan, "value")
        self._leaves, self._actions = list(plan.inputs), actions
        self._state, self._runtime = state, runtime

    def step(self, call: PolicyCall) -> Task:
        """A call on rows: one observation each, and where the policy has a memory one state each."""
        kind, greedy, actions, runtime = call.kind, call.greedy, self._actions, self._runtime
        edges = call.heads(self.policy_edge, self.value_edge)
        after = self._state.keys if call.gives_state else ()
        given = len(self._leaves) + len(self._state.keys)
        chosen_end = given + (len(actions.leaves) if call.takes_actions else 0)

        def give(values: Values, tensors: Sequence[Tensor]) -> Any:
            outputs = runtime.outputs(values[edge] for edge in edges)
            if kind == "value":
                return outputs[0]
            if kind == "edges":
                return tuple(outputs)
            distribution = stand_in(actions, outputs[0])
            chosen, legal = tensors[given:chosen_end], tensors[chosen_end:]
            if kind == "score":
                return distribution.evaluate(outputs[0], chosen, legal)
            params, value, *extra = outputs
            more = [runtime.outputs(values[name] for name in after)] if after else extra
            if kind == "forward":
                return params, value, *more
            if kind == "act":
                return *distribution.choose(params, legal, greedy), value, *more
            if kind == "draw":
                return *distribution.draw(params, legal), value, *more
            return *distribution.evaluate(params, chosen, legal, kind == "evaluate_draws"), value, *more

        return Task(chosen_end + call.masks, edges, self._read, give)

    def sequence(self, edges: tuple[str, ...]) -> Task:
        """These edges over whole sequences, flat (B·T, …); a state edge is the state after the last step.

        The last tensor marks the steps that begin an episode, (B, T).
        """
        runtime, given = self._runtime, len(self._leaves) + len(self._state.keys)

        def read(tensors: Sequence[Tensor]) -> Values:
            return {**self._read(tensors[:given]), FIRST: tensors[given]}

        def give(values: Values, _: Sequence[Tensor]) -> Any:
            return tuple(runtime.outputs(values[edge] for edge in edges))

        needed = [self._state.writers.get(edge, edge) for edge in edges]
        return Task(given + 1, needed, read, give)

    def _read(self, tensors: Sequence[Tensor]) -> Values:
        """The leaves as the network reads them, and the state."""
        leaves, state = len(self._leaves), self._state.keys
        read = self._runtime.inputs(tensors[:leaves])
        values: Values = dict(zip(self._leaves, read, strict=True))
        values.update(zip(state, tensors[leaves : leaves + len(state)], strict=True))
        return values


def _edge(plan: Plan, role: str) -> str:
    return next(node.spec.out_keys[0] for node in plan.nodes if node.role == role)
