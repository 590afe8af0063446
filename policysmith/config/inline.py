"""Graphs and weights that a model names by files: graphs become part of the document, weights get absolute paths.

In: a loaded experiment. Out: the same with the graphs themselves in it, each value with its place in its own file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from policysmith.config.load import Document, Path, finish, read_source
from policysmith.config.nodes import Findings
from policysmith.config.v1 import finish_v1, is_v1
from policysmith.errors import ConfigError, Problem

__all__ = ["inline_files"]

NAMED, SINGLE, INLINE, BASE = "component_config_paths", "config_path", "config", "base_dir"
LOAD = "load"
NETWORKS, FACTORY = "networks", "factory"


def inline_files(document: Document, base_dir: str | os.PathLike[str] | None = None) -> Document:
    """The document with each graph in place of the path that its model names; raises `ConfigError` for all at once.

    A relative path starts at `base_dir`, or else at `model.base_dir`, or else at the directory of the file in which
    the path is written. A model of type `factory` reads its own files: it keeps its paths, and gets that directory.
    """
    model = document.data.get("model")
    if not isinstance(model, dict):
        return document
    reader = _Reader(document, base_dir)
    for path in list(_graphs(model)):
        reader.graph(path)
    for path in list(_weights(model)):
        reader.weights(path)
    reader.settle(model)
    if reader.problems:
        raise ConfigError(reader.problems)
    return reader.document


class _Reader:
    """Changes a copy of a document, and collects what is wrong with the files."""

    def __init__(self, document: Document, base_dir: str | os.PathLike[str] | None) -> None:
        self.document = replace(
            document, data=_copied(document.data), places=dict(document.places), key_places=dict(document.key_places)
        )
        self.problems: list[Problem] = []
        stated = document.data["model"].get(BASE)
        self.base = FilePath(base_dir).absolute() if base_dir is not None else None
        if self.base is None and isinstance(stated, str):
            self.base = (self._folder(("model", BASE)) / stated).absolute()

    def graph(self, path: Path) -> None:
        """Put the graph of a file where its path stands."""
        file = self._file(path)
        if file is None:
            return
        findings = Findings()
        try:
            source = read_source(file, findings)
            graph = finish_v1(source, findings) if is_v1(source) else finish(source, (), findings)
        except ConfigError as error:
            name = ".".join(map(str, path))
            self.problems += [
                Problem(f"{name}.{problem.path}" if problem.path else name, problem.message, problem.place or str(file))
                for problem in error.problems
            ]
            return
        path = self._moved(path)
        self._put(path, graph.data)
        for mine, theirs in ((self.document.places, graph.places), (self.document.key_places, graph.key_places)):
            mine.update({(*path, *below): place for below, place in theirs.items() if below})  # type: ignore[attr-defined]

    def weights(self, path: Path) -> None:
        """Make the path of a file of weights absolute: whether it is there matters only where weights are new."""
        self._put(path, str((self.base or self._folder(path).absolute()) / self._get(path)))

    def settle(self, model: Mapping[str, Any]) -> None:
        """A base directory has done its work, except for a factory, which finds its own files."""
        own = self.document.data["model"]
        if model.get("type") == FACTORY:
            own[BASE] = str(self.base or self._folder(("model",)).absolute())
        elif model.get("type") == NETWORKS:
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

    def _moved(self, path: Path) -> Path:
        """`config_path: file` becomes `config: {…}`."""
        if path[-1] != SINGLE or len(path) != 2:
            return path
        del self.document.data["model"][SINGLE]
        moved = (*path[:-1], INLINE)
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


def _graphs(model: Mapping[str, Any]) -> Iterator[Path]:
    """Where a path stands for a graph."""
    if model.get("type") == NETWORKS:
        named = model.get(NAMED)
        if isinstance(named, Mapping):
            yield from (("model", NAMED, name) for name, value in named.items() if isinstance(value, str))
        if isinstance(model.get(SINGLE), str) and INLINE not in model:
            yield ("model", SINGLE)
    for name, component in _components(model, "components"):
        if component.get("type") == "graph_model" and isinstance(component.get(INLINE), str):
            yield ("model", "components", name, INLINE)


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
