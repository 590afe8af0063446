"""Merging in schema version 1: mappings merge deeply, everything else is replaced, unless `_merge_` says otherwise.

In: a base and what is laid on it. Out: one tree, whose keys stand in the base's order and then in the upper one's.
"""

from __future__ import annotations

from collections.abc import Callable

from policysmith.config.located_data import (
    Findings,
    Node,
    Path,
    children,
    describe,
    mapping,
    quote,
    rebuilt,
    scalar,
    sequence,
)
from policysmith.errors import did_you_mean

__all__ = ["TEMPLATE", "Merger"]

DIRECTIVE, VALUE, FIELD, TEMPLATE = "_merge_", "_value_", "key", "_template_"
KEYS = (DIRECTIVE, VALUE, FIELD)


class Merger:
    """Merges trees and notes what is wrong with their directives, `{_merge_: mode, _value_: …}`."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._modes: dict[str, Callable[[list[Node], list[Node], str, Path], list[Node]]] = {
            "append": lambda base, over, field, path: [*base, *over],
            "prepend": lambda base, over, field, path: [*over, *base],
            "keyed": self._keyed,
        }

    def merge(self, base: Node, over: Node) -> Node:
        """`over` laid on `base`, both whole files."""
        return self.laid(self.settled(base), over, ())

    def laid(self, base: Node | None, over: Node, path: Path) -> Node:
        """`over` laid on `base` at `path`."""
        if isinstance(over.value, dict) and DIRECTIVE in over.value:
            return self._directed(base, over, path)
        if base is None or not isinstance(base.value, dict) or not isinstance(over.value, dict):
            return over
        entries = dict(base.value)
        for key, node in over.value.items():
            entries[key] = self.laid(entries.get(key), node, (*path, key))
        return mapping(entries, {**base.key_places, **over.key_places}, over.place)

    def settled(self, node: Node, path: Path = (), *, last: bool = False) -> Node:
        """`node` with directives that had nothing to be laid on: each gives its value.

        In a mapping with a template they wait for it, unless this is the `last` time.
        """
        waits = isinstance(node.value, dict) and TEMPLATE in node.value and not last
        if waits or not isinstance(node.value, dict | list):
            return node
        if isinstance(node.value, dict) and DIRECTIVE in node.value:
            return self.settled(self._directed(None, node, path), path, last=last)
        below = {key: self.settled(child, (*path, key), last=last) for key, child in children(node)}
        return rebuilt(node, below) if any(below[key] is not child for key, child in children(node)) else node

    def _directed(self, base: Node | None, over: Node, path: Path) -> Node:
        """What a directive makes of the base; where it is wrong, its value or the base."""
        assert isinstance(over.value, dict)
        mode, value, field = (over.value.get(key) for key in KEYS)
        assert mode
        if not self._is_right(over, path):
            return value or base or scalar(None, over.place)
        assert value
        if mode.value == "replace":
            return value
        below = base.value if base and base.value is not None else []
        if not isinstance(below, list):
            message = f"{mode.value} merges into a list, and there is {describe(base) if base else ''} below it"
            self._findings.add(over.place, path, message)
            return value
        assert isinstance(value.value, list) and isinstance(mode.value, str)
        merged = self._modes[mode.value](below, value.value, str(field.value) if field else "", path)
        return sequence(merged, over.place)

    def _is_right(self, over: Node, path: Path) -> bool:
        assert isinstance(over.value, dict)
        problems: list[tuple[str, str]] = []
        mode, value, field = (over.value.get(key) for key in KEYS)
        assert mode
        modes = ("replace", *self._modes)
        problems += [
            (key, f"unknown key beside {DIRECTIVE}{did_you_mean(key, KEYS)}; there are: {', '.join(KEYS)}")
            for key in over.value
            if key not in KEYS
        ]
        if mode.value not in modes:
            hint = did_you_mean(mode.value, modes)
            problems.append((DIRECTIVE, f"unknown way to merge {describe(mode)}{hint}; there are: {', '.join(modes)}"))
        if value is None:
            problems.append((DIRECTIVE, f"{VALUE} is missing: what to {mode.value}"))
        elif mode.value in self._modes and not isinstance(value.value, list):
            problems.append((VALUE, f"{mode.value} takes a list, found {describe(value)}"))
        if mode.value == "keyed" and not (field and isinstance(field.value, str) and field.value):
            problems.append((FIELD, f"keyed needs 'key': the field that tells entries apart, such as {FIELD}: name"))
        if field and mode.value != "keyed" and mode.value in modes:
            problems.append((FIELD, f"'key' belongs to keyed, and this is {mode.value}"))
        for key, message in problems:
            self._findings.add(over.value[key].place if key in over.value else over.place, (*path, key), message)
        return not problems

    def _keyed(self, base: list[Node], over: list[Node], field: str, path: Path) -> list[Node]:
        """Entries with the same field merge in the base's place; new ones come after."""
        merged = self._by_field(base, field, path, "the list below")
        for name, node in self._by_field(over, field, path, "this list").items():
            merged[name] = self.laid(merged.get(name), node, (*path, name))
        return list(merged.values())

    def _by_field(self, items: list[Node], field: str, path: Path, where: str) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for index, item in enumerate(items):
            here = (*path, index)
            name = item.value.get(field) if isinstance(item.value, dict) else None
            if not isinstance(item.value, dict):
                self._findings.add(item.place, here, f"keyed merges mappings, found {describe(item)} in {where}")
            elif name is None or not isinstance(name.value, str) or not name.value:
                self._findings.add(item.place, here, f"has no text as its {field!r}, which tells entries apart")
            elif name.value in found:
                self._findings.add(name.place, (*here, field), f"{quote(name.value)} stands twice in {where}")
            else:
                found[name.value] = item
        return found
