"""Components with memory: what they keep between steps is an argument and a result. B rows, T steps.

State lies beside the other edges under `<component>/<name>`, batch first. One step reads and writes it; a sequence
starts from it, and `is_init` (B, T) marks the steps that begin an episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensordict import TensorDictBase
from torch import Tensor, nn

from policysmith.errors import ShapeError
from policysmith.graph.component import Key, TensorComponent, read_key, write_key
from policysmith.graph.program import Step, enter, leave
from policysmith.graph.trace import has_hooks
from policysmith.ops.features import join_features
from policysmith.ops.state import State, reset_state

__all__ = ["FIRST", "MemoryComponent", "MemoryStep", "SequenceStep", "has_memory"]

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

    def forward(self, mapping: Any) -> Any:
        """Step or unroll, by the number of dimensions of the input."""
        tensors = [read_key(mapping, key) for key in self.in_keys]
        try:
            y, after = self._advance(mapping, tensors)
        except (RuntimeError, ValueError, IndexError) as error:
            if problem := self.misfit(tensors):
                raise ShapeError(problem) from error
            raise
        write_key(mapping, self.out_keys[0], y)
        if not (isinstance(mapping, TensorDictBase) and mapping.ndim > 1):
            for key, tensor in after.items():
                write_key(mapping, f"{self.name}/{key}", tensor)
        return mapping

    def _advance(self, mapping: Any, tensors: Sequence[Tensor]) -> tuple[Tensor, State]:
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


def _get(mapping: Any, key: str, default: Tensor) -> Tensor:
    found = mapping.get(key, None)
    if found is None:
        return default
    return found[:, 0] if isinstance(mapping, TensorDictBase) and mapping.ndim > 1 else found


class MemoryStep(Step):
    """One step of a component with memory; its state (`keys`) is read from and written to the values."""

    def __init__(self, step: Step, keys: Sequence[str]) -> None:
        super().__init__(step.store, step.name, step.sources, step.outputs, takes_aux=step.takes_aux)
        self.keys = tuple(keys)

    @property
    def edges(self) -> list[str]:
        """The names of its state among the values."""
        return [f"{self.name}/{key}" for key in self.keys]

    @staticmethod
    def is_opaque(component: Any) -> bool:
        """Whether a component must be called with a mapping."""
        return type(component).forward is not MemoryComponent.forward or has_hooks(component)

    def __call__(self, values: dict[str, Any]) -> None:
        """Read the inputs and the state, write the output and the state after."""
        *passed, component = self.layers_for(values)
        if self.is_opaque(component):
            self._call_whole(values)
            return
        tensors = [values[name] for name in self.sources]
        enter(passed, tensors)
        x = component.joined(tensors)
        state: State = dict(zip(self.keys, (values[edge] for edge in self.edges), strict=True))
        result = component.module(x, state, **self.aux(values))
        values[self.outputs[0]] = leave(passed, result[0])  # by index, since a traced call's result can't be unpacked
        values.update((edge, result[1][key]) for edge, key in zip(self.edges, self.keys, strict=True))
        self.report(values)

    def _call_whole(self, values: dict[str, Any], extra: Mapping[str, Any] | None = None) -> None:
        written = self.through_mapping(values, [*self.sources, *self.edges], extra)
        values.update((edge, written[edge]) for edge in (*self.outputs, *self.edges))


class SequenceStep(MemoryStep):
    """T steps of a component with memory. Other edges are flat, (B·T, …); `is_init` among the values tells B and T."""

    def __call__(self, values: dict[str, Any]) -> None:
        """Unroll from the state; the state after is that of the last step."""
        (*passed, component), first = self.layers, values[FIRST]
        rows = first.shape
        sources = {name: values[name].unflatten(0, rows) for name in self.sources}
        if self.is_opaque(component):
            inner = {**values, **sources}
            self._call_whole(inner, {FIRST: first})
            values.update({edge: inner[edge] for edge in self.edges})
            values.update({name: inner[name].flatten(0, 1) for name in self.outputs})
            return
        state: State = dict(zip(self.keys, (values[edge] for edge in self.edges), strict=True))
        tensors = list(sources.values())
        enter(passed, tensors)
        y, after = component.module.unroll(component.joined(tensors), state, first, **self.aux(values))
        values[self.outputs[0]] = leave(passed, y).flatten(0, 1)
        values.update((edge, after[key]) for edge, key in zip(self.edges, self.keys, strict=True))
        self.report(values)
