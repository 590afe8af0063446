"""A step: one component in a program, where its tensors come from and where they go.

In: the store of live components, and values by edge name. Out: the values, with what the component gives.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

from torch import Tensor, nn
from torch.compiler import is_compiling

from policysmith.compile.exclusive import exclusive
from policysmith.compile.guards import Watch, has_hooks
from policysmith.compile.stand_in import stand_in
from policysmith.graph.component import AUX, Component, TensorComponent, as_key, write_key
from policysmith.graph.module_view import layers
from policysmith.ops.join_features import join_features

__all__ = ["Step", "enter", "leave", "run_steps", "settled", "steps_for"]


class Step:
    """One component in a program: where its tensors come from and where they go.

    The component is looked up in `store` each time, so a swapped one takes its predecessor's place.
    """

    def __init__(
        self, store: nn.ModuleDict, name: str, sources: Sequence[str], outputs: Sequence[str], takes_aux: bool = False
    ) -> None:
        self.store, self.name = store, name
        self.owner = store  # whose lock swaps hold
        self.sources, self.outputs = tuple(sources), tuple(outputs)
        self.takes_aux = takes_aux

    @property
    def live(self) -> Any:
        """The live component, wrappers and all."""
        return self.store[self.name]

    @property
    def component(self) -> Any:
        """What of the live component computes: transparent wrappers are left out, unless someone hooked in."""
        return self.layers[-1]

    @property
    def layers(self) -> list[Any]:
        """The live component's wrappers that are left out, the outermost first, and what is not."""
        passed = []
        for layer in layers(self.live):
            passed.append(layer)
            if not getattr(layer, "transparent", False) or has_hooks(layer):
                break
        return passed

    def settled(self) -> Self:
        """The same step with the component that is live now, whatever takes its place."""
        fixed = copy.copy(self)
        fixed.store = fixed.owner = {self.name: self.store[self.name]}  # type: ignore[assignment]
        return fixed

    def layers_for(self, values: Mapping[str, Any]) -> list[Any]:
        """The layers, or where these values are traced (one of them tells) what stands for the layers."""
        traced = self._one_of(values)
        return [stand_in(layer, traced) for layer in self.layers]

    def _one_of(self, values: Mapping[str, Any]) -> Any:
        """One of its own inputs; steps that run beside this one may be adding their outputs to the values."""
        return values[self.sources[0]] if self.sources else next(iter(list(values.values())), None)

    @property
    def watch(self) -> Watch:
        """Where code made for this component must find the same object again."""
        return Watch(self.store._modules, self.name, self.store[self.name])

    @property
    def opaque(self) -> bool:
        """Whether only `component(mapping)` says what it does: it overrides forward, or someone hooked into it."""
        return self.is_opaque(self.component)

    @staticmethod
    def is_opaque(component: Any) -> bool:
        """Whether a component must be called with a mapping."""
        own_forward = not isinstance(component, Component) or type(component).forward is not Component.forward
        return own_forward or has_hooks(component)

    def __call__(self, values: dict[str, Any]) -> None:
        """Read from and write to the values by edge name."""
        *passed, component = self.layers_for(values)
        if self.is_opaque(component):
            written = self.through_mapping(values, self.sources)
            values.update((name, written[as_key(name)]) for name in self.outputs)
            return
        tensors = [values[name] for name in self.sources]
        enter(passed, tensors)
        result = leave(passed, self._compute(component, tensors, self.aux(values)))
        if len(self.outputs) == 1:
            values[self.outputs[0]] = result
        else:
            # By index, since a traced call's result can't be iterated.
            values.update((name, result[i]) for i, name in enumerate(self.outputs))
        self.report(values)

    def report(self, values: Mapping[str, Any]) -> None:
        """Have the wrappers that were left out add their losses to the values' sink, if there is one."""
        if AUX in values and self.reports:
            self.live.report(values[AUX])

    @property
    def reports(self) -> bool:
        """Whether a wrapper has something to report."""
        return bool(getattr(self.live, "reports", ()))

    def aux(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The sink of auxiliary losses as an argument, where the values hold one and the module takes it."""
        return {AUX: values[AUX]} if self.takes_aux and AUX in values else {}

    def through_mapping(
        self, values: Mapping[str, Any], names: Sequence[str], extra: Mapping[str, Any] | None = None
    ) -> Any:
        """What the live component makes of a mapping with the named values and some more, and with their sink."""
        mapping: dict[Any, Any] = dict(extra or {})
        if AUX in values and (self.takes_aux or self.reports):
            mapping[AUX] = values[AUX]
        for name in names:
            write_key(mapping, as_key(name), values[name])
        return stand_in(self.live, self._one_of(values))(mapping)

    @staticmethod
    def _compute(component: Any, tensors: list[Tensor], aux: Mapping[str, Any]) -> Any:
        """`component.compute`, in operations that tracing sees through."""
        if type(component).compute is not TensorComponent.compute:
            return component.compute(*tensors, **aux)
        if component.event_ndims is not None:
            tensors = [join_features(tensors, component.event_ndims)]
        return component.apply_module(tensors, aux)


def enter(passed: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    """What wrappers that are left out do with inputs; the outermost first."""
    for wrapper in passed:
        if wrapper.enter is not None:
            wrapper.enter(*tensors)


def leave(passed: Sequence[Any], result: Any) -> Any:
    """What wrappers that are left out make of a result; the innermost first."""
    for wrapper in reversed(passed):
        if wrapper.leave is not None:
            result = wrapper.leave(result)
    return result


def steps_for(steps: Sequence[Step], wanted: Sequence[str]) -> list[Step]:
    """The steps that the wanted edges depend on, in order."""
    needed, chosen = set(wanted), []
    for step in reversed(steps):
        if needed.intersection(step.outputs):
            needed.update(step.sources)
            chosen.append(step)
    return chosen[::-1]


def run_steps(steps: Sequence[Step], values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run steps in order; `values` gains every edge. A swap by another thread meanwhile is for the next run."""
    for step in settled(steps):
        step(values)
    return values


def settled(steps: Sequence[Step]) -> Sequence[Step]:
    """The steps with the components that are live now: all from before a swap, or all from after it."""
    owner = next((step.owner for step in steps if isinstance(step, Step)), None)
    if owner is None or isinstance(owner, dict) or is_compiling():
        return steps  # settled before; and a compiler follows the live ones, since it knows no locks
    with exclusive(owner):
        return [step.settled() if isinstance(step, Step) else step for step in steps]
