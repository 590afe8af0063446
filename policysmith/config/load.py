"""A configuration is loaded: a file or a mapping becomes plain data, with the place of every value.

In: YAML, JSON, a Python mapping or a DictConfig, and overrides. Out: a `Document`, or one error with every problem.
The steps, a file each: text to nodes, `defaults` and profiles, overrides, `templates`, `${}`, nodes to plain data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from policysmith.config.defaults import is_layer, lay_over, read_file, with_defaults
from policysmith.config.interpolate import interpolate
from policysmith.config.located_data import (
    MAX_DEPTH,
    MAX_NODES,
    TOO_DEEP,
    TOO_MANY,
    Findings,
    Node,
    Path,
    Place,
    Refused,
    describe,
    dotted,
    quote,
)
from policysmith.config.overrides import apply
from policysmith.config.python_data import from_plain, to_plain
from policysmith.config.templates import expand_templates, template_names
from policysmith.errors import ConfigError, Problem

__all__ = ["Document", "Path", "Place", "Source", "bounded", "dotted", "finish", "load", "read_source", "to_document"]


@dataclass(frozen=True)
class Source:
    """What was read, before composition: the tree, the directory its `defaults` are relative to, and its file."""

    root: Node
    directory: FilePath
    file: FilePath | None = None


@dataclass(frozen=True)
class Document:
    """A loaded configuration.

    Attributes:
        data: plain data (dict, list, str, int, float, bool, None), everything resolved, and yours to change.
        places: where each value was written; the place of a mapping is that of its key.
        key_places: where each key was written.
        directory: the main file's directory, or the current one for a mapping; relative paths start here.
    """

    data: dict[str, Any]
    places: Mapping[Path, Place]
    key_places: Mapping[Path, Place]
    directory: FilePath

    def place(self, path: Path) -> Place | None:
        """Where the value at `path`, or else the nearest mapping or list around it, was written."""
        around = (path[:length] for length in range(len(path), -1, -1))
        return next((self.places[prefix] for prefix in around if prefix in self.places), None)

    def problem(self, path: Path, message: str, *, at_key: bool = False) -> Problem:
        """A problem at `path`, which points at the value, or at its key."""
        place = (self.key_places.get(path) if at_key else None) or self.place(path)
        return Problem(dotted(path), message, str(place) if place else None)


def load(source: str | os.PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = ()) -> Document:
    """The configuration in a file (YAML, or JSON by its suffix), a mapping or a DictConfig, after `overrides`.

    Raises:
        ConfigError: with every problem found, each with its place.
    """
    if isinstance(overrides, str):
        raise ConfigError(f"overrides are a list of texts, found the text {overrides!r}; write [{overrides!r}]")
    findings = Findings()
    return finish(read_source(source, findings), overrides, findings)


def finish(source: Source, overrides: Sequence[str], findings: Findings) -> Document:
    """The configuration that a source stands for, after `overrides`; raises what was found, before and now."""
    return to_document(source, lambda: _composed(source, overrides, findings), findings)


def to_document(source: Source, compose: Callable[[], Node], findings: Findings) -> Document:
    """What `compose()` makes of a source as plain data with places; raises everything found."""
    try:
        root = compose()
    except RecursionError:
        raise ConfigError("defaults, templates or references lead through one another too deeply") from None
    findings.raise_any()
    return _document(root, source.directory)


def read_source(source: str | os.PathLike[str] | Mapping[str, Any], findings: Findings) -> Source:
    """A file (YAML, or JSON by its suffix), a mapping or a DictConfig as a tree, with nothing done to it."""
    if isinstance(source, Mapping):
        return Source(_read_mapping(source, findings), FilePath())
    if not isinstance(source, str | os.PathLike):
        raise ConfigError(f"a configuration is a file or a mapping, found {quote(source)}")
    if "\n" in str(source):
        raise ConfigError(f"a text is taken for the path of a file, found several lines: {quote(source)}")
    file = FilePath(source)
    return Source(_read_file(file, findings), file.parent, file)


def _read_mapping(source: Mapping[str, Any], findings: Findings) -> Node:
    root = from_plain(source, findings)
    if not isinstance(root.value, dict):  # a DictConfig can be None or an interpolation
        findings.add(None, (), f"the top level must be a mapping, found {describe(root)}")
        findings.raise_any()
    return root


def _read_file(file: FilePath, findings: Findings) -> Node:
    try:
        root = read_file(file, findings)
    except Refused as refused:
        raise ConfigError(str(refused)) from None
    if root is None:
        findings.raise_any()
    assert root
    return root


def _composed(source: Source, overrides: Sequence[str], findings: Findings) -> Node:
    """The tree after all steps; each step goes on after problems, so that all are found."""
    own_templates = template_names(source.root)
    root = bounded(with_defaults(source.root, source.directory, findings, source.file), findings)
    root = bounded(lay_over(root, overrides, findings), findings)
    root = bounded(apply(root, [text for text in overrides if not is_layer(text)], findings), findings)
    if findings.incomplete:
        findings.raise_any()
    root = bounded(expand_templates(root, own_templates, findings), findings)
    return bounded(interpolate(root, findings), findings)


def bounded(root: Node, findings: Findings) -> Node:
    """The same tree, if it can be written out: a few lines may stand for more values than memory holds."""
    if root.size > MAX_NODES or root.depth > MAX_DEPTH:
        findings.add(None, (), TOO_MANY if root.size > MAX_NODES else TOO_DEEP)
        findings.raise_any()
    return root


def _document(root: Node, directory: FilePath) -> Document:
    places: dict[Path, Place] = {}
    key_places: dict[Path, Place] = {}
    data = to_plain(root, places, key_places)
    return Document(data, places, key_places, directory.absolute())
