"""A registry of live components that runs them in the order of their keys.

Execution state is per call: nothing is cached between calls, so a swapped component is never answered for by its
predecessor, and a component whose input and output share a key runs like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensordict.nn import TensorDictModuleBase
from torch import nn

from policysmith.errors import WiringError
from policysmith.graph.line import Line
from policysmith.graph.spec import name_problem
from policysmith.graph.wiring import topological_order

__all__ = ["ComponentContainer"]


class ComponentContainer(nn.ModuleDict):
    """Named components (anything with `in_keys` and `out_keys`), wired by their keys."""

    def __init__(self, components: Mapping[str, nn.Module] | None = None) -> None:
        self._declared: dict[str, tuple[str, ...]] = {}
        self._order: list[str] | None = None
        self._ordered: list[nn.Module | None] = []
        self._line: Line | None = None
        super().__init__()
        for name, module in (components or {}).items():
            self.register_component(name, module)

    def register_component(self, name: str, module: nn.Module, dependencies: Sequence[str] | None = None) -> None:
        """Add a component. Keys decide the order; declared `dependencies` are checked against them."""
        if name in self:
            raise WiringError(f"component {name!r} exists already; replace_component swaps it")
        if problem := name_problem(name):
            raise WiringError(problem)
        self._check_module(name, module)
        self[name] = module
        if dependencies:
            self._declared[name] = tuple(dependencies)

    def replace_component(self, name: str, module: nn.Module) -> nn.Module:
        """Put another module in a component's place and return the one before; a failure changes nothing."""
        if name not in self:
            raise WiringError(f"no component {name!r} to replace; there are: {', '.join(self)}")
        self._check_module(name, module)
        before = self[name]
        self[name] = module
        try:
            self.validate()
        except BaseException:  # also what a component's own keys raise
            self[name] = before
            raise
        return before

    def __setitem__(self, name: str, module: nn.Module) -> None:
        super().__setitem__(name, module)
        self._forget()

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self._declared.pop(name, None)
        self._forget()

    def execute(self, mapping: Any) -> Any:
        """Run every component on a plain mapping or a TensorDict, which is written to and returned.

        An exception carries a note that names the component.
        """
        order = self._sorted()
        if self._line is None or self._line.is_stale():
            self._line = Line(self, order)
        return self._line.run(mapping)

    forward = execute

    def execution_order(self) -> list[str]:
        """Names in the order they run: producers first, ties in the order of registration."""
        return list(self._sorted())

    def validate(self) -> None:
        """Raise `WiringError` for a key written twice, a cycle, or a declared dependency that is none."""
        self._forget()
        self._sorted()

    def _sorted(self) -> list[str]:
        """The order, found anew if a component is another than when it was found, whoever put it there."""
        components: list[nn.Module | None] = [*self._modules.values()]
        if self._order is None or components != self._ordered:
            self._forget()
            self._order, self._ordered = self._sort(), components
        return self._order

    def _forget(self) -> None:
        self._order, self._ordered, self._line = None, [], None

    def _sort(self) -> list[str]:
        needs = self._needs()
        for name, declared in self._declared.items():
            for other in declared:
                if other not in self:
                    raise WiringError(f"{name!r} declares a dependency on {other!r}, which does not exist")
                if other not in needs[name]:
                    raise WiringError(f"{name!r} declares a dependency on {other!r} but reads nothing that it writes")
        cycles: list[list[str]] = []
        order = topological_order(needs, cycles.append)
        if order is None:
            raise WiringError(f"components form a cycle: {' → '.join(cycles[0])}")
        return order

    def _needs(self) -> dict[str, list[str]]:
        producers: dict[Any, str] = {}
        for name, module in self.items():
            for key in module.out_keys:  # type: ignore[union-attr]
                if key in producers:
                    raise WiringError(f"{key!r} is written twice, by {producers[key]!r} and by {name!r}")
                producers[key] = name
        return {
            name: [producers[k] for k in module.in_keys if k in producers and producers[k] != name]  # type: ignore[union-attr]
            for name, module in self.items()
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_order": None, "_ordered": [], "_line": None}

    @staticmethod
    def _check_module(name: str, module: object) -> None:
        if not isinstance(module, nn.Module):
            raise WiringError(f"component {name!r} must be a module, found {type(module).__name__}")
        if not TensorDictModuleBase.is_tdmodule_compatible(module):
            raise WiringError(
                f"{type(module).__name__} has no in_keys and out_keys; "
                f"use TensorComponent({type(module).__name__}(…), in_keys=[…], out_keys=[{name!r}])"
            )
