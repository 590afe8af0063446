"""A policy at the edge of a TensorDict: where its observation and its mask of legal actions lie."""

from __future__ import annotations

from tensordict import TensorDictBase

from policysmith.policy.observations import MASK, ROOT
from policysmith.policy.structures import LegalMask, Tensors

__all__ = ["mask_in", "observation_in"]


def observation_in(tensordict: TensorDictBase) -> Tensors:
    """The observation in a TensorDict: under `observation`, or (as TorchRL has Dict spaces) its leaves at the top."""
    found = tensordict[ROOT] if ROOT in tensordict.keys() else tensordict  # noqa: SIM118 - not a dict
    return found.to_dict() if isinstance(found, TensorDictBase) else found


def mask_in(tensordict: TensorDictBase, given: LegalMask = None) -> LegalMask:
    """The mask given beside a TensorDict, or the one in it, or None."""
    return tensordict.get(MASK, None) if given is None else given
