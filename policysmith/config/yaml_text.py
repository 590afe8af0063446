"""YAML text becomes located data: YAML 1.2 core scalars, no tags that construct anything, every mistake noted.

PyYAML parses and composes; what its nodes mean is decided here (`no` is text, `3e-4` a number, keys are strings).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import yaml

from policysmith.config.located_data import (
    MAX_DEPTH,
    MAX_NODES,
    TOO_DEEP,
    TOO_MANY,
    Entries,
    Findings,
    Node,
    Path,
    Place,
    Scalar,
    mapping,
    quote,
    scalar,
    sequence,
)

__all__ = ["core_scalar", "read_yaml", "scalar_node"]

INT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*|0x[0-9a-fA-F]+(_[0-9a-fA-F]+)*|0o[0-7]+(_[0-7]+)*")
FLOAT = re.compile(r"[-+]?([0-9]+(_[0-9]+)*(\.([0-9]+(_[0-9]+)*)?)?|\.[0-9]+(_[0-9]+)*)([eE][-+]?[0-9]+)?")
WORDS: dict[str, Scalar] = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["false", "False", "FALSE"], False),
    **dict.fromkeys([".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"], float("inf")),
    **dict.fromkeys(["-.inf", "-.Inf", "-.INF"], float("-inf")),
    **dict.fromkeys([".nan", ".NaN", ".NAN"], float("nan")),
}
CORE = "tag:yaml.org,2002:"
TAGGED: dict[str, tuple[type, ...]] = {
    CORE + "int": (int,),
    CORE + "float": (float, int),
    CORE + "bool": (bool,),
    CORE + "null": (type(None),),
}
PLAIN, TEXT, CONTAINER = "a plain scalar", "a quoted scalar", "a container"  # spaces: no tag in a text is like these


def core_scalar(text: str) -> Scalar:
    """What an unquoted scalar means in YAML 1.2 (`_` may separate digits); ValueError for a number too long to read."""
    if text in WORDS:
        return WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    return float(text) if FLOAT.fullmatch(text) else text


def scalar_node(text: str, place: Place, path: Path, findings: Findings) -> Node:
    """A node for an unquoted scalar."""
    try:
        return scalar(core_scalar(text), place)
    except ValueError:
        findings.add(place, path, f"{quote(text)} has too many digits")
        return scalar(None, place)


def read_yaml(text: str, place_at: Callable[[int, int], Place], findings: Findings, path: Path = ()) -> Node | None:
    """The document in `text`; None, and a problem, where it is no YAML.

    Args:
        text: one YAML document.
        place_at: makes a place from line and column, both counted from 1.
        findings: takes the problems.
        path: where the document stands in the whole.
    """
    try:
        root = _composed(text)
    except yaml.MarkedYAMLError as error:
        findings.add(place_at(*_position(error, text)), path, _parse_message(error, text))
        return None
    except yaml.reader.ReaderError as error:
        findings.add(_place_of_character(error, text, place_at), path, f"not valid YAML: {error.reason}")
        return None
    except UnicodeEncodeError as error:
        findings.add(place_at(1, 1), path, f"not valid YAML: {error.reason}")
        return None
    if root is None:
        findings.add(place_at(1, 1), path, "is empty; a mapping is needed")
        return None
    return _Reader(place_at, findings).node(root, path)


def _composed(text: str) -> yaml.Node | None:
    """PyYAML's nodes of the document in `text`; nesting that is too deep is a `_Limit`, whoever noticed it."""
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        # libyaml scans up to 1,024 characters ahead, and newer ones stop by themselves at 1,000 open brackets, before
        # a hook has counted any. The loader in Python has no limit of its own: it finds the place of level 201.
        if isinstance(error, _Limit) or "nesting" not in str(error.problem):
            raise
        return yaml.compose(text, Loader=_PythonLoader)


class _Limit(yaml.MarkedYAMLError):
    """The text may be well-formed, and is refused all the same."""

    def __init__(self, problem: str, mark: yaml.Mark | None) -> None:
        super().__init__(problem=problem, problem_mark=mark)


class _Hooks(yaml.SafeLoader if TYPE_CHECKING else object):  # type: ignore[misc]
    """Makes a loader compose nodes whose tag says how a scalar was written, and stop before nesting hurts."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._nodes = 0

    def resolve(self, kind: type, value: str | None, implicit: tuple[bool, bool]) -> str:
        if kind is not yaml.ScalarNode:
            return CONTAINER
        return PLAIN if implicit[0] else TEXT

    # PyYAML calls these two around every node. libyaml's own composer recurses in C: 100,000 brackets crash Python.
    def descend_resolver(self, parent: yaml.Node | None, index: Any) -> None:
        self._depth += 1
        self._nodes += 1
        if self._depth > MAX_DEPTH or self._nodes > 2 * MAX_NODES:  # keys are nodes here too
            raise _Limit(TOO_DEEP if self._depth > MAX_DEPTH else TOO_MANY, parent.start_mark if parent else None)

    def ascend_resolver(self) -> None:
        self._depth -= 1


class _Loader(_Hooks, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # ten times faster in C
    pass


class _PythonLoader(_Hooks, yaml.SafeLoader):
    pass


class _Reader:
    """Turns PyYAML's nodes into ours; a node with an anchor is read once, and shared by its aliases."""

    def __init__(self, place_at: Callable[[int, int], Place], findings: Findings) -> None:
        self._place_at, self._findings = place_at, findings
        self._done: dict[yaml.Node, Node] = {}
        self._active: set[yaml.Node] = set()
        self._merged = 0

    def node(self, raw: yaml.Node, path: Path) -> Node:
        if raw in self._done:
            return self._done[raw]
        if raw in self._active:
            return self._problem(raw, path, "an alias in here refers to what contains it")
        self._active.add(raw)
        if isinstance(raw, yaml.MappingNode):
            node = self._mapping(raw, path)
        else:
            node = self._sequence(raw, path) if isinstance(raw, yaml.SequenceNode) else self._scalar(raw, path)
        self._active.remove(raw)
        self._done[raw] = node
        return node

    def _scalar(self, raw: yaml.Node, path: Path) -> Node:
        place = self._place(raw)
        if raw.tag == PLAIN:
            return scalar_node(raw.value, place, path, self._findings)
        if raw.tag in (TEXT, CORE + "str"):
            return scalar(raw.value, place)
        if raw.tag not in TAGGED:
            return self._unknown_tag(raw, path)
        node = scalar_node(raw.value, place, path, self._findings)
        if type(node.value) not in TAGGED[raw.tag]:
            return self._problem(raw, path, f"{quote(raw.value)} is no {_short(raw.tag)}")
        return scalar(float(node.value), place) if isinstance(node.value, int) and raw.tag == CORE + "float" else node

    def _sequence(self, raw: yaml.SequenceNode, path: Path) -> Node:
        if raw.tag not in (CONTAINER, CORE + "seq"):
            return self._unknown_tag(raw, path)
        return sequence([self.node(item, (*path, i)) for i, item in enumerate(raw.value)], self._place(raw))

    def _mapping(self, raw: yaml.MappingNode, path: Path) -> Node:
        if raw.tag not in (CONTAINER, CORE + "map"):
            return self._unknown_tag(raw, path)
        own = Entries(self._findings, path)
        merged: list[Node] = []
        for raw_key, raw_value in raw.value:
            if raw_key.tag == PLAIN and raw_key.value == "<<":
                merged += self._to_merge(raw_value, path)
            elif (key := self._key(raw_key, path)) is not None:
                own.add(key, self._place(raw_key), self.node(raw_value, (*path, key)))
        node = own.node(self._place(raw))
        return self._with_merged(node, merged) if merged else node

    def _key(self, raw: yaml.Node, path: Path) -> str | None:
        if not isinstance(raw, yaml.ScalarNode):
            self._problem(raw, path, "a key must be a string; it is a list or a mapping here")
            return None
        node = self._scalar(raw, path)
        if not isinstance(node.value, str):
            self._problem(raw, path, f"key {raw.value or 'null'} is not a string; write it in quotes")
            return None
        return node.value

    def _to_merge(self, raw: yaml.Node, path: Path) -> list[Node]:
        nodes = [self.node(item, path) for item in (raw.value if isinstance(raw, yaml.SequenceNode) else [raw])]
        if all(isinstance(node.value, dict) for node in nodes):
            return nodes
        self._problem(raw, path, "<< takes a mapping or a list of mappings")
        return []

    def _with_merged(self, own: Node, merged: list[Node]) -> Node:
        """`<<`: only the first level merges, what comes first wins, and the mapping's own entries always do."""
        entries: dict[str, Node] = {}
        places: dict[str, Place | None] = {}
        for node in (*reversed(merged), own):
            entries |= node.value if isinstance(node.value, dict) else {}  # it is one: _to_merge
            places |= node.key_places
            self._merged += len(node.key_places)
        if self._merged > MAX_NODES:
            self._findings.add(own.place, (), TOO_MANY)
            self._findings.raise_any()
        return mapping(entries, places, own.place)

    def _unknown_tag(self, raw: yaml.Node, path: Path) -> Node:
        return self._problem(raw, path, f"tag {_short(raw.tag)} is not allowed; a configuration is plain data")

    def _problem(self, raw: yaml.Node, path: Path, message: str) -> Node:
        self._findings.add(self._place(raw), path, message)
        return scalar(None, self._place(raw))

    def _place(self, raw: yaml.Node) -> Place:
        mark = raw.start_mark
        return self._place_at(mark.line + 1, mark.column + 1)


def _short(tag: str) -> str:
    return tag.replace(CORE, "!!")


def _parse_message(error: yaml.MarkedYAMLError, text: str) -> str:
    if isinstance(error, _Limit):
        return str(error.problem)
    context = f" ({error.context})" if error.context else ""
    return f"not valid YAML: {error.problem}{context}{_remedy(error, text)}"


def _position(error: yaml.MarkedYAMLError, text: str) -> tuple[int, int]:
    """Line and column; at the end of the text libyaml would name a line that is not there."""
    mark, lines = error.problem_mark or error.context_mark, text.splitlines() or [""]
    if mark is None:
        return 1, 1
    return (mark.line + 1, mark.column + 1) if mark.line < len(lines) else (len(lines), len(lines[-1]) + 1)


def _remedy(error: yaml.MarkedYAMLError, text: str) -> str:
    line = [*text.splitlines(), ""][_position(error, text)[0] - 1]
    if line[: len(line) - len(line.lstrip())].count("\t"):
        return "; YAML is indented with spaces, not with tabs"
    if "${" in line:
        return "; inside [] and {} write references in quotes, '${...}'"
    return ""


def _place_of_character(error: Any, text: str, place_at: Callable[[int, int], Place]) -> Place:
    """Where a character that YAML forbids stands; PyYAML gives no line for it."""
    before = text[: text.find(chr(error.character))] if isinstance(error.character, int) else ""
    return place_at(before.count("\n") + 1, len(before) - before.rfind("\n"))
