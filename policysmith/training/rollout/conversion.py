"""Between environments and a policy: observations to tensors, and actions to what a step takes.

In: a policy. Out: functions bound to it that do no more than its spaces ask for: each is called at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policysmith.policy.actor_critic import ActorCritic

__all__ = ["action_writer", "preparer"]

FLOAT = np.dtype(np.float32)


def preparer(policy: ActorCritic) -> Callable[[Any], Any]:
    """`policy.prepare`; an array (N, …) of float vectors is only wrapped, where that is all that is to be done."""
    leaves = policy.observations.leaves
    simple = len(leaves) == 1 and leaves[0].path == () and policy.observations.mask_path is None
    if not simple or leaves[0].spec.dtype != torch.float32 or policy.device.type != "cpu":
        return policy.prepare
    shape = tuple(leaves[0].spec.shape)

    def wrap(observation: Any) -> Any:
        """Of another type or shape, `prepare` makes it fit, or says why it does not."""
        if type(observation) is np.ndarray and observation.dtype == FLOAT and observation.shape[1:] == shape:
            return torch.from_numpy(observation)
        return policy.prepare(observation)

    return wrap


def action_writer(policy: ActorCritic) -> Callable[[Any], Any]:
    """Draw → what the environment's step takes; a single discrete action on the CPU is only unwrapped."""
    actions = policy.actions
    if actions.squashed:
        return lambda draw: actions.to_environment(actions.action_of(draw))
    if not actions.composite and actions.discrete and policy.device.type == "cpu":
        return Tensor.numpy
    return actions.to_environment
