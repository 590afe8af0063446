"""StatefulActorCritic: a policy with memory. B rows, T steps.

State is an argument and a result, a dict of tensors with the batch first. One step at a time the policy acts; over
whole sequences it learns; both are the same function of observations, state and episode beginnings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torch.compiler import is_compiling

from policysmith.compile.executors import ParallelExecutor
from policysmith.compile.measured_choice import alike, drew
from policysmith.compile.plan_steps import MemoryStep, step_of
from policysmith.compile.stand_in import stand_in
from policysmith.compile.step import Step, run_steps, steps_for
from policysmith.errors import PolicysmithError, ShapeError, did_you_mean
from policysmith.graph.component import AUX
from policysmith.graph.memory_component import FIRST
from policysmith.ops.reset_state import State, reset_state
from policysmith.policy.actor_critic import ActorCritic, RunSteps, _mask, _observation
from policysmith.policy.distributions import DistributionView
from policysmith.policy.masks import legal_masks
from policysmith.policy.policy_call import Kind, PolicyCall
from policysmith.policy.spaces import pick

__all__ = ["StatefulActorCritic"]

STEP_FORWARD = PolicyCall("step_forward")


class StatefulActorCritic(ActorCritic):
    """An actor-critic whose components keep something between steps.

    `init_state(batch)` begins; `act` takes one step, `evaluate` and `unroll` whole sequences. `first` marks rows (or
    steps) whose episode begins: their state starts anew. The calls of memoryless policies raise and name `act`.
    A TensorDict holds the state under `<component>/<name>` and `first` under `is_init`.
    """

    def _replan(self) -> None:
        super()._replan()
        nodes = [node for node in self.plan.nodes if node.measure.state]
        self._memories = [node.name for node in nodes]
        self._state_keys = [f"{node.name}/{key}" for node in nodes for key, _ in node.measure.state]
        self._state_names = frozenset(self._state_keys)
        self._state_inputs = [*self.plan.inputs, *self._state_keys]
        self._sequence_trials = self.runtime.trials()
        self._sequence_steps = [step_of(node, self.components, sequence=True) for node in self.plan.nodes]

    def init_state(self, batch: int) -> State:
        """The state of `batch` rows before their first step, on the policy's device."""
        state: State = {}
        for name in self._memories:
            initial = self.components[name].initial_state(batch)
            state.update((f"{name}/{key}", tensor) for key, tensor in initial.items())
        return state

    def act(
        self,
        obs: Any,
        state: Mapping[str, Tensor],
        first: Tensor | None = None,
        legal_mask: Any = None,
        deterministic: bool = False,
        return_aux: bool = False,
    ) -> Any:
        """One step: observation (B, …), state, first (B,) → (action, log_prob (B,), value (B,), state after)."""
        tensors = self.observations.read(obs)
        masks = self._masks(obs, tensors, legal_mask)
        run = self._run_reporting if return_aux else self._run
        inputs = [*tensors, *self._begun(state, first, len(tensors[0])), *masks]
        actions, log_prob, value, after, *aux = run(PolicyCall("step", len(masks), deterministic), inputs)
        return self.actions.structure(actions), log_prob, value, self._named(after), *aux

    def evaluate(
        self,
        obs: Any,
        actions: Any,
        state: Mapping[str, Tensor] | None = None,
        first: Tensor | None = None,
        legal_mask: Any = None,
        return_aux: bool = False,
    ) -> Any:
        """Sequences: observations (B, T, …), actions (B, T, …), the state before, first (B, T)
        → (log_prob (B, T), entropy (B, T), value (B, T)), differentiable. No state is the initial one.
        """
        leaves, rows = self._flat_leaves(obs)
        masks = self._flat_masks(self._own_mask(obs) if legal_mask is None else legal_mask, rows)
        chosen = [leaf.flatten(0, 1) for leaf in self.actions.leaves_of(actions)]
        sink: dict[str, Tensor] | None = {} if return_aux else None
        results = self.evaluate_leaves(leaves, chosen, masks, rows, state, first, sink)
        shaped = tuple(tensor.unflatten(0, rows) for tensor in results)
        return (*shaped, sink) if return_aux else shaped

    def evaluate_leaves(
        self,
        leaves: Sequence[Tensor],
        actions: Sequence[Tensor],
        masks: Sequence[Tensor],
        rows: tuple[int, int],
        state: Mapping[str, Tensor] | None = None,
        first: Tensor | None = None,
        sink: dict[str, Tensor] | None = None,
        extra: Sequence[str] = (),
        drawn: bool = False,
    ) -> tuple[Tensor, ...]:
        """`evaluate` for leaves that are flat already, (B·T, …), with `rows` = (B, T); results are flat too.

        With `drawn` the actions are what `drawing` gave. Tensors of the edges named in `extra` come after the three.
        """
        self.require_edges(extra)
        edges = [self._policy_edge, self._value_edge, *extra]
        values = self._sequence(leaves, rows, state, first, edges, sink)
        evaluated = self.actions.evaluate(values[self._policy_edge], actions, masks, drawn)
        return (*evaluated, values[self._value_edge], *(values[name] for name in extra))

    def unroll(
        self, obs: Any, state: Mapping[str, Tensor] | None = None, first: Tensor | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """Sequences (B, T, …) → (policy output (B, T, P), value (B, T), state after the last step)."""
        leaves, rows = self._flat_leaves(obs)
        values = self._sequence(leaves, rows, state, first, [self._policy_edge, self._value_edge, *self._state_keys])
        params, value = values[self._policy_edge].unflatten(0, rows), values[self._value_edge].unflatten(0, rows)
        return params, value, {key: values[key] for key in self._state_keys}

    def forward(self, obs: Any, return_aux: bool = False) -> Any:
        """A TensorDict (B) takes one step, (B, T) is a sequence; it gains parameters, value and the state after.

        Anything else raises: a step without state would forget.
        """
        if not isinstance(obs, TensorDictBase):
            self._refuse("forward")
        params, value, state = self._of_tensordict(obs)
        return self._write_state(obs.update(self._entries(obs, params, value)), state)

    def get_action_and_value(
        self, obs: Any, legal_mask: Any = None, deterministic: bool = False, return_aux: bool = False
    ) -> Any:
        """One step of a TensorDict (B): it gains `action`, `action_log_prob`, `state_value` and the state after."""
        if not isinstance(obs, TensorDictBase):
            self._refuse("get_action_and_value")
        action, log_prob, value, state = self.act(
            _observation(obs), *self._memory_of(obs), _mask(obs, legal_mask), deterministic
        )
        obs.update({"action": action, "action_log_prob": log_prob, "state_value": value})
        return self._write_state(obs, state)

    def evaluate_actions(self, obs: Any, actions: Any, legal_mask: Any = None, return_aux: bool = False) -> Any:
        """Sequences in a TensorDict (B, T); see `evaluate` for tensors."""
        if not isinstance(obs, TensorDictBase) or obs.ndim < 2:
            self._refuse("evaluate_actions", "evaluate(obs, actions, state, first)")
        state, first = self._memory_of(obs)
        state = {key: tensor[:, 0] for key, tensor in state.items()}
        return self.evaluate(_observation(obs), actions, state, first, _mask(obs, legal_mask), return_aux)

    def get_value(self, obs: Any, state: Mapping[str, Tensor] | None = None, first: Tensor | None = None) -> Any:
        """One step: observation (B, …), state, first (B,) → value (B,); a TensorDict gains `state_value`."""
        if isinstance(obs, TensorDictBase):
            return obs.set("state_value", self._of_tensordict(obs)[1])
        if state is None:
            self._refuse("get_value")
        tensors = self.observations.read(obs)
        return self._run(PolicyCall("step_value"), [*tensors, *self._begun(state, first, len(tensors[0]))])

    def acting(self, deterministic: bool = False) -> Callable[..., Any]:
        """One function for rollouts: (obs, state, first=None, legal_mask=None) → (action, log_prob, value, state).

        It runs in inference mode: copy or clone its results before autograd sees them.
        """
        plain = len(self.observations.leaves) == 1 and not self.observations.mask_path and not self.actions.composite
        inference, call = torch.inference_mode, PolicyCall("step", greedy=deterministic)

        def act(
            obs: Any, state: Mapping[str, Tensor], first: Tensor | None = None, legal_mask: Any = None
        ) -> tuple[Any, Tensor, Tensor, State]:
            with inference():
                if not plain or legal_mask is not None or not isinstance(obs, Tensor) or is_compiling():
                    return self.act(obs, state, first, legal_mask, deterministic)
                tensors = [obs, *self._begun(state, first, len(obs))]
                try:
                    (action,), log_prob, value, after = self._program(call).run(*tensors)
                except (RuntimeError, ValueError) as error:
                    self._blame_shapes(tensors, error)
                    raise
                return action, log_prob, value, self._named(after)

        return act

    def drawing(self) -> Callable[..., Any]:
        """`acting` for those who learn from it: squashed actions come before tanh, as `ActorCritic.drawing` says."""
        if not self.actions.squashed:
            return self.acting()

        def draw(
            obs: Any, state: Mapping[str, Tensor], first: Tensor | None = None, legal_mask: Any = None
        ) -> tuple[Any, Tensor, Tensor, State]:
            tensors = self.observations.read(obs)
            masks = self._masks(obs, tensors, legal_mask)
            inputs = [*tensors, *self._begun(state, first, len(tensors[0])), *masks]
            draws, log_prob, value, after = self._run(PolicyCall("step_draw", len(masks)), inputs)
            return self.actions.structure(draws), log_prob, value, self._named(after)

        drawn: Callable[..., Any] = torch.inference_mode()(draw)
        return drawn

    def evaluating(
        self, masks: int = 0, return_aux: bool = False, extra: Sequence[str] = (), drawn: bool = False
    ) -> NoReturn:
        """Memoryless policies only; sequences go through `evaluate`."""
        self._refuse("evaluating", "evaluate(obs, actions, state, first)")

    def scoring(self, masks: int = 0, return_aux: bool = False) -> NoReturn:
        """Memoryless policies only; sequences go through `evaluate`."""
        self._refuse("scoring", "evaluate(obs, actions, state, first)")

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
        """NumPy in, NumPy out: (action for `env.step`, state after); state None begins an episode in every row.

        `first` (B,), or a truth value for all rows, marks rows whose episode begins: their state starts anew.
        `legal_mask` is that of `act`; a row that it leaves no action is warned of.
        """
        obs = self.prepare(observation)
        self._warn_of_dead_rows(obs, legal_mask)
        rows = len(self.observations.read(obs)[0])
        begins = None if first is None else torch.as_tensor(first, device=self.device).bool().expand(rows)
        before = self.init_state(rows) if state is None else state
        action, _, _, state = self.act(obs, before, begins, legal_mask, deterministic)
        return self._as_given(action, observation), state

    def distribution(
        self,
        obs: Any,
        legal_mask: Any = None,
        state: Mapping[str, Tensor] | None = None,
        first: Tensor | None = None,
    ) -> DistributionView:
        """The distribution over actions of one step."""
        if isinstance(obs, TensorDictBase):
            state, first = self._memory_of(obs)
            obs, legal_mask = _observation(obs), _mask(obs, legal_mask)
        if state is None:
            self._refuse("distribution", "distribution(obs, state=state, first=first)")
        tensors = self.observations.read(obs)
        params, _, _ = self._run(STEP_FORWARD, [*tensors, *self._begun(state, first, len(tensors[0]))])
        return DistributionView(self.actions, params, self._masks(obs, tensors, legal_mask))

    get_dist = distribution

    @property
    def code(self) -> str:
        """The source of the program behind one step of `act`."""
        return self._program(PolicyCall("step")).code

    def _body(
        self, call: PolicyCall, sink: dict[str, Tensor] | None = None, run: RunSteps = run_steps
    ) -> tuple[Callable[..., Any], int, list[Step]]:
        kind, greedy, inputs = call.kind, call.greedy, self._state_inputs
        edges = call.heads(self._policy_edge, self._value_edge)
        steps = steps_for(self._steps, edges)
        count, leaves, runtime = len(inputs), len(self.plan.inputs), self.runtime

        def body(*tensors: Tensor) -> Any:
            given = [*runtime.inputs(tensors[:leaves]), *tensors[leaves:count]]
            values: dict[str, Any] = dict(zip(inputs, given, strict=True))
            if sink is not None:
                values[AUX] = sink
            run(steps, values)
            outputs = runtime.outputs(values[edge] for edge in edges)
            if kind == "step_value":
                return outputs[0]
            params, value = outputs
            after = runtime.outputs(values[name] for name in self._state_keys)
            if kind == "step_forward":
                return params, value, after
            distribution = stand_in(self.actions, params)
            if kind == "step_draw":
                return (*distribution.draw(params, tensors[count:]), value, after)
            return (*distribution.choose(params, tensors[count:], greedy), value, after)

        return body, count + call.masks, steps

    def slow(self, kind: Kind, *tensors: Tensor, masks: int = 0, deterministic: bool = False) -> Any:
        """The slow twin of one step's program: `step`, `step_forward` or `step_value`; state after the leaves."""
        return self._body(PolicyCall(kind, masks, deterministic))[0](*tensors)

    def _sequence(
        self,
        leaves: Sequence[Tensor],
        rows: tuple[int, int],
        state: Mapping[str, Tensor] | None,
        first: Tensor | None,
        edges: Sequence[str],
        sink: dict[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        """Every edge that `edges` need, flat (B·T, …); state edges are those after the last step."""
        if first is None:
            first = torch.zeros(rows, dtype=torch.bool, device=leaves[0].device)
        given = self._ordered(self.init_state(rows[0]) if state is None else state, rows[0])
        inputs = [*self.runtime.inputs(leaves), *given]
        values: dict[str, Any] = dict(zip(self._state_inputs, inputs, strict=True))
        values[FIRST] = first.reshape(rows).bool()
        if sink is not None:
            values[AUX] = sink
        try:
            with self.runtime.region(self, leaves):
                self._run_sequence(_keeping(self._sequence_steps, edges), values)
            return dict(zip(edges, self.runtime.outputs(values[edge] for edge in edges), strict=True))
        except (RuntimeError, ValueError) as error:
            self._blame_shapes(leaves, error)
            raise

    def _run_sequence(self, steps: Sequence[Step], values: dict[str, Any]) -> None:
        """Run the steps over whole sequences; side by side where that is asked for, and measures faster."""
        executor = self.runtime.executor
        if not isinstance(executor, ParallelExecutor) or not executor.can_branch(steps) or executor.stays_in_order():
            run_steps(steps, values)
            return
        tensors = [value for value in values.values() if isinstance(value, Tensor)]
        device = tensors[0].device
        self._sequence_trials.run(
            (self.training, tuple(step.name for step in steps), *alike(tensors)),
            lambda: drew(lambda: run_steps(steps, values), device),
            lambda: run_steps(steps, values),
            lambda: executor.run_steps(steps, values),
            device,
        )

    def _forward_leaves(self, leaves: Sequence[Tensor]) -> Any:
        rows = len(leaves[0])
        return self._program(STEP_FORWARD).run(*leaves, *self._ordered(self.init_state(rows), rows))

    def _begun(self, state: Mapping[str, Tensor], first: Tensor | None, batch: int) -> list[Tensor]:
        """The state's tensors in order, rows whose episode begins started anew."""
        given = self._ordered(state, batch)
        if first is None or (not is_compiling() and first.device.type == "cpu" and not first.any()):
            return given
        named = dict(zip(self._state_keys, given, strict=True))
        return list(reset_state(named, self.init_state(1), first.reshape(batch).bool()).values())

    def _ordered(self, state: Mapping[str, Tensor], batch: int) -> list[Tensor]:
        if not isinstance(state, Mapping) or set(state) != self._state_names:
            found = ", ".join(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
            hint = did_you_mean(str(next(iter(state), "")), self._state_keys) if isinstance(state, Mapping) else ""
            raise ShapeError(
                f"the state must hold {', '.join(self._state_keys)}; found {found or 'nothing'}{hint}. "
                "Begin with init_state(batch)"
            )
        tensors = [state[key] for key in self._state_keys]
        if [tensor.size(0) for tensor in tensors].count(batch) != len(tensors):
            raise ShapeError(f"the state has {len(tensors[0])} rows for {batch} observations")
        return tensors

    def _named(self, tensors: Sequence[Tensor]) -> State:
        return dict(zip(self._state_keys, tensors, strict=True))

    def _flat_leaves(self, obs: Any) -> tuple[list[Tensor], tuple[int, int]]:
        leaves = self.observations.read(obs)
        for leaf, tensor in zip(self.observations.leaves, leaves, strict=True):
            if tensor.dim() != leaf.ndim + 2:
                shape = ", ".join(map(str, ("B", "T", *leaf.spec.shape)))
                raise ShapeError(f"{leaf.name} has shape {tuple(tensor.shape)}, expected a sequence ({shape})")
        return [leaf.flatten(0, 1) for leaf in leaves], (leaves[0].shape[0], leaves[0].shape[1])

    def _own_mask(self, obs: Any) -> Any:
        """The mask that lies in an observation, or None."""
        path = self.observations.mask_path
        return None if path is None or isinstance(obs, Tensor) else pick(obs, path)

    def _flat_masks(self, mask: Any, rows: tuple[int, int]) -> list[Tensor]:
        """Masks (B, T, n) or (n,) → one (B·T, n) a discrete leaf."""
        if mask is None:
            return []
        return legal_masks(self.actions.space, _flatten(mask), rows[0] * rows[1], self.device, strict=self.strict_masks)

    def _of_tensordict(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor, State]:
        obs, (state, first) = _observation(tensordict), self._memory_of(tensordict)
        if tensordict.ndim > 1:
            return self.unroll(obs, {key: tensor[:, 0] for key, tensor in state.items()}, first)
        tensors = self.observations.read(obs)
        params, value, after = self._run(STEP_FORWARD, [*tensors, *self._begun(state, first, len(tensors[0]))])
        return params, value, self._named(after)

    def _memory_of(self, tensordict: TensorDictBase) -> tuple[State, Tensor | None]:
        """State and `first` in a TensorDict, shaped (B, …) or (B, T, …); what is absent is initial."""
        initial = self.init_state(tensordict.shape[0])
        if tensordict.ndim > 1:
            initial = {key: tensor.unsqueeze(1) for key, tensor in initial.items()}
        first = tensordict.get(FIRST, None)
        found = {key: tensordict.get(key, None) for key in initial}
        state = {key: initial[key] if tensor is None else tensor for key, tensor in found.items()}
        return state, first if first is None else first.reshape(tensordict.shape[:2])

    def _write_state(self, tensordict: TensorDictBase, state: State) -> TensorDictBase:
        """The state after goes under `next`, from where collectors carry it to the next step; sequences keep theirs."""
        if tensordict.ndim == 1:
            for key, tensor in state.items():
                tensordict.set(("next", key), tensor)
        return tensordict

    def _refuse(self, call: str, instead: str = "act(obs, state, first)") -> NoReturn:
        names = ", ".join(map(repr, self._memories))
        raise PolicysmithError(
            f"{call} would forget: this policy has a memory ({names}). Begin with init_state(batch) and call {instead}"
        )


def _keeping(steps: Sequence[Step], edges: Sequence[str]) -> list[Step]:
    """The steps that edges depend on; a state edge is written by its component."""
    memories = {edge: step.outputs[0] for step in steps if isinstance(step, MemoryStep) for edge in step.edges}
    return steps_for(steps, [memories.get(edge, edge) for edge in edges])


def _flatten(mask: Any) -> Any:
    if isinstance(mask, Mapping):
        return {key: _flatten(part) for key, part in mask.items()}
    if isinstance(mask, tuple | list) and not isinstance(mask[0], int | float | bool):
        return tuple(_flatten(part) for part in mask)
    tensor = torch.as_tensor(mask)
    return tensor.flatten(0, 1) if tensor.dim() > 2 else tensor
