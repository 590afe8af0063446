"""Executors: in which manner the components of a container, or the steps of a policy, are run.

In: a container and a mapping. Out: the mapping, written to. The order is that of the keys; results are the same bits.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from policysmith.compile.exclusive import exclusive
from policysmith.compile.executors.branches import Branches, Streams, Threads
from policysmith.compile.executors.groups import Group, Unit, grouped
from policysmith.compile.guards import has_hooks
from policysmith.compile.measured_choice import Trials, alike, drew
from policysmith.compile.plan_steps import MemoryStep
from policysmith.compile.step import Step, run_steps, settled
from policysmith.graph.component import AUX, Component, read_key, write_key
from policysmith.graph.memory_component import FIRST, MemoryComponent

__all__ = ["Executor", "ParallelExecutor", "SequentialExecutor"]


class Container(Protocol):
    """What holds the components that an executor runs: a `ComponentContainer`."""

    training: bool

    def execute(self, mapping: Any) -> Any:
        """Run them one after the other."""

    def arranged(self) -> dict[str, nn.Module]:
        """The components by name, in the order they run."""


class Executor(ABC):
    """Abstract: what runs components."""

    @abstractmethod
    def execute(self, container: Container, mapping: Any) -> Any:
        """Run every component on a plain mapping or a TensorDict, which is written to and returned.

        An exception carries a note that names the component.
        """


class SequentialExecutor(Executor):
    """One after the other."""

    def execute(self, container: Container, mapping: Any) -> Any:
        """Run every component on a plain mapping or a TensorDict, which is written to and returned."""
        return container.execute(mapping)


class ParallelExecutor(Executor):
    """Independent branches side by side: on threads, or on CUDA streams where the tensors are there.

    Only where that is faster. The first calls with inputs of some shapes alternate between both manners and are timed;
    the faster one makes the rest. `force` leaves out the trial. Calls run one after the other where nothing stands side
    by side, where components draw random numbers (their order decides what they get), under transforms, tracing,
    compilation and hooks of saved tensors (which other threads would not see), and inside a branch of another call.

    Components that override `forward`, wrappers among them, and those with hooks may touch more than their keys, so
    they run alone and at their place. Outputs are the same bits; gradients too, up to the order in which those of three
    or more readers of one tensor are added. `close()` ends the threads; they are made when first needed.
    """

    def __init__(self, workers: int | None = None, force: bool = False) -> None:
        self.force = force
        self._threads, self._streams = Threads(workers), Streams()
        self._known: Any = weakref.WeakKeyDictionary()  # container → its components, and what was found with them

    def execute(self, container: Container, mapping: Any) -> Any:
        """Run every component on a plain mapping or a TensorDict, which is written to and returned."""
        sequence = isinstance(mapping, TensorDictBase) and mapping.ndim > 1
        components = container.arranged()
        groups = grouped(tuple(_unit(name, component, sequence) for name, component in components.items()))
        keys = [key for group in groups for key in group.inputs]
        if not keys or AUX in mapping.keys() or self.stays_in_order():  # noqa: SIM118 - a TensorDict is no dict
            return container.execute(mapping)
        inputs = [_get(mapping, key) for key in keys]
        device = _device(inputs)
        return self._trials(container, list(components.values())).run(
            (container.training, *alike(inputs)),
            lambda: drew(lambda: container.execute(mapping), device),
            lambda: container.execute(mapping),
            lambda: self._side_by_side(components, groups, mapping, device),
            device,
        )

    def run_steps(self, steps: Sequence[Step], values: dict[str, Any]) -> dict[str, Any]:
        """A policy's steps, side by side where they can be; `values` gains every edge."""
        if AUX in values or self.stays_in_order():
            return run_steps(steps, values)
        steps = settled(steps)
        by_name = {step.name: step for step in steps}
        for group in grouped(tuple(map(_unit_of_step, steps))):
            if group.branches is None:
                run_steps([by_name[unit.name] for unit in group.units], values)
            else:
                device = _device([values.get(key) for key in group.inputs])
                self._run(group.branches, lambda name: by_name[name](values), group, values, device)
        return values

    def can_branch(self, steps: Sequence[Step]) -> bool:
        """Whether any of a policy's steps stand side by side."""
        return any(group.branches for group in grouped(tuple(map(_unit_of_step, steps))))

    def stays_in_order(self) -> bool:
        """Whether other threads would not see what this one computes under, or this is one of them."""
        return (
            self._threads.inside
            or torch.compiler.is_compiling()
            or torch._C._get_tracing_state() is not None
            or torch._C._are_functorch_transforms_active()
            or torch._C._len_torch_dispatch_stack() > 0
            or torch._C._len_torch_function_stack() > 0
            or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
        )

    def close(self) -> None:
        """End the threads; a later call starts new ones."""
        self._threads.close()

    def _side_by_side(self, components: Mapping[str, Any], groups: Sequence[Group], mapping: Any, device: Any) -> Any:
        for group in groups:
            if group.branches is None:
                for unit in group.units:
                    _noted(unit.name, components[unit.name], mapping)
                continue
            values = {key: _get(mapping, key) for key in group.inputs}
            written: dict[str, dict[Any, Any]] = {}

            def call(name: str, group: Group = group, values: Any = values, written: Any = written) -> None:
                unit = next(unit for unit in group.units if unit.name == name)
                written[name] = _alone(unit, components[name], values)
                values.update(written[name])

            self._run(group.branches, call, group, values, device)
            for unit in group.units:
                for key, value in written[unit.name].items():
                    write_key(mapping, key, value)
        return mapping

    def _run(
        self, branches: Branches, call: Callable[[str], object], group: Group, values: dict[Any, Any], device: Any
    ) -> None:
        """The call for every name of every chain."""

        def chain(i: int) -> None:
            for name in branches.chains[i]:
                try:
                    call(name)
                except Exception as error:
                    _note(error, name)
                    raise

        def wrote(i: int) -> Iterable[Any]:
            keys = [key for unit in group.units if unit.name in branches.chains[i] for key in unit.writes]
            return [values[key] for key in keys if isinstance(values.get(key), Tensor)]

        if device.type == "cuda":
            self._streams.run(branches, chain, wrote)
        else:
            self._threads.run(branches, chain)

    def _trials(self, container: Container, components: list[nn.Module]) -> Trials:
        """What was found with the components that a container has now."""
        with exclusive(self):
            before, trials = self._known.get(container, (None, None))
            if before is None or len(before) != len(components) or any(map(_differ, before, components)):
                trials = Trials(self.force)
                self._known[container] = (components, trials)
            return trials

    def __getstate__(self) -> dict[str, Any]:
        return {"workers": self._threads.workers, "force": self.force}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _unit(name: str, component: Any, sequence: bool) -> Unit:
    """What a container's component touches; `sequence`: the mapping is a TensorDict of whole sequences."""
    reads, writes = tuple(component.in_keys), tuple(component.out_keys)
    if has_hooks(component) or not isinstance(component, Component):
        return Unit(name, reads, writes, alone=True)
    if type(component).forward is MemoryComponent.forward and not sequence:
        state = tuple(f"{component.name}/{key}" for key in component.initial_state(1))
        return Unit(name, (*reads, *state, FIRST), (*writes, *state))
    return Unit(name, reads, writes, alone=type(component).forward is not Component.forward)


def _unit_of_step(step: Step) -> Unit:
    edges = tuple(step.edges) if isinstance(step, MemoryStep) else ()
    reads = (*step.sources, *edges, FIRST) if edges else step.sources
    return Unit(step.name, reads, (*step.outputs, *edges), alone=step.opaque)


def _alone(unit: Unit, component: nn.Module, values: dict[Any, Any]) -> dict[Any, Any]:
    """What a component that touches only its keys writes."""
    own: dict[Any, Any] = {}
    for key in unit.reads:
        if values.get(key) is not None:
            write_key(own, key, values[key])
    component(own)
    return {key: read_key(own, key) for key in unit.writes}


def _noted(name: str, component: nn.Module, mapping: Any) -> None:
    try:
        component(mapping)
    except Exception as error:
        _note(error, name)
        raise


def _note(error: Exception, name: str) -> None:
    error.add_note(f"in component {name!r}")


def _get(mapping: Any, key: Any) -> Any:
    """The value at a key, or None."""
    try:
        return read_key(mapping, key)
    except KeyError:
        return None


def _device(tensors: Iterable[Any]) -> torch.device:
    return next((x.device for x in tensors if isinstance(x, Tensor)), torch.device("cpu"))


def _differ(a: object, b: object) -> bool:
    return a is not b
