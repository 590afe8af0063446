"""Overrides: `a.b.c=value` sets, `a.0=value` and `a[0]=value` set an item of a list, `~a.b` removes.

They change the tree after `defaults` are merged and profiles (`+name`) are laid over it. What goes below a node with a
`template` waits in that node until the template is laid under it, so that an override wins over the template, and can
remove what came from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from policysmith.config.located_data import (
    Findings,
    Node,
    Override,
    Path,
    Place,
    Refused,
    describe,
    dotted,
    mapping,
    quote,
    scalar,
    sequence,
    with_edits,
)
from policysmith.config.yaml_text import read_yaml, scalar_node
from policysmith.errors import did_you_mean

__all__ = ["apply", "edited", "parse_path"]

SEGMENT = re.compile(r"\.?([^.\[\]]+)|\[([^\[\]]+)\]")


def apply(root: Node, texts: Iterable[str], findings: Findings) -> Node:
    """`root` after all overrides, in their order; what cannot be done becomes a problem that quotes the override."""
    for text in texts:
        place = Place(f"override {quote(text)}")
        path: Path = ()
        try:
            path, value = _parse(text, place, findings)
            root = edited(root, path, Override(path, value, place))
        except Refused as refused:
            findings.add(place, path, str(refused))
    return root


def _parse(text: str, place: Place, findings: Findings) -> tuple[Path, Node | None]:
    if not isinstance(text, str):
        raise Refused(f"an override is a text such as 'model.hidden=[64]', found a {type(text).__name__}")
    if text.startswith("~"):
        if "=" in text:
            raise Refused("a removal takes no value; write '~a.b' to remove and 'a.b=value' to set")
        return parse_path(text[1:].strip()), None
    name, equals, value = text.partition("=")
    if not equals:
        raise Refused("no '='; write 'a.b=value' to set and '~a.b' to remove; '+name' lays a profile over")
    path = parse_path(name.strip())
    if path[0] == "defaults":
        raise Refused("defaults are read before overrides; lay a file over with '+name', or set the value itself")
    return path, _value(value.strip(), path, place, findings)


def _value(text: str, path: Path, place: Place, findings: Findings) -> Node:
    """A flow list, a flow mapping or a quoted string is YAML; all else is one scalar, whatever signs are in it."""
    if text[:1] not in ("[", "{", "'", '"'):
        return scalar_node(text, place, path, findings)
    return read_yaml(text, lambda line, column: place, findings, path) or scalar(None, place)


def parse_path(text: str) -> Path:
    """`a.b[0].c` in parts; a number in brackets is an index, other text in brackets is a key, dots and all.

    Raises:
        Refused: the text is no path.
    """
    parts: list[str | int] = []
    at = 0
    while match := SEGMENT.match(text, at):
        key, bracketed = match.groups()
        parts.append(key or (int(bracketed) if bracketed.isdecimal() else bracketed))
        at = match.end()
    if at < len(text) or not text or text.startswith("."):
        raise Refused(f"{quote(text)} is not a path; write keys with dots and indices in brackets, as in 'a.b[0]'")
    return tuple(parts)


def edited(node: Node, path: Path, override: Override) -> Node:
    """`node` with the override done at `path` below it.

    Raises:
        Refused: the place does not exist, or cannot exist.
    """
    if not path:
        assert override.value
        return override.value
    if _waits_for_template(node, path, override):
        return with_edits(node, (*node.edits, (path, override)))
    if isinstance(node.value, dict):
        return _edited_mapping(node, node.value, path, override)
    if isinstance(node.value, list):
        return _edited_list(node, node.value, path, override)
    verb = "set" if override.value else "removed"
    raise Refused(f"nothing can be {verb} below {_done(path, override)}, which is {describe(node)}")


def _waits_for_template(node: Node, path: Path, override: Override) -> bool:
    if not isinstance(node.value, dict) or "template" not in node.value or path[-1] == "template":
        return False
    return override.path[0] != "templates" or path != override.path


def _edited_mapping(node: Node, entries: dict[str, Node], path: Path, override: Override) -> Node:
    key, rest = str(path[0]), path[1:]
    places = dict(node.key_places)
    if not rest or key not in entries:
        places[key] = override.place
    if key in entries and not rest and override.value is None:
        entries = {name: below for name, below in entries.items() if name != key}
    elif key in entries:
        entries = {**entries, key: edited(entries[key], rest, override)}
    elif override.value:
        entries = {**entries, key: _created(path, override)}
    else:
        raise Refused(f"there is no {quote(key)} in {_done(path, override)}{did_you_mean(key, entries)}")
    return with_edits(mapping(entries, places, node.place), node.edits)


def _created(path: Path, override: Override) -> Node:
    """What stands at the new key `path[0]`: the value, in as many new mappings as `path` has further keys."""
    assert override.value
    node = override.value
    for key in reversed(path[1:]):
        if isinstance(key, int):
            raise Refused(f"there is no list to which index {key} could belong")
        node = mapping({key: node}, {key: override.place}, override.place)
    return node


def _edited_list(node: Node, items: list[Node], path: Path, override: Override) -> Node:
    index = _index(path[0])
    if index is None or index >= len(items):
        allowed = f"an index from 0 to {len(items) - 1}" if items else "no index, it is empty"
        raise Refused(f"{_done(path, override)} is a list and takes {allowed}; found {path[0]}")
    removes = override.value is None and not path[1:]
    changed = [] if removes else [edited(items[index], path[1:], override)]
    return sequence([*items[:index], *changed, *items[index + 1 :]], node.place)


def _index(key: str | int) -> int | None:
    return int(key) if isinstance(key, int) or key.isdecimal() else None


def _done(path: Path, override: Override) -> str:
    """The part of the override's path that was walked when `path` was left."""
    return dotted(override.path[: len(override.path) - len(path)]) or "the top level"
