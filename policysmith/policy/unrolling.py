"""A policy over whole sequences: the same function of observations, state and episode beginnings as its single steps.

B rows, T steps. In: observations (B, T, …), the state before the first step, and `first` (B, T), which marks the steps
that begin an episode. Out: the heads' tensors, or what a loss needs of them, differentiable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from policysmith.compile.executors import ParallelExecutor
from policysmith.compile.measured_choice import alike, drew
from policysmith.compile.plan_steps import step_of
from policysmith.compile.runner import Runner, Values
from policysmith.compile.step import Step, run_steps
from policysmith.errors import ShapeError
from policysmith.ops.reset_state import State
from policysmith.policy.masks import legal_masks
from policysmith.policy.policy_core import PolicyCore
from policysmith.policy.structures import LegalMask, Observation, Tensors

__all__ = ["Unrolling"]


class Unrolling(PolicyCore):
    """A policy's calls over whole sequences; a base of `ActorCritic`."""

    def _replan(self) -> None:
        """With the steps over sequences, which run one by one: memories unroll by loops of their own."""
        super()._replan()
        steps = [step_of(node, self.components, sequence=True) for node in self.plan.nodes]
        self._sequences = Runner(self.components, steps, self._tasks.sequence, self.runner.manner, [self.actions])
        self._sequence_trials = self.runtime.trials()

    def init_state(self, batch: int) -> State:
        """The state of `batch` rows before their first step, on the policy's device; `{}` without a memory."""
        return self.state_layout.initial(batch)

    def evaluate(
        self,
        obs: Observation,
        actions: Tensors,
        state: Mapping[str, Tensor] | None = None,
        first: Tensor | None = None,
        legal_mask: LegalMask = None,
        return_aux: bool = False,
    ) -> Any:
        """Sequences: observations (B, T, …), actions (B, T, …), the state before, first (B, T)
        → (log_prob (B, T), entropy (B, T), value (B, T)), differentiable. No state is the initial one.
        """
        leaves, rows = self._flat_leaves(obs)
        masks = self._flat_masks(self.own_mask(obs) if legal_mask is None else legal_mask, rows)
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
        params, value, *more = self._sequence(leaves, rows, state, first, self._heads(extra), sink)
        return (*self.actions.evaluate(params, actions, masks, drawn), value, *more)

    def unroll(
        self, obs: Observation, state: Mapping[str, Tensor] | None = None, first: Tensor | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """Sequences (B, T, …) → (policy output (B, T, P), value (B, T), state after the last step)."""
        leaves, rows = self._flat_leaves(obs)
        params, value, *after = self._sequence(leaves, rows, state, first, self._heads(self.state_layout.keys))
        return params.unflatten(0, rows), value.unflatten(0, rows), self.state_layout.named(after)

    def _heads(self, more: Sequence[str]) -> tuple[str, ...]:
        return self._tasks.policy_edge, self._tasks.value_edge, *more

    def _sequence(
        self,
        leaves: Sequence[Tensor],
        rows: tuple[int, int],
        state: Mapping[str, Tensor] | None,
        first: Tensor | None,
        edges: tuple[str, ...],
        sink: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, ...]:
        """These edges, flat (B·T, …); state edges are those after the last step."""
        if first is None:
            first = torch.zeros(rows, dtype=torch.bool, device=leaves[0].device)
        given = self.state_layout.begun(state, None, rows[0])
        tensors = [*leaves, *given, first.reshape(rows).bool()]
        try:
            found: tuple[Tensor, ...] = self._sequences.one_by_one(edges, tensors, self._run_sequence, sink)
            return found
        except (RuntimeError, ValueError) as error:
            self._blame_shapes(leaves, error)
            raise

    def _run_sequence(self, steps: Sequence[Step], values: Values) -> Values:
        """Run the steps over whole sequences; side by side where that is asked for, and measures faster."""
        executor = self.runtime.executor
        if not isinstance(executor, ParallelExecutor) or not executor.can_branch(steps) or executor.stays_in_order():
            return run_steps(steps, values)
        tensors = [value for value in values.values() if isinstance(value, Tensor)]
        device = tensors[0].device
        return self._sequence_trials.run(
            (self.training, tuple(step.name for step in steps), *alike(tensors)),
            lambda: drew(lambda: run_steps(steps, values), device),
            lambda: run_steps(steps, values),
            lambda: executor.run_steps(steps, values),
            device,
        )

    def _flat_leaves(self, obs: Observation) -> tuple[list[Tensor], tuple[int, int]]:
        leaves = self.observations.read(obs)
        for leaf, tensor in zip(self.observations.leaves, leaves, strict=True):
            if tensor.dim() != leaf.ndim + 2:
                shape = ", ".join(map(str, ("B", "T", *leaf.spec.shape)))
                raise ShapeError(f"{leaf.name} has shape {tuple(tensor.shape)}, expected a sequence ({shape})")
        return [leaf.flatten(0, 1) for leaf in leaves], (leaves[0].shape[0], leaves[0].shape[1])

    def _flat_masks(self, mask: LegalMask, rows: tuple[int, int]) -> list[Tensor]:
        """Masks (B, T, n) or (n,) → one (B·T, n) a discrete leaf."""
        if mask is None:
            return []
        return legal_masks(self.actions.space, _flatten(mask), rows[0] * rows[1], self.device, strict=self.strict_masks)


def _flatten(mask: LegalMask) -> LegalMask:
    if isinstance(mask, Mapping):
        return {key: _flatten(part) for key, part in mask.items()}
    if isinstance(mask, tuple | list) and not isinstance(mask[0], int | float | bool):
        return tuple(_flatten(part) for part in mask)
    tensor = torch.as_tensor(mask)
    return tensor.flatten(0, 1) if tensor.dim() > 2 else tensor
