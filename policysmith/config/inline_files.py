"""Graphs and weights that a model names by files: graphs become part of the document, weights get absolute paths.

In: a loaded experiment. Out: the same with the graphs themselves in it, each value with its place in its own file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from policysmith.config.grammars import compose_graph
from policysmith.config.load import Document, Path, read_source
from policysmith.config.located_data import Findings
from policysmith.errors import ConfigError, Problem

__all__ = ["inline_files"]

BASE, LOAD = "base_dir", "load"


def inline_files(document: Document, registry: Any, base_dir: str | os.PathLike[str] | None = None) -> Document:
    """The document with each graph in place of the path that its model names; raises `ConfigError` for all at once.

    A relative path starts at `base_dir`, or else at `model.base_dir`, or else at the directory of the file in which
    the path is written. Which options take the path of a graph's file, a type says by its trait `graph_files`: each
    option with the one that the graph itself goes to. A model with the trait `reads_files` finds its own files: it
    keeps its paths, and gets that directory.
    """
    model = document.data.get("model")
    if not isinstance(model, dict):
        return document
    reader = _Reader(document, registry, base_dir)
    for path, target in list(_graphs(model, registry)):
        reader.graph(path, target)
    for path in list(_weights(model)):
        reader.weights(path)
    reader.settle(model)
    if reader.problems:
        raise ConfigError(reader.problems)
    return reader.document


class _Reader:
    """Changes a copy of a document, and collects what is wrong with the files."""

    def __init__(self, document: Document, registry: Any, base_dir: str | os.PathLike[str] | None) -> None:
        self._registry = registry
        self.document = replace(
            document, data=_copied(document.data), places=dict(document.places), key_places=dict(document.key_places)
        )
        self.problems: list[Problem] = []
        stated = document.data["model"].get(BASE)
        self.base = FilePath(base_dir).absolute() if base_dir is not None else None
        if self.base is None and isinstance(stated, str):
            self.base = (self._folder(("model", BASE)) / stated).absolute()

    def graph(self, path: Path, target: str) -> None:
        """Put the graph of a file where its path stands, or into the option `target` in its place."""
        file = self._file(path)
        if file is None:
            return
        findings = Findings()
        try:
            graph = compose_graph(read_source(file, findings), findings, self._registry)
        except ConfigError as error:
            name = ".".join(map(str, path))
            self.problems += [
                Problem(f"{name}.{problem.path}" if problem.path else name, problem.message, problem.place or str(file))
                for problem in error.problems
            ]
            return
        path = self._moved(path, target)
        self._put(path, graph.data)
        for mine, theirs in ((self.document.places, graph.places), (self.document.key_places, graph.key_places)):
            mine.update({(*path, *below): place for below, place in theirs.items() if below})  # type: ignore[attr-defined]

    def weights(self, path: Path) -> None:
        """Make the path of a file of weights absolute: whether it is there matters only where weights are new."""
        self._put(path, str((self.base or self._folder(path).absolute()) / self._get(path)))

    def settle(self, model: Mapping[str, Any]) -> None:
        """A base directory has done its work, except for a model that finds its own files."""
        own, traits = self.document.data["model"], _traits(model, "model", self._registry)
        if traits.get("reads_files"):
            own[BASE] = str(self.base or self._folder(("model",)).absolute())
        elif "graph_files" in traits:
            own.pop(BASE, None)

    def _file(self, path: Path) -> FilePath | None:
        written = self._get(path)
        base = self.base or self._folder(path).absolute()
        file = base / written
        if file.is_file():
            return file
        self.problems.append(
            self.document.problem(path, f"there is no file {file}; relative paths start at {base} (base_dir)")
        )
        return None

    def _folder(self, path: Path) -> FilePath:
        """The directory of the file in which the value at `path` is written."""
        place = self.document.place(path)
        written = FilePath(place.file) if place is not None and place.line else None
        return written.parent if written is not None and written.is_file() else self.document.directory

    def _moved(self, path: Path, target: str) -> Path:
        """`config_path: file` becomes `config: {…}`."""
        if path[-1] == target:
            return path
        moved = (*path[:-1], target)
        self._put(moved, self._get(path[:-1]).pop(path[-1]))
        if path in self.document.places:
            self.document.places[moved] = self.document.places[path]  # type: ignore[index]
        return moved

    def _get(self, path: Path) -> Any:
        value: Any = self.document.data
        for key in path:
            value = value[key]
        return value

    def _put(self, path: Path, value: Any) -> None:
        self._get(path[:-1])[path[-1]] = value


def _graphs(model: Mapping[str, Any], registry: Any) -> Iterator[tuple[Path, str]]:
    """Where a path stands for a graph, and the option that the graph goes to."""
    yield from _files(model, "model", ("model",), registry)
    for name, component in _components(model, "components"):
        yield from _files(component, "component", ("model", "components", name), registry)


def _files(part: Mapping[str, Any], slot: str, path: Path, registry: Any) -> Iterator[tuple[Path, str]]:
    """The paths among the options of one part: an option is a file, or files by name."""
    for option, target in _traits(part, slot, registry).get("graph_files", {}).items():
        value = part.get(option)
        if isinstance(value, Mapping) and target == option:
            yield from (((*path, option, name), name) for name, file in value.items() if isinstance(file, str))
        elif isinstance(value, str) and (target == option or target not in part):
            yield (*path, option), target


def _traits(part: Mapping[str, Any], slot: str, registry: Any) -> Mapping[str, Any]:
    """The traits of a part's type, as far as there is such a type."""
    name = part.get("type")
    known = isinstance(name, str) and name in registry.names(slot)
    return registry.entry(slot, name).traits if known else {}


def _weights(model: Mapping[str, Any]) -> Iterator[Path]:
    """Where a path stands for a file of weights."""
    for section in ("components", "component_build_args"):
        for name, component in _components(model, section):
            if isinstance(component.get(LOAD), str):
                yield ("model", section, name, LOAD)


def _components(model: Mapping[str, Any], section: str) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    found = model.get(section)
    for name, component in found.items() if isinstance(found, Mapping) else ():
        if isinstance(component, Mapping):
            yield name, component


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value
