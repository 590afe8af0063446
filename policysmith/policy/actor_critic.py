"""ActorCritic: a graph of components with two heads, spoken to through the protocol. B is the batch.

Every call runs a program compiled from the graph and the sampler together; the same program's body, run over the
modules one by one, is its slow twin. Given a TensorDict a call reads and writes TorchRL's standard keys instead.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torch.compiler import is_compiling

from policysmith.compile.container import ComponentContainer
from policysmith.compile.exclusive import exclusive
from policysmith.compile.plan_steps import step_of
from policysmith.compile.program import Program
from policysmith.compile.stand_in import stand_in
from policysmith.compile.step import Step, run_steps, settled, steps_for
from policysmith.errors import ConfigError, ShapeError
from policysmith.graph.component import AUX
from policysmith.graph.plan import Plan
from policysmith.policy.actions import ActionDistribution
from policysmith.policy.distributions import DistributionView, named_parameters
from policysmith.policy.execution import Branched, Executed, Runtime
from policysmith.policy.masks import legal_masks, rows_alive
from policysmith.policy.observations import MASK, ROOT, Leaf, Observations
from policysmith.policy.policy_call import Kind, PolicyCall
from policysmith.policy.spaces import pick
from policysmith.policy.swap import Swapping

__all__ = ["ActorCritic", "RunSteps"]

Acting = Callable[..., tuple[Any, Tensor, Tensor]]
RunSteps = Callable[[Sequence[Step], dict[str, Any]], dict[str, Any]]
FORWARD, VALUE = PolicyCall("forward"), PolicyCall("value")


class ActorCritic(Swapping, TensorDictModuleBase):
    """An actor-critic policy; parameters are named `components.<name>.…`. Made by `policysmith.build`.

    `plan` knows every shape, `components` holds the live modules, `observations` and `actions` the two spaces, and
    `config` the resolved description it was built from. With `strict_masks` (`execution: {strict_masks: true}`) a row
    without a legal action raises `MaskError` rather than giving action 0.
    """

    def __init__(
        self,
        plan: Plan,
        components: ComponentContainer,
        observations: Observations,
        actions: ActionDistribution,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.plan, self.observations, self.config = plan, observations, dict(config or {})
        self.components = components
        self.actions = actions
        self.in_keys = [ROOT]
        self.out_keys = [*_parameter_keys(actions), "state_value"]
        self._policy_edge = _edge(plan, "policy")
        self._value_edge = _edge(plan, "value")
        self.runtime = Runtime.of(self.config.get("execution") or {})
        self.strict_masks = self.runtime.settings.strict_masks
        self._replan()

    def _replan(self) -> None:
        self._steps = [step_of(node, self.components) for node in self.plan.nodes]
        self._programs: dict[tuple[PolicyCall, bool], Program | Executed | Branched] = {}
        self._forwards: dict[bool, Program | Executed | Branched] = {}
        self._running: dict[PolicyCall, list[Step]] = {}  # the steps behind a call that reports
        self.runtime.lay_out(self.components)

    def forward(self, obs: Any, return_aux: bool = False) -> Any:
        """Observation → (policy output (B, P), value (B,)); a TensorDict gains parameters by name, and the value.

        `return_aux` appends `{name: scalar}` here and in the calls below: auxiliary losses (`…_loss`, weighted by
        their coefficients) and statistics of the components that have any.
        """
        if return_aux:
            return self._run_reporting(FORWARD, self.observations.read(obs))
        if type(obs) is Tensor and not is_compiling():
            program = self._forwards.get(self.training)  # the hot path: one tensor, compiled before
            if program is not None:
                try:
                    return program.run(obs)
                except (RuntimeError, ValueError) as error:
                    self._blame_shapes([obs], error)
                    raise
        if isinstance(obs, TensorDictBase):
            return self._write_forward(obs)
        return self._run(FORWARD, self.observations.read(obs))

    def get_action_and_value(
        self, obs: Any, legal_mask: Any = None, deterministic: bool = False, return_aux: bool = False
    ) -> Any:
        """Observation → (action in the environment's units, log_prob (B,), value (B,)).

        `legal_mask` has the shape DESIGN gives for the space: (B, A), or (A,) for all rows; by default the
        observation's own `action_mask`. A row without a legal action gives action 0, log-prob 0. A TensorDict gains
        `action`, `action_log_prob` and `state_value`.
        """
        if isinstance(obs, TensorDictBase):
            action, log_prob, value = self.get_action_and_value(
                _observation(obs), _mask(obs, legal_mask), deterministic
            )
            return obs.update({"action": action, "action_log_prob": log_prob, "state_value": value})
        tensors = self.observations.read(obs)
        masks = self._masks(obs, tensors, legal_mask)
        run = self._run_reporting if return_aux else self._run
        actions, *rest = run(PolicyCall("act", len(masks), deterministic), [*tensors, *masks])
        return self.actions.structure(actions), *rest

    def evaluate_actions(self, obs: Any, actions: Any, legal_mask: Any = None, return_aux: bool = False) -> Any:
        """Observation and actions → (log_prob (B,), entropy (B,), value (B,)), differentiable."""
        if isinstance(obs, TensorDictBase):
            obs, legal_mask = _observation(obs), _mask(obs, legal_mask)
        tensors = self.observations.read(obs)
        masks = self._masks(obs, tensors, legal_mask)
        run = self._run_reporting if return_aux else self._run
        return run(PolicyCall("evaluate", len(masks)), [*tensors, *self.actions.leaves_of(actions), *masks])

    def get_value(self, obs: Any) -> Tensor:
        """Observation → value (B,); only the components that the value needs run."""
        if isinstance(obs, TensorDictBase):
            return obs.set("state_value", self.get_value(_observation(obs)))
        return self._run(VALUE, self.observations.read(obs))

    def acting(self, deterministic: bool = False) -> Acting:
        """One function for rollouts: (obs, legal_mask=None) → (action, log_prob, value), in inference mode.

        Its results are inference tensors: copy them into storage (or clone) before autograd sees them. It stays live:
        training steps, loads, swaps and hooks take effect at the next call.
        """
        if len(self.observations.leaves) > 1 or self.observations.mask_path or self.actions.composite:
            return torch.inference_mode()(
                lambda obs, legal_mask=None: self.get_action_and_value(obs, legal_mask, deterministic)
            )
        program, masked_call, inference = (
            self._program(PolicyCall("act", greedy=deterministic)),
            self.get_action_and_value,
            torch.inference_mode,
        )

        def act(obs: Tensor, legal_mask: Any = None) -> tuple[Tensor, Tensor, Tensor]:
            with inference():
                if legal_mask is not None:
                    return masked_call(obs, legal_mask, deterministic)
                try:
                    (action,), log_prob, value = program.run(obs)
                except (RuntimeError, ValueError) as error:
                    self._blame_shapes([obs], error)
                    raise
                return action, log_prob, value

        return act

    def drawing(self) -> Acting:
        """`acting` for those who learn from it: squashed actions come before tanh, (obs, legal_mask=None) → (draw, …).

        `actions.action_of(draw)` is the action; `evaluating(drawn=True)` takes draws in place of actions. A draw
        beyond ±8 can't be told from its action in float32, where tanh is flat. What is not squashed is drawn as it is.
        """
        if not self.actions.squashed:
            return self.acting()

        def draw(obs: Any, legal_mask: Any = None) -> tuple[Any, Tensor, Tensor]:
            tensors = self.observations.read(obs)
            masks = self._masks(obs, tensors, legal_mask)
            draws, log_prob, value = self._run(PolicyCall("draw", len(masks)), [*tensors, *masks])
            return self.actions.structure(draws), log_prob, value

        drawn: Acting = torch.inference_mode()(draw)
        return drawn

    def evaluating(
        self, masks: int = 0, return_aux: bool = False, extra: Sequence[str] = (), drawn: bool = False
    ) -> Callable[..., Any]:
        """One function for training: leaves of observation, actions and masks → (log_prob, entropy, value, *extra).

        It is compiled for the present training mode; ask again after changing it. With `drawn` the leaves of actions
        are those that `drawing` gave. `extra` names further edges of the
        plan that a loss reads (`ConfigError` for one that there is not); `return_aux` appends what components report.
        """
        self.require_edges(extra)
        call = PolicyCall("evaluate_draws" if drawn else "evaluate", masks, edges=tuple(extra))
        if return_aux:
            return lambda *tensors: self._run_reporting(call, tensors)
        if is_compiling():
            return lambda *tensors: self._run(call, tensors)
        program = self._program(call)
        return lambda *tensors: program.run(*tensors)

    def scoring(self, masks: int = 0, return_aux: bool = False) -> Callable[..., Any]:
        """`evaluating` without the value: leaves of observation, actions and masks → (log_prob, entropy).

        Only the components that the policy's output needs run.
        """
        call = PolicyCall("score", masks)
        run = self._run_reporting if return_aux else self._run
        return lambda *tensors: run(call, tensors)

    def reading(self, names: Sequence[str]) -> Callable[..., tuple[Tensor, ...]]:
        """Leaves of an observation → the tensors of these edges of the plan; only what they need runs."""
        self.require_edges(names)
        call = PolicyCall("edges", edges=tuple(names))
        return lambda *tensors: self._run(call, tensors)

    def require_edges(self, names: Sequence[str]) -> None:
        """Raise `ConfigError` with every one of these edges that the plan does not have."""
        missing = [repr(name) for name in names if name not in self.plan.edges]
        if missing:
            model = self.config.get("model", {}).get("type", "graph")
            found = ", ".join(map(repr, self.plan.edges))
            raise ConfigError(f"the policy (model {model!r}) has no edge {' and '.join(missing)}; it has {found}")

    def configure_execution(self, **changes: Any) -> None:
        """Change options of the section `execution` (`amp=True`, `compile="auto"`); the others stay as they are.

        All that was compiled is dropped, so the precision is always set before anything is compiled; functions from
        `acting` and `evaluating` are asked for again. A save stores the settings. Raises `ConfigError`.
        """
        with exclusive(self.components):
            self.runtime = Runtime.of({**asdict(self.runtime.settings), **changes})
            self.runtime.lay_out(self.components)
            self._programs, self._forwards = {}, {}
            self.config["execution"] = asdict(self.runtime.settings)
            if "strict_masks" in changes:
                self.strict_masks = self.runtime.settings.strict_masks

    def prepare(self, observation: Any) -> Any:
        """What an environment gives (NumPy; one observation or a batch) → tensors with a batch axis, on our device."""
        return self.observations.prepare(observation, self.device)

    @torch.no_grad()
    def predict(
        self,
        observation: Any,
        state: Any = None,
        deterministic: bool = True,
        *,
        legal_mask: Any = None,
        first: Any = None,
    ) -> tuple[Any, Any]:
        """NumPy in, NumPy out: (action for `env.step`, state). One observation gives one action, a batch a batch.

        `legal_mask` is that of `get_action_and_value`; a row that it leaves no action is warned of. `state` is handed
        back as it came, and `first` changes nothing: this policy has no memory.
        """
        obs = self.prepare(observation)
        self._warn_of_dead_rows(obs, legal_mask)
        action, _, _ = self.get_action_and_value(obs, legal_mask, deterministic)
        return self._as_given(action, observation), state

    def _as_given(self, action: Any, observation: Any) -> Any:
        """Actions as NumPy, one for one observation."""
        numpy = self.actions.to_environment(action)
        return self.actions.first(numpy) if self.observations.is_single(observation) else numpy

    def _warn_of_dead_rows(self, obs: Any, legal_mask: Any) -> None:
        masks = self._masks(obs, self.observations.read(obs), legal_mask)
        if masks and not rows_alive(self.actions.space, masks).all():
            told = "the legal mask leaves no action, so action 0 is taken; execution: {strict_masks: true} stops there"
            warnings.warn(told, stacklevel=4)  # past the frame of no_grad: where predict is called

    def distribution(self, obs: Any, legal_mask: Any = None) -> DistributionView:
        """The distribution over actions; agrees with `get_action_and_value` and `evaluate_actions`."""
        if isinstance(obs, TensorDictBase):
            obs, legal_mask = _observation(obs), _mask(obs, legal_mask)
        tensors = self.observations.read(obs)
        params, _ = self._run(FORWARD, tensors)
        return DistributionView(self.actions, params, self._masks(obs, tensors, legal_mask))

    get_dist = distribution

    @property
    def critic(self) -> Critic:
        """The value alone as a TensorDict module: reads `observation`, writes `state_value`."""
        return Critic(self)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        first = next(self.parameters(), None)
        return first.device if first is not None else torch.device("cpu")

    @torch.no_grad()
    def update_statistics(self, obs: Any) -> None:
        """Feed a batch to every running normaliser, in order; trainers call it between rollouts, forward never does."""
        learners = self._learners()
        if not learners:
            return
        values = dict(zip(self.plan.inputs, self.observations.read(obs), strict=True))
        names = {step.name for step in learners}
        for step in settled(steps_for(self._steps, [name for s in learners for name in s.outputs])):
            if step.name in names:
                step.live.learner.update(values[step.sources[0]])
            step(values)

    @property
    def reports(self) -> bool:
        """Whether a component has auxiliary losses or statistics to report (`return_aux`)."""
        planned = any(node.measure.aux for node in self.plan.nodes)
        return planned or any(getattr(component, "reports", ()) for component in self.components.values())

    @property
    def has_statistics(self) -> bool:
        """Whether `update_statistics` does anything."""
        return bool(self._learners())

    @property
    def code(self) -> str:
        """The source of the program behind `forward`."""
        return self._program(FORWARD).code

    def slow(self, kind: Kind, *tensors: Tensor, masks: int = 0, deterministic: bool = False) -> Any:
        """The slow twin of a program, module by module: `forward`, `act`, `evaluate` or `value` (for tests)."""
        return self._body(PolicyCall(kind, masks, deterministic))[0](*tensors)

    def _learners(self) -> list[Step]:
        """The steps whose components take statistics."""
        return [step for step in self._steps if getattr(step.live, "learner", None) is not None]

    def _run(self, call: PolicyCall, tensors: Sequence[Tensor]) -> Any:
        if is_compiling():
            with self.runtime.region(self, tensors):
                return self._body(call)[0](*tensors)
        try:
            return self._program(call).run(*tensors)
        except (RuntimeError, ValueError) as error:
            self._blame_shapes(tensors, error)
            raise

    def _run_reporting(self, call: PolicyCall, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
        """The results of a call, and after them what components report to a sink.

        Where modules do, they run one by one; losses of weights alone are added beside the compiled call.
        """
        sink: dict[str, Tensor] = {}
        steps = self._running.get(call)
        if steps is None:
            steps = self._running[call] = self._body(call)[2]
        if not any(step.takes_aux or step.opaque for step in steps):
            results = self._run(call, tensors)
            for step in steps:
                step.report({AUX: sink})
            return *results, sink
        try:
            with self.runtime.region(self, tensors[: len(self.plan.inputs)]):
                return *self._body(call, sink)[0](*tensors), sink
        except (RuntimeError, ValueError) as error:
            self._blame_shapes(tensors, error)
            raise

    def _blame_shapes(self, tensors: Sequence[Tensor], error: Exception) -> None:
        """Raise `ShapeError` if an observation has another shape than promised; looked at only after a failure."""
        for leaf, tensor in zip(self.observations.leaves, tensors, strict=False):
            if problem := _shape_problem(leaf, tuple(tensor.shape)):
                raise ShapeError(problem) from error

    def _forward_leaves(self, leaves: Sequence[Tensor]) -> Any:
        """The whole network on leaves of an observation, in whatever state a policy begins."""
        return self._program(FORWARD).run(*leaves)

    def _program(self, call: PolicyCall) -> Program | Executed | Branched:
        program = self._programs.get((call, self.training))
        return self._make_program(call) if program is None else program

    def _make_program(self, call: PolicyCall) -> Program | Executed | Branched:
        with exclusive(self.components):
            key = call, self.training
            if key in self._programs:  # another thread was here first
                return self._programs[key]
            body, arity, steps = self._body(call)
            inner = self.runtime.program(self, body, arity, steps)
            branching = self.runtime.branches(steps)
            program = Branched(self, inner, lambda run: self._body(call, run=run)[0]) if branching else inner
            self._programs[key] = program
            if call == FORWARD and arity == 1:
                self._forwards[key[1]] = program
            return program

    def _body(
        self, call: PolicyCall, sink: dict[str, Tensor] | None = None, run: RunSteps = run_steps
    ) -> tuple[Callable[..., Any], int, list[Step]]:
        """The function behind a call, the number of its tensors, and the steps it runs; `sink` gets auxiliary losses.

        `run` is what runs the steps.
        """
        kind, greedy, inputs = call.kind, call.greedy, list(self.plan.inputs)
        edges = call.heads(self._policy_edge, self._value_edge)
        steps = steps_for(self._steps, edges)
        count, actions = len(inputs), len(self.actions.leaves) if call.takes_actions else 0
        runtime = self.runtime

        def body(*tensors: Tensor) -> Any:
            values = run(steps, _values(inputs, runtime.inputs(tensors[:count]), sink))
            chosen, legal = tensors[count : count + actions], tensors[count + actions :]
            outputs = runtime.outputs(values[edge] for edge in edges)
            if kind == "value":
                return outputs[0]
            if kind == "edges":
                return tuple(outputs)
            distribution = stand_in(self.actions, outputs[0])
            if kind == "score":
                return distribution.evaluate(outputs[0], chosen, legal)
            params, value, *more = outputs
            if kind == "forward":
                return params, value
            if kind == "act":
                return (*distribution.choose(params, legal, greedy), value)
            if kind == "draw":
                return (*distribution.draw(params, legal), value)
            return (*distribution.evaluate(params, chosen, legal, kind == "evaluate_draws"), value, *more)

        return body, count + actions + call.masks, steps

    def _masks(self, obs: Any, tensors: Sequence[Tensor], mask: Any) -> list[Tensor]:
        """Masks for the discrete leaves: the given one, or the observation's own, or none."""
        if mask is None and self.observations.mask_path is not None and not isinstance(obs, Tensor):
            mask = pick(obs, self.observations.mask_path)
        return (
            []
            if mask is None
            else legal_masks(self.actions.space, mask, len(tensors[0]), self.device, strict=self.strict_masks)
        )

    def _write_forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        params, value = self.forward(_observation(tensordict))
        return tensordict.update(self._entries(tensordict, params, value))

    def _entries(self, tensordict: TensorDictBase, params: Tensor, value: Tensor) -> dict[str, Any]:
        """What a forward writes into the TensorDict it was given: parameters by name, and the value."""
        parts = named_parameters(self.actions, params)
        named: dict[str, Any] = parts[0] if not self.actions.composite else {"params": self.actions.structure(parts)}
        return {**named, "state_value": value}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_programs": {}, "_forwards": {}, "_running": {}, "_swap": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> ActorCritic:
        fresh = type(self).__new__(type(self))
        memo[id(self)] = fresh
        fresh.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        return fresh


class Critic(TensorDictModuleBase):
    """A policy's value as a TensorDict module; shares the policy's parameters."""

    def __init__(self, policy: ActorCritic) -> None:
        super().__init__()
        self.policy = policy
        self.in_keys, self.out_keys = [ROOT], ["state_value"]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Reads `observation`, writes `state_value` (B, 1), as TorchRL's losses want it."""
        return tensordict.set("state_value", self.policy.get_value(_observation(tensordict)).unsqueeze(-1))


def _shape_problem(leaf: Leaf, found: tuple[int, ...]) -> str | None:
    expected = leaf.spec.shape
    if found[1:] == expected and found:
        return None
    nhwc = len(expected) == 3 and found[-3:] == (*expected[1:], expected[0])
    hint = " (looks like NHWC; expected channels first)" if nhwc else ""
    return f"{leaf.name} has shape {found}, expected ({', '.join(map(str, ('B', *expected)))}){hint}"


def _values(names: Sequence[str], tensors: Sequence[Tensor], sink: dict[str, Tensor] | None) -> dict[str, Any]:
    values: dict[str, Any] = dict(zip(names, tensors, strict=True))
    return values if sink is None else {**values, AUX: sink}


def _edge(plan: Plan, role: str) -> str:
    return next(node.spec.out_keys[0] for node in plan.nodes if node.role == role)


def _parameter_keys(actions: ActionDistribution) -> list[str]:
    if actions.composite:
        return ["params"]
    return ["logits"] if actions.discrete else ["loc", "scale"]


def _observation(tensordict: TensorDictBase) -> Any:
    """The observation in a TensorDict: under `observation`, or (as TorchRL has Dict spaces) its leaves at the top."""
    found = tensordict[ROOT] if ROOT in tensordict.keys() else tensordict  # noqa: SIM118 - not a dict
    return found.to_dict() if isinstance(found, TensorDictBase) else found


def _mask(tensordict: TensorDictBase, given: Any) -> Any:
    return tensordict.get(MASK, None) if given is None else given
