"""Components with memory: what they keep between steps is an argument and a result. B rows, T steps.

State lies beside the other edges under `<component>/<name>`, batch first. One step reads and writes it; a sequence
starts from it, and `is_init` (B, T) marks the steps that begin an episode.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensordict import TensorDictBase
from torch import Tensor, nn

from policysmith.errors import ShapeError
from policysmith.graph.component import Key, TensorComponent, TensorMapping, read_key, write_key
from policysmith.ops.join_features import join_features
from policysmith.ops.reset_state import State, reset_state

__all__ = ["FIRST", "MemoryComponent", "has_memory"]

FIRST = "is_init"


def has_memory(module: object) -> bool:
    """Whether a module keeps something between steps: it offers `initial_state` and `unroll`."""
    return callable(getattr(module, "initial_state", None)) and callable(getattr(module, "unroll", None))


class MemoryComponent(TensorComponent):
    """A module with memory as a component.

    `forward(mapping)` takes one step for inputs (B, *event), or T steps for (B, T, *event): `ndim` is the number of
    dimensions of one row of the first input. It reads the state from `<name>/<key>` (absent: the initial one) and
    `is_init` (absent: no episode begins), and writes the output and the state after. A TensorDict of batch (B, T) holds
    the state of every step: the first of them is read, and they stay.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        ndim: int,
        in_keys: Sequence[Key] | None = None,
        out_keys: Sequence[Key] | None = None,
        arguments: Sequence[str] | None = None,
        event_ndims: Sequence[int] | None = None,
    ) -> None:
        super().__init__(module, in_keys, out_keys, arguments, event_ndims)
        self.name, self.ndim = name, ndim

    def initial_state(self, batch: int) -> State:
        """The module's own."""
        state: State = self.module.initial_state(batch)  # type: ignore[operator]
        return state

    def forward(self, mapping: TensorMapping) -> TensorMapping:
        """Step or unroll, by the number of dimensions of the input."""
        tensors = [read_key(mapping, key) for key in self.in_keys]
        try:
            y, after = self._advance(mapping, tensors)
        except (RuntimeError, ValueError, IndexError) as error:
            if problem := self.shape_error(tensors):
                raise ShapeError(problem) from error
            raise
        write_key(mapping, self.out_keys[0], y)
        if not (isinstance(mapping, TensorDictBase) and mapping.ndim > 1):
            for key, tensor in after.items():
                write_key(mapping, f"{self.name}/{key}", tensor)
        return mapping

    def _advance(self, mapping: TensorMapping, tensors: Sequence[Tensor]) -> tuple[Tensor, State]:
        """The output and the state after, of one step or of a sequence."""
        if tensors[0].dim() - self.ndim not in (1, 2):
            found = tuple(tensors[0].shape)
            raise ShapeError(f"{self.in_keys[0]!r} must be a step (B, …) or a sequence (B, T, …), found {found}")
        x, sequence = self.joined(tensors), tensors[0].dim() - self.ndim == 2
        first, aux = mapping.get(FIRST, None), self.sink(mapping)
        initial = self.module.initial_state(len(x))  # type: ignore[operator]
        state = {key: _get(mapping, f"{self.name}/{key}", tensor) for key, tensor in initial.items()}
        if first is not None:
            first = first.reshape(x.shape[: 2 if sequence else 1]).bool()
        if sequence:
            return self.module.unroll(x, state, first, **aux)  # type: ignore[operator]
        given = state if first is None else reset_state(state, initial, first)
        return self.module(x, given, **aux)

    def joined(self, tensors: Sequence[Tensor]) -> Tensor:
        """The module's one input."""
        return join_features(tensors, self.event_ndims) if self.event_ndims is not None else tensors[0]


def _get(mapping: TensorMapping, key: str, default: Tensor) -> Tensor:
    found = mapping.get(key, None)
    if found is None:
        return default
    return found[:, 0] if isinstance(mapping, TensorDictBase) and mapping.ndim > 1 else found
