"""Graphs in the grammar of another system: which grammar a text or a mapping is of, and its composition.

In: a source as it was read, and the registry, whose grammars are asked. Out: a `Document`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from policysmith.config.load import Document, Source, finish
from policysmith.config.located_data import Findings

__all__ = ["GraphGrammar", "compose_graph", "grammar_of"]


class GraphGrammar(Protocol):
    """A registered grammar whose configurations are graphs."""

    def speaks(self, source: Source) -> bool:
        """Whether a source is of this grammar, before it is composed."""

    def recognizes(self, data: Mapping[str, Any]) -> bool:
        """Whether composed data is of this grammar."""

    def compose(self, source: Source, findings: Findings) -> Document:
        """The configuration that a source stands for; raises `ConfigError` with everything found."""

    def describe(self, document: Document, registry: Any) -> tuple[Mapping[str, Any], tuple[str, ...], Any]:
        """What of a document is kept, the names of its inputs, and its outputs; raises `ConfigError`."""

    def translate(
        self, document: Document, registry: Any, inputs: Mapping[str, Any], seed: int | None, allow_targets: Any
    ) -> tuple[Any, dict[str, Any], Any]:
        """The graph as our own: plan, modules by name, and outputs; raises `ConfigError` with every problem."""


def compose_graph(source: Source, findings: Findings, registry: Any) -> Document:
    """A graph's configuration in whichever grammar it is; raises `ConfigError` with everything found."""
    keys = source.root.value if isinstance(source.root.value, dict) else {}
    for grammar in registry.graph_grammars(keys):
        if grammar.speaks(source):
            return grammar.compose(source, findings)
    return finish(source, (), findings)


def grammar_of(data: Mapping[str, Any], registry: Any) -> GraphGrammar | None:
    """The grammar that composed data is of; None for our own."""
    return next((grammar for grammar in registry.graph_grammars(data) if grammar.recognizes(data)), None)
