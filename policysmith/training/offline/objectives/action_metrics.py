"""How well a policy's actions agree with the recorded ones: accuracy of choices, squared error of numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from policysmith.policy.actor_critic import ActorCritic
from policysmith.training.offline.batches import Batch, parameters_of

__all__ = ["action_metrics"]


@torch.no_grad()
def action_metrics(policy: ActorCritic, batch: Batch) -> dict[str, Tensor]:
    """`accuracy`: how often the likeliest choices are the recorded; `mse`: the mean squared error of numbers."""
    params = parameters_of(policy, batch)
    kept = slice(None) if batch.valid is None else batch.valid
    chosen, _ = policy.actions.choose(params, [mask[kept] for mask in batch.masks], deterministic=True)
    right: list[Tensor] = []
    errors: list[Tensor] = []
    for leaf, ours, theirs in zip(policy.actions.leaves, chosen, batch.actions, strict=True):
        if leaf.mask_width:
            right.append((ours == theirs[kept]).float().mean())
        else:
            errors.append((ours - theirs[kept]).square().mean())
    told = {"accuracy": right, "mse": errors}
    return {name: torch.stack(values).mean() for name, values in told.items() if values}
