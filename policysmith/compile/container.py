"""A registry of live components that runs them in the order of their keys.

Execution state is per call: nothing is cached between calls, so a swapped component is never answered for by its
predecessor, and a component whose input and output share a key runs like any other. What is found out about components
(their order) is published whole, so any number of threads may call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from tensordict.nn import TensorDictModuleBase
from torch import nn

from policysmith.compile.exclusive import exclusive
from policysmith.compile.line import Line
from policysmith.errors import WiringError
from policysmith.graph.spec import name_problem
from policysmith.graph.wiring import topological_order

__all__ = ["ComponentContainer"]


class ComponentContainer(nn.ModuleDict):
    """Named components (anything with `in_keys` and `out_keys`), wired by their keys."""

    def __init__(self, components: Mapping[str, nn.Module] | None = None) -> None:
        self._declared: dict[str, tuple[str, ...]] = {}
        self._arrangement: _Arrangement | None = None
        super().__init__()
        for name, module in (components or {}).items():
            self._register(name, module)
        self._prepare()

    def register_component(self, name: str, module: nn.Module, dependencies: Sequence[str] | None = None) -> None:
        """Add a component. Keys decide the order; declared `dependencies` are checked against them."""
        with exclusive(self):
            self._register(name, module)
            if dependencies:
                self._declared[name] = tuple(dependencies)
            self._prepare()

    def replace_component(self, name: str, module: nn.Module) -> nn.Module:
        """Put another module in a component's place and return the one before; a failure changes nothing."""
        with exclusive(self):
            if name not in self:
                raise WiringError(f"no component {name!r} to replace; there are: {', '.join(self)}")
            self._check_module(name, module)
            self._sort({**self._modules, name: module})  # raises before anything has changed
            before = self[name]
            self[name] = module
            self._prepare()
            return before

    def __delitem__(self, name: str) -> None:
        with exclusive(self):
            super().__delitem__(name)
            self._declared.pop(name, None)

    def execute(self, mapping: Any) -> Any:
        """Run every component on a plain mapping or a TensorDict, which is written to and returned.

        An exception carries a note that names the component.
        """
        line = self._arranged().line
        return (self._arrange().line if line.is_stale() else line).run(mapping)

    forward = execute

    def execution_order(self) -> list[str]:
        """Names in the order they run: producers first, ties in the order of registration."""
        return list(self._arranged().order)

    def arranged(self) -> dict[str, nn.Module]:
        """The components by name, in the order they run."""
        arrangement = self._arranged()
        return dict(zip(arrangement.order, arrangement.line.components, strict=True))

    def validate(self) -> None:
        """Raise `WiringError` for a key written twice, a cycle, or a declared dependency that is none."""
        self._sort(self._modules)

    def _register(self, name: str, module: nn.Module) -> None:
        if name in self:
            raise WiringError(f"component {name!r} exists already; replace_component swaps it")
        if problem := name_problem(name):
            raise WiringError(problem)
        self._check_module(name, module)
        self[name] = module

    def _prepare(self) -> None:
        """Arrange the components before they are called: torch.compile can't follow the sorting of names.

        What stands in the way is told at the call: the component that mends it may be still to come.
        """
        with suppress(Exception):
            self._arrange()

    def _arranged(self) -> _Arrangement:
        """The order, found anew if a component is another than when it was found, whoever put it there."""
        arrangement = self._arrangement
        if arrangement is None or [*self._modules.values()] != arrangement.components:
            return self._arrange()
        return arrangement

    def _arrange(self) -> _Arrangement:
        with exclusive(self):
            modules = dict(self._modules)
            order = self._sort(modules)
            self._arrangement = _Arrangement([*modules.values()], order, Line(self, order))
            return self._arrangement

    def _sort(self, modules: Mapping[str, nn.Module | None]) -> list[str]:
        needs = _needs(modules)
        for name, declared in self._declared.items():
            for other in declared:
                if other not in modules:
                    raise WiringError(f"{name!r} declares a dependency on {other!r}, which does not exist")
                if other not in needs[name]:
                    raise WiringError(f"{name!r} declares a dependency on {other!r} but reads nothing that it writes")
        cycles: list[list[str]] = []
        order = topological_order(needs, cycles.append)
        if order is None:
            raise WiringError(f"components form a cycle: {' → '.join(cycles[0])}")
        return order

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrangement": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._prepare()

    @staticmethod
    def _check_module(name: str, module: object) -> None:
        if not isinstance(module, nn.Module):
            raise WiringError(f"component {name!r} must be a module, found {type(module).__name__}")
        if not TensorDictModuleBase.is_tdmodule_compatible(module):
            raise WiringError(
                f"{type(module).__name__} has no in_keys and out_keys; "
                f"use TensorComponent({type(module).__name__}(…), in_keys=[…], out_keys=[{name!r}])"
            )


class _Arrangement(NamedTuple):
    """These components in this order, and what runs them."""

    components: list[nn.Module | None]
    order: list[str]
    line: Line


def _needs(modules: Mapping[str, Any]) -> dict[str, list[str]]:
    """For each component those that write what it reads."""
    producers: dict[Any, str] = {}
    for name, module in modules.items():
        for key in module.out_keys:
            if key in producers:
                raise WiringError(f"{key!r} is written twice, by {producers[key]!r} and by {name!r}")
            producers[key] = name
    return {
        name: [producers[k] for k in module.in_keys if k in producers and producers[k] != name]
        for name, module in modules.items()
    }
