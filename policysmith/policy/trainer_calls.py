"""The calls of a policy as functions that rollouts and losses hold: what can be looked up once is looked up here.

In: options. Out: functions of observations, or of the leaves of observations, actions and masks. They stay live.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from policysmith.ops.reset_state import State
from policysmith.policy.policy_call import PolicyCall
from policysmith.policy.policy_core import SEQUENCES, PolicyCore
from policysmith.policy.structures import LegalMask, Observation

__all__ = ["TrainerCalls"]

Acting = Callable[..., tuple[Any, ...]]


class TrainerCalls(PolicyCore):
    """A policy's calls as functions, each made for one manner of being called; a base of `ActorCritic`."""

    def acting(self, deterministic: bool = False) -> Acting:
        """One function for rollouts, in inference mode: (obs, legal_mask=None) → (action, log_prob, value), or with a
        memory (obs, state, first=None, legal_mask=None) → (action, log_prob, value, state after).

        Its results are inference tensors: copy them into storage (or clone) before autograd sees them. It stays live:
        training steps, loads, swaps and hooks take effect at the next call.
        """
        plain = len(self.observations.leaves) == 1 and not self.observations.mask_path and not self.actions.composite
        if self.has_memory:
            return self._acting_with_memory(deterministic, plain)
        call, inference = PolicyCall("act", greedy=deterministic), torch.inference_mode

        def act_by_mask(obs: Observation, legal_mask: LegalMask = None) -> tuple[Any, Tensor, Tensor]:
            action, log_prob, value, _ = self.act(obs, None, None, legal_mask, deterministic)
            return action, log_prob, value

        if not plain:
            return inference()(act_by_mask)
        program = self.runner.program(call)

        def act(obs: Tensor, legal_mask: LegalMask = None) -> tuple[Tensor, Tensor, Tensor]:
            with inference():
                if legal_mask is not None:
                    return act_by_mask(obs, legal_mask)
                try:
                    (action,), log_prob, value = program.run(obs)
                except (RuntimeError, ValueError) as error:
                    self._blame_shapes([obs], error)
                    raise
                return action, log_prob, value

        return act

    def _acting_with_memory(self, deterministic: bool, plain: bool) -> Acting:
        inference, call = torch.inference_mode, PolicyCall("act", greedy=deterministic)

        def act(
            obs: Observation, state: Mapping[str, Tensor], first: Tensor | None = None, legal_mask: LegalMask = None
        ) -> tuple[Any, Tensor, Tensor, State]:
            with inference():
                if not plain or legal_mask is not None or not isinstance(obs, Tensor) or is_compiling():
                    return self.act(obs, state, first, legal_mask, deterministic)
                tensors = [obs, *self.state_layout.begun(state, first, len(obs))]
                try:
                    (action,), log_prob, value, after = self.runner.program(call).run(*tensors)
                except (RuntimeError, ValueError) as error:
                    self._blame_shapes(tensors, error)
                    raise
                return action, log_prob, value, self.state_layout.named(after)

        return act

    def drawing(self) -> Acting:
        """`acting` for those who learn from it: squashed actions come before tanh, (obs, legal_mask=None) → (draw, …).

        `actions.action_of(draw)` is the action; `evaluating(drawn=True)` takes draws in place of actions. A draw
        beyond ±8 can't be told from its action in float32, where tanh is flat. What is not squashed is drawn as it is.
        """
        if not self.actions.squashed:
            return self.acting()

        def draw_after(
            obs: Observation, state: Mapping[str, Tensor], first: Tensor | None = None, legal_mask: LegalMask = None
        ) -> tuple[Any, ...]:
            tensors = self.observations.read(obs)
            masks = self._masks(obs, tensors, legal_mask)
            inputs = [*tensors, *self.state_layout.begun(state, first, len(tensors[0])), *masks]
            draws, log_prob, value, *rest = self._run(PolicyCall("draw", len(masks)), inputs)
            return self.actions.structure(draws), log_prob, value, *map(self.state_layout.named, rest)

        def draw(obs: Observation, legal_mask: LegalMask = None) -> tuple[Any, ...]:
            return draw_after(obs, {}, None, legal_mask)

        return torch.inference_mode()(draw_after if self.has_memory else draw)

    def evaluating(
        self, masks: int = 0, return_aux: bool = False, extra: Sequence[str] = (), drawn: bool = False
    ) -> Callable[..., Any]:
        """One function for training: leaves of observation, actions and masks → (log_prob, entropy, value, *extra).

        It is compiled for the present training mode; ask again after changing it. With `drawn` the leaves of actions
        are those that `drawing` gave. `extra` names further edges of the
        plan that a loss reads (`ConfigError` for one that there is not); `return_aux` appends what components report.
        """
        if self.has_memory:
            self._refuse("evaluating", SEQUENCES)
        self.require_edges(extra)
        call = PolicyCall("evaluate_draws" if drawn else "evaluate", masks, edges=tuple(extra))
        if return_aux or is_compiling():
            return lambda *tensors: self._run(call, tensors, return_aux)
        program = self.runner.program(call)
        return lambda *tensors: program.run(*tensors)

    def scoring(self, masks: int = 0, return_aux: bool = False) -> Callable[..., Any]:
        """`evaluating` without the value: leaves of observation, actions and masks → (log_prob, entropy).

        Only the components that the policy's output needs run.
        """
        if self.has_memory:
            self._refuse("scoring", SEQUENCES)
        call = PolicyCall("score", masks)
        return lambda *tensors: self._run(call, tensors, return_aux)

    def reading(self, names: Sequence[str]) -> Callable[..., tuple[Tensor, ...]]:
        """Leaves of an observation → the tensors of these edges of the plan; only what they need runs."""
        if self.has_memory:
            self._refuse("reading", SEQUENCES)
        self.require_edges(names)
        call = PolicyCall("edges", edges=tuple(names))
        return lambda *tensors: self._run(call, tensors)
