"""Python data becomes located data and back: what a caller passes in, and what `load` hands out.

Only plain data passes (mappings with string keys, lists, strings, numbers, booleans, None); it is copied, never kept.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from policysmith.config.located_data import (
    MAX_DEPTH,
    TOO_DEEP,
    Findings,
    Node,
    Path,
    Place,
    mapping,
    quote,
    scalar,
    sequence,
)

__all__ = ["from_plain", "to_plain"]


def from_plain(value: object, findings: Findings, path: Path = (), place: Place | None = None) -> Node:
    """A node for Python data; whatever is not plain becomes a problem at its path."""
    return _Reader(findings, place).node(value, path)


class _Reader:
    def __init__(self, findings: Findings, place: Place | None) -> None:
        self._findings, self._place = findings, place
        self._done: dict[int, tuple[object, Node]] = {}  # with the object, so that its id stays taken
        self._active: set[int] = set()

    def node(self, value: object, path: Path) -> Node:
        if type(value) in (str, int, float, bool, type(None)):
            return scalar(value, self._place)  # type: ignore[arg-type]
        if isinstance(value, os.PathLike) and isinstance(os.fspath(value), str):
            return scalar(os.fspath(value), self._place)
        if isinstance(value, Mapping | list | tuple):
            return self._container(value, path)
        return self._problem(path, _not_plain(value))

    def _container(self, value: Mapping[Any, Any] | list[Any] | tuple[Any, ...], path: Path) -> Node:
        if id(value) in self._done:
            return self._done[id(value)][1]
        if id(value) in self._active:
            return self._problem(path, "contains itself")
        if len(path) >= MAX_DEPTH:
            self._problem(path[:1], TOO_DEEP)
            self._findings.raise_any()
        self._active.add(id(value))
        plain = _without_omegaconf(value)
        node = self._mapping(plain, path) if isinstance(plain, Mapping) else self._sequence(plain, path)
        self._active.remove(id(value))
        self._done[id(value)] = value, node
        return node

    def _mapping(self, value: Mapping[Any, Any], path: Path) -> Node:
        entries = {}
        for key, below in value.items():
            if type(key) is str:
                entries[key] = self.node(below, (*path, key))
            else:
                self._problem(path, f"key {quote(key)} is of type {type(key).__name__}; keys are strings")
        return mapping(entries, dict.fromkeys(entries, self._place), self._place)

    def _sequence(self, value: object, path: Path) -> Node:
        if not isinstance(value, list | tuple):  # a DictConfig can hold None, a string or a lone interpolation
            return self.node(value, path)
        items = []
        for index, item in enumerate(value):
            items.append(self.node(item, (*path, index)))  # no comprehension: each costs a level of the stack
        return sequence(items, self._place)

    def _problem(self, path: Path, message: str) -> Node:
        self._findings.add(self._place, path, message)
        return scalar(None, self._place)


def _without_omegaconf(value: object) -> object:
    """A DictConfig or ListConfig as plain data, its interpolations unread: ours are the rules for those."""
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is None or not omegaconf.OmegaConf.is_config(value):
        return value
    return omegaconf.OmegaConf.to_container(value, resolve=False)


def _not_plain(value: object) -> str:
    module, name = type(value).__module__, type(value).__qualname__
    if module == "numpy":
        return f"{quote(value)} is not plain data but a numpy {name}; convert it with .item() or .tolist()"
    return f"{quote(value)} is not plain data but of type {name}"


def to_plain(node: Node, places: dict[Path, Place], key_places: dict[Path, Place], path: Path = ()) -> Any:
    """Fresh plain data, and the places of all values and keys; a mapping's place is that of its key."""
    value = node.value
    if node.place:
        places[path] = node.place
    if isinstance(value, list):
        return [to_plain(item, places, key_places, (*path, index)) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    data = {}
    for key, below in value.items():
        inner = (*path, key)
        data[key] = to_plain(below, places, key_places, inner)
        if key_place := node.key_places.get(key):
            key_places[inner] = key_place
            if isinstance(below.value, dict):
                places[inner] = key_place
    return data
