"""PolicyState: the state of a policy with memory as one TensorClass. B is the batch.

In: the plain dict that `init_state` and `act` give, `<component>/<name>` → tensor with the batch first. Out: a view of
it that is indexed, stacked and moved whole, and the same dict again. No tensor is copied on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from tensordict import TensorClass, TensorDict
from torch import Tensor

from policysmith.errors import ShapeError
from policysmith.ops.reset_state import State

__all__ = ["PolicyState"]


class PolicyState(TensorClass):
    """A view of a state: `state[3:5]`, `torch.stack(states)`, `state.to(device)`; its batch size is [B].

    `memory` is a TensorDict whose keys are those of the plain dict, flat: a name with a slash is one key.
    """

    memory: TensorDict

    @classmethod
    def of(cls, state: Mapping[str, Tensor], batch: int | None = None) -> Self:
        """The view of a plain state; `batch` is needed only where the state is empty.

        Raises `ShapeError` naming the entries whose first dimension is not that of the others.
        """
        rows = {name: tensor.shape[0] if tensor.dim() else None for name, tensor in state.items()}
        if batch is None:
            if not rows:
                raise ShapeError("an empty state has no number of rows: give batch")
            batch = next(iter(rows.values()))
        if batch is None or any(found != batch for found in rows.values()):
            told = ", ".join(f"{name!r} {tuple(tensor.shape)}" for name, tensor in state.items())
            raise ShapeError(f"a state has its batch first, the same everywhere; found {told}")
        return cls(memory=TensorDict(dict(state), batch_size=[batch]), batch_size=[batch])

    def plain(self) -> State:
        """The dict that `act` and `evaluate` take: the same tensors."""
        memory: Any = self.memory
        return dict(memory.items())
