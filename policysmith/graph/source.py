"""A whole graph as the option of a component: read and checked when it is decoded, built when its inputs are known.

In: a graph in any grammar, as plain data. Out: a `GraphSource`, which knows the names of its inputs and outputs.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, core_schema

from policysmith.config.grammars import grammar_of
from policysmith.config.load import Document
from policysmith.config.located_data import quote
from policysmith.config.options import error_at, failures, located
from policysmith.errors import ConfigError, did_you_mean
from policysmith.graph.document import TOP_KEYS, Outputs, graph_document
from policysmith.graph.spec import GraphSpec, decode_components
from policysmith.graph.wiring import wire
from policysmith.registry import Registry, default_registry

__all__ = ["Graph", "GraphSource", "decode_graph"]


@dataclass(frozen=True, eq=False)
class GraphSource:
    """A checked graph that is not built yet; `outputs` are the names of its results in order.

    `single` says that it gives one tensor rather than several. `registry` is None for the default one, and
    so that copies and pickles stay small.
    """

    document: Document
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    single: bool
    own_registry: Registry | None = None

    @property
    def registry(self) -> Registry:
        """The types that the graph may name."""
        return self.own_registry or default_registry

    def encode(self) -> dict[str, object]:
        """The graph as plain data, which decodes to the same."""
        return copy.deepcopy(self.document.data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GraphSource) or self.own_registry is not other.own_registry:
            return False
        return self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    @property
    def _text(self) -> str:
        """The data as a text: the order of results is part of what a graph is."""
        return json.dumps(self.document.data, default=repr)

    def __deepcopy__(self, memo: dict[int, object]) -> GraphSource:
        return self


class Graph:
    """Annotation of an option that holds a graph: `Annotated[GraphSource, Graph()]`."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def decode(value: object, info: core_schema.ValidationInfo) -> GraphSource:
            return decode_graph(value, (info.context or {})["registry"])

        return core_schema.with_info_plain_validator_function(decode)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: object) -> dict[str, object]:
        return {"anyOf": [{"type": "object", "minProperties": 1}, {"type": "string"}]}


def decode_graph(value: object, registry: Registry) -> GraphSource:
    """The graph that a mapping describes; a `ValidationError` lists every problem with its path inside it."""
    if isinstance(value, GraphSource):
        return value
    if isinstance(value, str):
        message = f"the file {value!r} was not read: files are, where a whole experiment is loaded; or give the graph"
        raise located("graph", [error_at((), message, value)])
    if not isinstance(value, Mapping):
        raise located("graph", [error_at((), f"expected a graph, or the path of one, found {quote(value)}", value)])
    own = None if registry is default_registry else registry
    try:
        if grammar := grammar_of(value, registry):
            document = graph_document(value, registry)
            kept, inputs, outputs = grammar.describe(document, registry)
            kept_document = Document(dict(kept), {}, {}, document.directory)
            return GraphSource(kept_document, inputs, *_names(outputs), own_registry=own)
        return _native(copy.deepcopy(dict(value)), registry, own)
    except ConfigError as error:
        problems = [error_at(_path(problem.path), problem.message) for problem in error.problems]
        raise located("graph", problems) from None


def _native(data: dict[str, Any], registry: Registry, own: Registry | None) -> GraphSource:
    """A graph of our own grammar; what it reads and nothing gives are its inputs, where it states none."""
    errors: list[InitErrorDetails] = [
        error_at((key,), f"unknown key{did_you_mean(key, TOP_KEYS)}; there are: {', '.join(TOP_KEYS)}")
        for key in data
        if key not in TOP_KEYS
    ]
    graph: GraphSpec | None = None
    if "components" not in data:
        errors.append(error_at((), "'components' is missing: a mapping from names to components"))
    else:
        try:
            graph = decode_components(data["components"], registry)
        except ValidationError as error:
            errors += [error_at(("components", *place), message) for place, message in failures(error)]
    stated = data.get("inputs")
    if stated is not None and (not isinstance(stated, Mapping) or not stated):
        errors.append(error_at(("inputs",), f"expected a mapping name → event shape, found {quote(stated)}"))
    if errors or graph is None:
        raise located("graph", errors)
    inputs = tuple(stated) if stated else _free_keys(graph)
    outputs = data.get("outputs") or _last(graph, inputs, errors)
    if errors:
        raise located("graph", errors)
    return GraphSource(Document(data, {}, {}, Path().absolute()), inputs, *_names(outputs), own_registry=own)


def _free_keys(graph: GraphSpec) -> tuple[str, ...]:
    given = {key for spec in graph.components.values() for key in spec.out_keys}
    wanted = (key for spec in graph.components.values() for key in spec.in_keys)
    return tuple(dict.fromkeys(key for key in wanted if key not in given))


def _last(graph: GraphSpec, inputs: tuple[str, ...], errors: list[InitErrorDetails]) -> str:
    """What comes out where the graph does not say: what its last component gives."""
    wiring = wire(
        graph.components, inputs, lambda path, message: errors.append(error_at(("components", *path), message))
    )
    return "" if wiring is None else graph.components[wiring.order[-1]].out_keys[-1]


def _names(outputs: Outputs) -> tuple[tuple[str, ...], bool]:
    """The names of results in order, and whether there is but one, not in a tuple or dict."""
    if isinstance(outputs, str):
        return (outputs,), True
    return tuple(outputs), False


def _path(text: str) -> tuple[str | int, ...]:
    return tuple(int(key) if key.isdigit() else key for key in text.split(".") if key)
