"""ActorCritic: a graph of components with two heads, spoken to through the protocol. B is the batch.

Every call runs a program compiled from the graph and the sampler together; the same program's body, run over the
modules one by one, is its slow twin. Given a TensorDict a call reads and writes TorchRL's standard keys instead.
What a policy keeps between steps is an argument and a result; a policy without memory is one whose state is empty.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torch.compiler import is_compiling

from policysmith.graph.memory_component import FIRST
from policysmith.ops.reset_state import State
from policysmith.policy.distributions import DistributionView, named_parameters
from policysmith.policy.masks import rows_alive
from policysmith.policy.observations import ROOT
from policysmith.policy.policy_call import FORWARD, VALUE, PolicyCall
from policysmith.policy.policy_core import SEQUENCES
from policysmith.policy.structures import Arrays, LegalMask, Observation, Tensors
from policysmith.policy.tensordict_edge import mask_in, observation_in
from policysmith.policy.trainer_calls import TrainerCalls
from policysmith.policy.unrolling import Unrolling

__all__ = ["ActorCritic"]


class ActorCritic(TrainerCalls, Unrolling):
    """An actor-critic policy; parameters are named `components.<name>.…`. Made by `policysmith.build`.

    `plan` knows every shape, `components` holds the live modules, `observations` and `actions` the two spaces, and
    `config` the resolved description it was built from. With `strict_masks` (`execution: {strict_masks: true}`) a row
    without a legal action raises `MaskError` rather than giving action 0.
    `has_memory` says whether anything is kept between steps.

    `init_state(batch)` begins; `act` takes one step, `evaluate` and `unroll` whole sequences. `first` marks rows (or
    steps) whose episode begins: their state starts anew. Without memory the state is `{}`, and calls that take none
    (`forward`, `get_action_and_value` and their like) do as well; with one they would forget, so they raise
    `PolicysmithError` and name the call to make. A TensorDict holds the state under `<component>/<name>`, and `first`
    under `is_init`.
    """

    def forward(self, obs: Observation, return_aux: bool = False) -> Any:
        """Observation → (policy output (B, P), value (B,)).

        A TensorDict gains parameters by name, the value, and the state after; with a memory, one of batch (B, T) is a
        sequence. `return_aux` appends `{name: scalar}` here and in the calls below: auxiliary losses (`…_loss`,
        weighted by their coefficients) and statistics of the components that have any.
        """
        if self._plain and type(obs) is Tensor and not return_aux and not is_compiling():
            program = self.runner.programs[self.training].get(FORWARD)  # the hot path: one tensor, compiled before
            if program is not None:
                try:
                    return program.run(obs)
                except (RuntimeError, ValueError) as error:
                    self._blame_shapes([obs], error)
                    raise
        if isinstance(obs, TensorDictBase) and (self.has_memory or not return_aux):
            return self._write_forward(obs)
        if self.has_memory:
            self._refuse("forward")
        return self._run(FORWARD, self.observations.read(obs), return_aux)

    def get_action_and_value(
        self, obs: Observation, legal_mask: LegalMask = None, deterministic: bool = False, return_aux: bool = False
    ) -> Any:
        """Observation → (action in the environment's units, log_prob (B,), value (B,)).

        `legal_mask` has the shape DESIGN gives for the space: (B, A), or (A,) for all rows; by default the
        observation's own `action_mask`. A row without a legal action gives action 0, log-prob 0. A TensorDict gains
        `action`, `action_log_prob` and `state_value`.
        """
        if isinstance(obs, TensorDictBase):
            action, log_prob, value, after = self.act(
                observation_in(obs), *self._memory_in(obs), mask_in(obs, legal_mask), deterministic
            )
            obs.update({"action": action, "action_log_prob": log_prob, "state_value": value})
            return self._write_state(obs, after)
        if self.has_memory:
            self._refuse("get_action_and_value")
        tensors = self.observations.read(obs)
        masks = self._masks(obs, tensors, legal_mask)
        actions, *rest = self._run(PolicyCall("act", len(masks), deterministic), [*tensors, *masks], return_aux)
        return self.actions.structure(actions), *rest

    def evaluate_actions(
        self, obs: Observation, actions: Tensors, legal_mask: LegalMask = None, return_aux: bool = False
    ) -> Any:
        """Observation and actions → (log_prob (B,), entropy (B,), value (B,)), differentiable.

        With a memory, sequences in a TensorDict (B, T); see `evaluate` for tensors.
        """
        if isinstance(obs, TensorDictBase):
            if self.has_memory and obs.ndim > 1:
                state, first = self._memory_in(obs)
                return self.evaluate(observation_in(obs), actions, state, first, mask_in(obs, legal_mask), return_aux)
            obs, legal_mask = observation_in(obs), mask_in(obs, legal_mask)
        if self.has_memory:
            self._refuse("evaluate_actions", SEQUENCES)
        tensors = self.observations.read(obs)
        masks = self._masks(obs, tensors, legal_mask)
        inputs = [*tensors, *self.actions.leaves_of(actions), *masks]
        return self._run(PolicyCall("evaluate", len(masks)), inputs, return_aux)

    def get_value(
        self, obs: Observation, state: Mapping[str, Tensor] | None = None, first: Tensor | None = None
    ) -> Any:
        """One step: observation (B, …), state, first (B,) → value (B,); a TensorDict gains `state_value`.

        Only the components that the value needs run.
        """
        if isinstance(obs, TensorDictBase):
            if self.has_memory:
                return obs.set("state_value", self._of_tensordict(obs)[1])
            return obs.set("state_value", self.get_value(observation_in(obs)))
        if state is None and self.has_memory:
            self._refuse("get_value")
        tensors = self.observations.read(obs)
        return self._run(VALUE, [*tensors, *self.state_layout.begun(state, first, len(tensors[0]))])

    def prepare(self, observation: Arrays) -> Any:
        """What an environment gives (NumPy; one observation or a batch) → tensors with a batch axis, on our device."""
        return self.observations.prepare(observation, self.device)

    @torch.no_grad()
    def predict(
        self,
        observation: Arrays,
        state: State | None = None,
        deterministic: bool = True,
        *,
        legal_mask: LegalMask = None,
        first: Arrays | Tensor | None = None,
    ) -> tuple[Arrays, State | None]:
        """NumPy in, NumPy out: (action for `env.step`, state). One observation gives one action, a batch a batch.

        `state` is what the call before gave, and None begins an episode in every row; `first` (B,), or a truth value
        for all rows, marks rows whose episode begins: their state starts anew. Without a memory the state is handed
        back as it came, and `first` changes nothing. `legal_mask` is that of `act`; a row that it leaves no action is
        warned of.
        """
        obs = self.prepare(observation)
        self._warn_of_dead_rows(obs, legal_mask)
        given, begins = None, None
        if self.has_memory:
            rows, given = len(self.observations.read(obs)[0]), state
            begins = None if first is None else torch.as_tensor(first, device=self.device).bool().expand(rows)
        action, _, _, after = self.act(obs, given, begins, legal_mask, deterministic)
        numpy = self.actions.to_environment(action)
        single = self.observations.is_single(observation)
        return self.actions.first(numpy) if single else numpy, after if self.has_memory else state

    def _warn_of_dead_rows(self, obs: Observation, legal_mask: LegalMask) -> None:
        masks = self._masks(obs, self.observations.read(obs), legal_mask)
        if masks and not rows_alive(self.actions.space, masks).all():
            told = "the legal mask leaves no action, so action 0 is taken; execution: {strict_masks: true} stops there"
            warnings.warn(told, stacklevel=4)  # past the frame of no_grad: where predict is called

    def distribution(
        self,
        obs: Observation,
        legal_mask: LegalMask = None,
        state: Mapping[str, Tensor] | None = None,
        first: Tensor | None = None,
    ) -> DistributionView:
        """The distribution over actions of one step; agrees with `act`, `evaluate` and their like."""
        if isinstance(obs, TensorDictBase):
            state, first = self._memory_in(obs)
            obs, legal_mask = observation_in(obs), mask_in(obs, legal_mask)
        if state is None and self.has_memory:
            self._refuse("distribution", "distribution(obs, state=state, first=first)")
        tensors = self.observations.read(obs)
        params, *_ = self._run(FORWARD, [*tensors, *self.state_layout.begun(state, first, len(tensors[0]))])
        return DistributionView(self.actions, params, self._masks(obs, tensors, legal_mask))

    get_dist = distribution

    @property
    def critic(self) -> Critic:
        """The value alone as a TensorDict module: reads `observation`, writes `state_value`."""
        return Critic(self)

    def _write_forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        if not self.has_memory:
            return tensordict.update(self._entries(tensordict, *self.forward(observation_in(tensordict))))
        params, value, after = self._of_tensordict(tensordict)
        return self._write_state(tensordict.update(self._entries(tensordict, params, value)), after)

    def _of_tensordict(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor, State]:
        """One step, or a sequence where the batch is (B, T)."""
        obs, (state, first) = observation_in(tensordict), self._memory_in(tensordict)
        if tensordict.ndim > 1:
            return self.unroll(obs, state, first)
        tensors = self.observations.read(obs)
        given = self.state_layout.begun(state, first, len(tensors[0]))
        params, value, after = self._run(FORWARD, [*tensors, *given])
        return params, value, self.state_layout.named(after)

    def _memory_in(self, tensordict: TensorDictBase) -> tuple[State, Tensor | None]:
        """The state before the first step in a TensorDict of batch (B) or (B, T), and `first`; absent is initial."""
        if not self.has_memory:
            return {}, None
        first, initial = tensordict.get(FIRST, None), self.init_state(tensordict.shape[0])
        found = {key: tensordict.get(key, None) for key in initial}
        sequence = tensordict.ndim > 1
        state = {key: initial[key] if x is None else x[:, 0] if sequence else x for key, x in found.items()}
        return state, first if first is None else first.reshape(tensordict.shape[:2])

    def _write_state(self, tensordict: TensorDictBase, state: State) -> TensorDictBase:
        """The state after goes under `next`, from where collectors carry it to the next step; sequences keep theirs."""
        if tensordict.ndim == 1:
            for key, tensor in state.items():
                tensordict.set(("next", key), tensor)
        return tensordict

    def _entries(self, tensordict: TensorDictBase, params: Tensor, value: Tensor) -> dict[str, Tensors]:
        """What a forward writes into the TensorDict it was given: parameters by name, and the value."""
        parts = named_parameters(self.actions, params)
        named: dict[str, Any] = parts[0] if not self.actions.composite else {"params": self.actions.structure(parts)}
        return {**named, "state_value": value}


class Critic(TensorDictModuleBase):
    """A policy's value as a TensorDict module; shares the policy's parameters."""

    def __init__(self, policy: ActorCritic) -> None:
        super().__init__()
        self.policy = policy
        self.in_keys, self.out_keys = [ROOT], ["state_value"]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Reads `observation`, writes `state_value` (B, 1), as TorchRL's losses want it."""
        return tensordict.set("state_value", self.policy.get_value(observation_in(tensordict)).unsqueeze(-1))
