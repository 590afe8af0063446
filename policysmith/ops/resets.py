"""Where episodes begin within a sequence, and what that means for a recurrence. T time, B batch, H features."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

__all__ = ["Resets", "runs_eagerly"]


@dataclass(frozen=True)
class Resets:
    """The resets inside a sequence, time first. Step 0 is not among them: the state that enters it comes reset."""

    first_TB1: Tensor | None

    @classmethod
    def of(cls, first_BT: Tensor | None) -> Resets:
        """From the marks of a batch of sequences (B, T) bool; None when nothing resets."""
        return cls(None if first_BT is None else first_BT.T.unsqueeze(-1))

    @cached_property
    def steps(self) -> frozenset[int]:
        """Steps at which some row resets. Reads the tensor, so not for compiled code."""
        if self.first_TB1 is None:
            return frozenset()
        marked = self.first_TB1.flatten(1).any(1).tolist()
        return frozenset(t for t, any_row in enumerate(marked) if any_row and t)

    def enter(self, t: int, before_BH: Tensor, initial_1H: Tensor) -> Tensor:
        """The state that step t sees: that before it, but the initial one in rows that reset."""
        if self.first_TB1 is None or t == 0:
            return before_BH
        return torch.where(self.first_TB1[t], initial_1H, before_BH)

    def enter_all(self, start_BH: Tensor, after_TBH: Tensor, initial_1H: Tensor) -> Tensor:
        """The states that all steps see (T, B, H), from that before the first and those after each."""
        before_TBH = torch.cat([start_BH.unsqueeze(0), after_TBH[:-1]])
        if self.first_TB1 is not None:
            before_TBH[1:] = torch.where(self.first_TB1[1:], initial_1H, before_TBH[1:])
        return before_TBH

    def leave_(self, t: int, d_before_BH: Tensor, d_initial_1H: Tensor | None) -> None:
        """The gradient of `enter`, in place: what rows that reset pass back is the initial state's (None: dropped)."""
        if t not in self.steps:
            return
        assert self.first_TB1 is not None
        first_B1 = self.first_TB1[t]
        if d_initial_1H is not None:
            d_initial_1H.add_(d_before_BH.masked_fill(~first_B1, 0).sum(0, keepdim=True))
        d_before_BH.masked_fill_(first_B1, 0)


def runs_eagerly(*tensors: Tensor) -> bool:
    """Whether these are plain tensors with values: Python may branch on them, hand-written gradients may be used."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and all(type(tensor) in (Tensor, nn.Parameter) and not tensor.is_meta for tensor in tensors)
    )
