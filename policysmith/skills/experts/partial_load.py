"""A checkpoint of some experts into a model of these and new ones: every expert whole, or not at all.

In: a model, a checkpoint, an optimiser. Out: the model changed in place, and a report of what was kept and what is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from policysmith.errors import SkillError
from policysmith.skills.experts.moe_checkpoint import MoECheckpoint
from policysmith.skills.experts.parameter_names import expert_name

__all__ = ["LoadReport", "load_experts", "moments_of", "restore_moments"]


@dataclass(frozen=True)
class LoadReport:
    """Parameters by name: `kept` come from the checkpoint, `new` stay as they were; `mismatched` says why, by name."""

    kept: tuple[str, ...]
    new: tuple[str, ...]
    mismatched: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"{len(self.kept)} parameters kept, {len(self.new)} new, {len(self.mismatched)} mismatched"]
        return "\n".join([*lines, *(f"  {name}: {why}" for name, why in self.mismatched.items())])


def load_experts(model: nn.Module, checkpoint: MoECheckpoint, *, strict: bool = True) -> LoadReport:
    """Copy a checkpoint's experts over a model's, by local index.

    An expert with a tensor missing, left over or of another shape is not touched, and `SkillError` tells of all of them
    before anything is copied; without `strict` the others are loaded and the report tells.
    """
    own = _parameters(model)
    given = {found: tensor for name, tensor in checkpoint.weights.items() if (found := expert_name(name)) is not None}
    mismatched = {}
    for name in sorted(set(own) | set(given), key=str):
        held = {found.number for found in given}
        if name in own and name not in given and name.number in held:
            mismatched[name] = "is missing from the checkpoint, which has other parts of this expert"
        elif name in given and name not in own:
            mismatched[name] = "is not in the model"
        elif name in given and own[name].shape != given[name].shape:
            mismatched[name] = f"has shape {tuple(given[name].shape)}, and in the model {tuple(own[name].shape)}"
    broken = {name.number for name in mismatched}
    kept = [name for name in given if name.number not in broken]
    told = {name.numbered: why for name, why in mismatched.items()}
    report = LoadReport(
        tuple(name.numbered for name in kept), tuple(n.numbered for n in own if n not in set(kept)), told
    )
    if strict and mismatched:
        raise SkillError(f"nothing was loaded: {report}")
    with torch.no_grad():
        for name in kept:
            own[name].copy_(given[name])
    return report


def moments_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's moments of every expert that has any: `actor_networks_0.layers_0.weight/exp_avg` → tensor."""
    return {
        f"{name.numbered}/{key}": tensor.detach().clone()
        for name, parameter in _parameters(model).items()
        for key, tensor in optimizer.state.get(parameter, {}).items()
        if isinstance(tensor, Tensor)
    }


def restore_moments(
    optimizer: torch.optim.Optimizer, model: nn.Module, moments: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Give the optimiser back what `moments_of` took; returns the parameters. Others start without moments.

    Raises `SkillError` for moments of parameters that the model does not have, or not in this shape; nothing is
    restored then.
    """
    own = {name.numbered: parameter for name, parameter in _parameters(model).items()}
    states: dict[str, dict[str, Any]] = {}
    for key, tensor in moments.items():
        name, _, moment = key.rpartition("/")
        if name not in own or (tensor.dim() and tensor.shape != own[name].shape):
            found = tuple(own[name].shape) if name in own else "not there"
            raise SkillError(f"the moments {key} of shape {tuple(tensor.shape)} fit no parameter: it is {found}")
        like = tensor.clone()
        if tensor.dim():  # fused kernels walk memory: a moment must lie as its parameter does
            like = torch.empty_like(own[name], dtype=tensor.dtype, requires_grad=False).copy_(tensor)
        states.setdefault(name, {})[moment] = like
    for name, state in states.items():
        optimizer.state[own[name]] = state
    return tuple(states)


def _parameters(model: nn.Module) -> dict[Any, nn.Parameter]:
    named = {found: parameter for name, parameter in model.named_parameters() if (found := expert_name(name))}
    if not named:
        raise SkillError(f"{type(model).__name__} has no experts: parameters actor_networks_<i>.layers_<n>.…")
    if any(map(is_lazy, named.values())):
        raise SkillError(f"{type(model).__name__} does not know its number of features yet: give in_features")
    return named
