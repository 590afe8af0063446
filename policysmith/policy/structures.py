"""The types of what has the structure of a space: one leaf, or the leaves of a Dict or Tuple space by key or index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from tensordict import TensorDictBase
from torch import Tensor

__all__ = ["Arrays", "LegalMask", "Observation", "Tensors"]

Tensors: TypeAlias = "Tensor | Mapping[Any, Tensors] | Sequence[Tensors]"
"""A batch of observations or actions."""

Observation: TypeAlias = "Tensors | TensorDictBase"
"""What a policy is called with: a batch of observations, or a TensorDict that holds one."""

Arrays: TypeAlias = "np.ndarray | np.generic | int | float | Mapping[Any, Arrays] | Sequence[Arrays]"
"""What an environment gives and takes: one observation or action, or a batch."""

LegalMask: TypeAlias = "Tensor | np.ndarray | Sequence[Any] | Mapping[Any, LegalMask] | None"
"""Legal actions in the structure of the action space; None is all legal, or what the observation says."""
