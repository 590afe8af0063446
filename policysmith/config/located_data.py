"""Located data: a tree in which every value, and every key, knows the place where it was written.

Readers make it from text, composition derives new trees from it (a node never changes once it is made, so
trees may share parts), and `load` turns the last one into plain data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from policysmith.errors import ConfigError, Problem

__all__ = [
    "MAX_DEPTH",
    "MAX_NODES",
    "TOO_DEEP",
    "TOO_MANY",
    "Entries",
    "Findings",
    "Node",
    "Override",
    "Path",
    "Place",
    "Refused",
    "Scalar",
    "children",
    "describe",
    "dotted",
    "mapping",
    "merge",
    "quote",
    "rebuilt",
    "scalar",
    "sequence",
    "with_edits",
]

MAX_DEPTH = 200
MAX_NODES = 1_000_000
TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
TOO_MANY = f"more than {MAX_NODES:,} values, when aliases, templates and references count as often as they are used"

Path = tuple[str | int, ...]
Scalar = str | int | float | bool | None


def dotted(path: Path) -> str:
    """`('model', 'hidden', 0)` as people write it: `model.hidden.0`."""
    return ".".join(map(str, path))


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written: a file with 1-based line and column, or an override (`line` 0, all in `file`)."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(slots=True, eq=False)
class Node:
    """A value with its place; `size` and `depth` count what is below as often as it is used.

    `edits` are overrides that wait for the node's template, each with the part of its path below the node.
    """

    value: dict[str, Node] | list[Node] | Scalar
    place: Place | None
    key_places: Mapping[str, Place | None] = field(default_factory=dict)
    size: int = 1
    depth: int = 1
    has_interpolation: bool = False
    has_template: bool = False
    edits: tuple[tuple[Path, Override], ...] = ()


@dataclass(frozen=True, slots=True)
class Override:
    """One override; `value` is None where it removes."""

    path: Path
    value: Node | None
    place: Place


def scalar(value: Scalar, place: Place | None) -> Node:
    """A leaf."""
    return Node(value, place, has_interpolation=type(value) is str and "${" in value)


def sequence(items: list[Node], place: Place | None) -> Node:
    """A list."""
    return _measured(Node(items, place), items)


def mapping(entries: dict[str, Node], key_places: Mapping[str, Place | None], place: Place | None) -> Node:
    """A mapping; `key_places` says where each key was written."""
    node = _measured(Node(entries, place, key_places), entries.values())
    node.has_template |= "template" in entries
    return node


def _measured(node: Node, children: Iterable[Node]) -> Node:
    deepest = 0
    for child in children:
        node.size += child.size
        deepest = max(deepest, child.depth)
        node.has_interpolation |= child.has_interpolation
        node.has_template |= child.has_template
    node.depth += deepest
    return node


def children(node: Node) -> list[tuple[str | int, Node]]:
    """The entries of a mapping or a list with their keys or indices; none for a leaf."""
    if isinstance(node.value, dict):
        return list(node.value.items())
    return list(enumerate(node.value)) if isinstance(node.value, list) else []


def rebuilt(node: Node, below: Mapping[str | int, Node]) -> Node:
    """The mapping or list `node` with `below` in it."""
    if isinstance(node.value, list):
        return sequence(list(below.values()), node.place)
    return mapping({str(key): child for key, child in below.items()}, node.key_places, node.place)


def with_edits(node: Node, edits: tuple[tuple[Path, Override], ...]) -> Node:
    """`node` with overrides that wait in it; they are done when templates are expanded."""
    return replace(node, edits=edits, has_template=node.has_template or bool(edits))


def merge(base: Node, over: Node) -> Node:
    """`over` laid on `base`: mappings merge deeply, everything else is replaced."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    entries = dict(base.value)
    for key, node in over.value.items():
        below = entries.get(key)
        entries[key] = merge(below, node) if below else node
    return mapping(entries, {**base.key_places, **over.key_places}, over.place)


def describe(node: Node) -> str:
    """What a message calls the value that was found."""
    if isinstance(node.value, dict):
        return "a mapping"
    if isinstance(node.value, list):
        return "a list"
    return json.dumps(node.value) if node.value is None or isinstance(node.value, bool) else quote(node.value)


def quote(value: object) -> str:
    """The user's own text, shortened where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-15:]}"


class Refused(Exception):
    """What was asked cannot be done; whoever knows the place turns the message into a problem."""


class Findings:
    """The problems found so far; a mistake that is used in many places counts once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[Place | None, Problem]] = {}
        self.incomplete = False
        """A file could not be read, so that further problems may only follow from its absence."""

    def add(self, place: Place | None, path: Path, message: str) -> None:
        """Note a problem."""
        problem = Problem(dotted(path), message, str(place) if place else None)
        self._found.setdefault((problem.place or problem.path, message), (place, problem))

    def raise_any(self) -> None:
        """Raise everything found as one `ConfigError`, in the order of the text."""
        if not self._found:
            return
        files: dict[str, int] = {}

        def position(found: tuple[Place | None, Problem]) -> tuple[int, int, int]:
            place = found[0] or Place("")
            return files.setdefault(place.file, len(files)), place.line, place.column

        raise ConfigError([problem for _, problem in sorted(self._found.values(), key=position)])


class Entries:
    """The entries of one mapping while a reader collects them."""

    def __init__(self, findings: Findings, path: Path) -> None:
        self.nodes: dict[str, Node] = {}
        self.key_places: dict[str, Place | None] = {}
        self._findings, self._path = findings, path

    def add(self, key: str, place: Place, node: Node) -> None:
        """Add an entry; a key that was there before is a problem that names both places."""
        if key in self.nodes:
            first = self.key_places[key]
            self._findings.add(place, (*self._path, key), f"duplicate key {quote(key)} (first at {first})")
        self.nodes[key], self.key_places[key] = node, place

    def node(self, place: Place) -> Node:
        """The finished mapping."""
        return mapping(self.nodes, self.key_places, place)
