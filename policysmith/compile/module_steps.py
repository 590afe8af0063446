"""Steps over plain modules: what runs a graph whose store holds modules, not components.

In: a plan's nodes and the modules. Out: a step for each, which looks its module up in the store each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from torch import nn

from policysmith.compile.step import Step
from policysmith.graph.component import Component
from policysmith.graph.module_view import bare

__all__ = ["ModuleNode", "ModuleStep", "module_steps"]


class ModuleNode(Protocol):
    """What a step must know of a component: its keys, the name of its module in the store, and how it is called."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def store_name(self) -> str: ...  # noqa: D102
    @property
    def sources(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def out_keys(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def takes_aux(self) -> bool: ...  # noqa: D102

    def store(self, modules: nn.ModuleDict) -> nn.ModuleDict:
        """Where its module is looked up."""

    def component(self, module: nn.Module) -> Component:
        """The module as a component, in its wrappers."""


class ModuleStep(Step):
    """A step over a plain module, whose `views` as components are made anew when another module takes its place."""

    def __init__(self, modules: nn.ModuleDict, node: ModuleNode, views: dict[str, Component]) -> None:
        store = node.store(modules)
        super().__init__(store, node.store_name, node.sources, node.out_keys, takes_aux=node.takes_aux)
        self.owner = modules
        self._node, self._views = node, views

    @property
    def live(self) -> Any:
        """The live module as a component, in its wrappers."""
        module, view = self.store[self.name], self._views.get(self._node.name)
        if view is None or bare(view) is not module:
            view = self._views[self._node.name] = self._node.component(module)
        return view


def module_steps(nodes: Iterable[ModuleNode], modules: nn.ModuleDict, views: dict[str, Component]) -> list[ModuleStep]:
    """A step for each node over live modules."""
    return [ModuleStep(modules, node, views) for node in nodes]
