"""PolicyCore: a graph of components with two heads between two spaces, and how its calls run. B is the batch.

In: a `PolicyCall` and tensors: leaves of an observation, then what the call takes besides. Out: what the call gives, or
`ShapeError` where an observation has another shape than the space promised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NoReturn

import torch
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torch.compiler import is_compiling

from policysmith.compile.container import ComponentContainer
from policysmith.compile.exclusive import exclusive
from policysmith.compile.plan_steps import step_of
from policysmith.compile.runner import Runner
from policysmith.compile.step import Step, settled, steps_for
from policysmith.errors import ConfigError, PolicysmithError, ShapeError
from policysmith.graph.plan import Plan
from policysmith.policy.actions import ActionDistribution
from policysmith.policy.execution import PolicyManner, Runtime
from policysmith.policy.masks import legal_masks
from policysmith.policy.observations import ROOT, Leaf, Observations
from policysmith.policy.policy_call import FORWARD, Kind, PolicyCall, PolicyTasks
from policysmith.policy.spaces import pick
from policysmith.policy.state_layout import StateLayout
from policysmith.policy.structures import LegalMask, Observation
from policysmith.policy.swap import Swapping

__all__ = ["SEQUENCES", "PolicyCore"]

SEQUENCES = "evaluate(obs, actions, state, first)"  # what a policy with memory learns by


class PolicyCore(Swapping, TensorDictModuleBase):
    """What all calls of a policy rest on; `ActorCritic` is the class to use."""

    def __init__(
        self,
        plan: Plan,
        components: ComponentContainer,
        observations: Observations,
        actions: ActionDistribution,
        config: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        self.plan, self.observations, self.config = plan, observations, dict(config or {})
        self.components = components
        self.actions = actions
        self.in_keys = [ROOT]
        self.out_keys = [*_parameter_keys(actions), "state_value"]
        self._runtime = Runtime.of(self.config.get("execution") or {})
        self.strict_masks = self._runtime.settings.strict_masks
        self._replan()

    def _replan(self) -> None:
        """Take up the plan, and drop all that was made for another."""
        self.runtime.lay_out(self.components)
        self.state_layout = StateLayout(self.plan, self.components)
        self._tasks = PolicyTasks(self.plan, self.actions, self.state_layout, self.runtime)
        steps = [step_of(node, self.components) for node in self.plan.nodes]
        self.has_memory = bool(self.state_layout.keys)
        self._plain = len(self.observations.leaves) == 1 and not self.has_memory  # one tensor says it all
        manner = PolicyManner(self, self.runtime)
        self.runner = Runner(self.components, steps, self._tasks.step, manner, [self.actions])

    @property
    def runtime(self) -> Runtime:
        """How calls run; another one has nothing compiled yet."""
        return self._runtime

    @runtime.setter
    def runtime(self, runtime: Runtime) -> None:
        with exclusive(self.components):
            self._runtime = runtime
            self._replan()

    def act(
        self,
        obs: Observation,
        state: Mapping[str, Tensor] | None = None,
        first: Tensor | None = None,
        legal_mask: LegalMask = None,
        deterministic: bool = False,
        return_aux: bool = False,
    ) -> Any:
        """One step: observation (B, …), state, first (B,) → (action, log_prob (B,), value (B,), state after).

        No state begins an episode in every row.
        """
        tensors = self.observations.read(obs)
        masks = self._masks(obs, tensors, legal_mask)
        inputs = [*tensors, *self.state_layout.begun(state, first, len(tensors[0])), *masks]
        actions, log_prob, value, *rest = self._run(PolicyCall("act", len(masks), deterministic), inputs, return_aux)
        after = self.state_layout.named(rest.pop(0)) if self.has_memory else {}
        return self.actions.structure(actions), log_prob, value, after, *rest

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        first = next(self.parameters(), None)
        return first.device if first is not None else torch.device("cpu")

    def require_edges(self, names: Sequence[str]) -> None:
        """Raise `ConfigError` with every one of these edges that the plan does not have."""
        missing = [repr(name) for name in names if name not in self.plan.edges]
        if missing:
            model = self.config.get("model", {}).get("type", "graph")
            found = ", ".join(map(repr, self.plan.edges))
            raise ConfigError(f"the policy (model {model!r}) has no edge {' and '.join(missing)}; it has {found}")

    def configure_execution(self, **changes: object) -> None:
        """Change options of the section `execution` (`amp=True`, `compile="auto"`); the others stay as they are.

        All that was compiled is dropped, so the precision is always set before anything is compiled; functions from
        `acting` and `evaluating` are asked for again. A save stores the settings. Raises `ConfigError`.
        """
        with exclusive(self.components):
            self.runtime = Runtime.of({**asdict(self.runtime.settings), **changes})
            self.config["execution"] = asdict(self.runtime.settings)
            if "strict_masks" in changes:
                self.strict_masks = self.runtime.settings.strict_masks

    @property
    def reports(self) -> bool:
        """Whether a component has auxiliary losses or statistics to report (`return_aux`)."""
        planned = any(node.measure.aux for node in self.plan.nodes)
        return planned or any(getattr(component, "reports", ()) for component in self.components.values())

    @property
    def has_statistics(self) -> bool:
        """Whether `update_statistics` does anything."""
        return bool(self._learners())

    @torch.no_grad()
    def update_statistics(self, obs: Observation) -> None:
        """Feed a batch to every running normaliser, in order; trainers call it between rollouts, forward never does."""
        learners = self._learners()
        if not learners:
            return
        values = dict(zip(self.plan.inputs, self.observations.read(obs), strict=True))
        names = {step.name for step in learners}
        for step in settled(steps_for(self.runner.steps, [name for s in learners for name in s.outputs])):
            if step.name in names:
                step.live.learner.update(values[step.sources[0]])
            step(values)

    def _learners(self) -> list[Step]:
        """The steps whose components take statistics."""
        return [step for step in self.runner.steps if getattr(step.live, "learner", None) is not None]

    @property
    def code(self) -> str:
        """The source of the program behind `forward`, or with a memory behind one step of `act`."""
        return self.runner.program(PolicyCall("act") if self.has_memory else FORWARD).code

    def slow(self, kind: Kind, *tensors: Tensor, masks: int = 0, deterministic: bool = False) -> Any:
        """The slow twin of a program, module by module: `forward`, `act`, `evaluate` or `value` (for tests).

        The tensors of the state, if any, come after the leaves.
        """
        return self.runner.slow(PolicyCall(kind, masks, deterministic))(*tensors)

    def _run(self, call: PolicyCall, tensors: Sequence[Tensor], return_aux: bool = False) -> Any:
        runner = self.runner
        if is_compiling() and not return_aux:
            return runner.run(call, tensors)
        try:
            return runner.run_reporting(call, tensors) if return_aux else runner.run(call, tensors)
        except (RuntimeError, ValueError) as error:
            self._blame_shapes(tensors, error)
            raise

    def _blame_shapes(self, tensors: Sequence[Tensor], error: Exception) -> None:
        """Raise `ShapeError` if an observation has another shape than promised; looked at only after a failure."""
        for leaf, tensor in zip(self.observations.leaves, tensors, strict=False):
            if problem := _shape_problem(leaf, tuple(tensor.shape)):
                raise ShapeError(problem) from error

    def _forward_leaves(self, leaves: Sequence[Tensor]) -> Any:
        """The whole network on leaves of an observation, in the state in which a policy begins."""
        return self.runner.program(FORWARD).run(*leaves, *self.state_layout.begun(None, None, len(leaves[0])))

    def _refuse(self, call: str, instead: str = "act(obs, state, first)") -> NoReturn:
        """A call that takes no state, of a policy that has one."""
        names = ", ".join(map(repr, self.state_layout.memories))
        raise PolicysmithError(
            f"{call} would forget: this policy has a memory ({names}). Begin with init_state(batch) and call {instead}"
        )

    def own_mask(self, obs: Observation) -> LegalMask:
        """The mask of legal actions that lies in an observation, or None."""
        path = self.observations.mask_path
        return None if path is None or isinstance(obs, Tensor) else pick(obs, path)

    def _masks(self, obs: Observation, tensors: Sequence[Tensor], mask: LegalMask) -> list[Tensor]:
        """Masks for the discrete leaves: the given one, or the observation's own, or none."""
        if mask is None:
            mask = self.own_mask(obs)
        if mask is None:
            return []
        return legal_masks(self.actions.space, mask, len(tensors[0]), self.device, strict=self.strict_masks)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_swap": None}


def _shape_problem(leaf: Leaf, found: tuple[int, ...]) -> str | None:
    expected = leaf.spec.shape
    if found[1:] == expected and found:
        return None
    nhwc = len(expected) == 3 and found[-3:] == (*expected[1:], expected[0])
    hint = " (looks like NHWC; expected channels first)" if nhwc else ""
    return f"{leaf.name} has shape {found}, expected ({', '.join(map(str, ('B', *expected)))}){hint}"


def _parameter_keys(actions: ActionDistribution) -> list[str]:
    if actions.composite:
        return ["params"]
    return ["logits"] if actions.discrete else ["loc", "scale"]
