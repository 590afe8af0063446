"""The steps of a plan's nodes: what runs one over live components, for one step in time or for a sequence.

In: a node of a plan, and the store of live components. Out: a `Step`, which reads and writes values by edge name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from policysmith.compile.guards import has_hooks
from policysmith.compile.step import Step, enter, leave
from policysmith.graph.memory_component import FIRST, MemoryComponent
from policysmith.graph.plan import NodePlan
from policysmith.ops.reset_state import State

__all__ = ["MemoryStep", "SequenceStep", "step_of"]


def step_of(node: NodePlan, store: nn.ModuleDict, *, sequence: bool = False) -> Step:
    """A node in a program over the live components of `store`: of one step, or of a sequence."""
    step = Step(store, node.name, node.sources, node.spec.out_keys, takes_aux=node.measure.takes_aux)
    if not node.measure.state:
        return step
    return (SequenceStep if sequence else MemoryStep)(step, [key for key, _ in node.measure.state])


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
