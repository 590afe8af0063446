"""Configurations that Hydra composed: a `defaults` list names files beside this one, `${…}` names values.

In: a file. Out: a `Document`, one mapping with every value's place. Nothing is imported or instantiated.
"""

from __future__ import annotations

from functools import reduce
from pathlib import Path

from policysmith.config.defaults import read_file, without
from policysmith.config.interpolate import interpolate
from policysmith.config.load import Document
from policysmith.config.located_data import (
    MAX_DEPTH,
    MAX_NODES,
    TOO_DEEP,
    TOO_MANY,
    Findings,
    Node,
    Place,
    Refused,
    describe,
    mapping,
    merge,
    quote,
)
from policysmith.config.python_data import to_plain
from policysmith.errors import ConfigError

__all__ = ["read_composed"]

SELF = "_self_"
MOUNT = "agent"  # under which whole configurations hold what an agent's file has at the top
REMEDY = "compose it with Hydra first and import what it prints (--cfg job --resolve)"


def read_composed(file: Path) -> Document:
    """The file laid on its `defaults` (the file wins, unless `_self_` stands elsewhere), references resolved.

    What the file has at the top can be referred to under `agent` as well. Raises `ConfigError` with every problem.
    """
    findings = Findings()
    try:
        root = _Composer(findings).read(file, ())
    except Refused as refused:
        raise ConfigError(str(refused)) from None
    if root is None or findings.incomplete:
        findings.raise_any()
    assert root is not None
    if root.size > MAX_NODES or root.depth > MAX_DEPTH:
        raise ConfigError(f"{file}: {TOO_MANY if root.size > MAX_NODES else TOO_DEEP}")
    root = interpolate(_mounted(root), findings)
    findings.raise_any()
    places: dict[tuple[str | int, ...], Place] = {}
    key_places: dict[tuple[str | int, ...], Place] = {}
    return Document(to_plain(root, places, key_places), places, key_places, file.parent.absolute())


def _mounted(root: Node) -> Node:
    assert isinstance(root.value, dict)
    if MOUNT in root.value:
        return root
    return mapping({**root.value, MOUNT: root}, root.key_places, root.place)


class _Composer:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def read(self, file: Path, chain: tuple[Path, ...]) -> Node | None:
        root = read_file(file, self._findings)
        if root is None:
            self._findings.incomplete = True
            return None
        assert isinstance(root.value, dict)
        own = without(root, "defaults")
        listed = root.value.get("defaults")
        entries = listed.value if listed is not None else []
        if not isinstance(entries, list):
            assert listed is not None
            self._problem(listed, f"expected a list of files, found {describe(listed)}")
            return own
        layers = [own if entry.value == SELF else self._layer(entry, file, (*chain, file)) for entry in entries]
        layers += [] if any(entry.value == SELF for entry in entries) else [own]
        return reduce(merge, [layer for layer in layers if layer is not None])

    def _layer(self, entry: Node, file: Path, chain: tuple[Path, ...]) -> Node | None:
        """What one entry names: `name`, or `group: name`, whose values lie under the group."""
        group, name = "", entry.value
        if isinstance(name, dict) and len(name) == 1:
            (group, option), *_ = name.items()
            name = option.value
        if not isinstance(name, str) or any(mark in f"{group}{name}" for mark in " @:"):
            self._problem(entry, f"{describe(entry)} is beyond what is understood here; {REMEDY}")
            return None
        path = file.parent / group / (name if Path(name).suffix in (".yaml", ".yml") else f"{name}.yaml")
        if path.resolve() in [link.resolve() for link in chain]:
            self._problem(entry, f"defaults form a cycle: {quote(name)} is on the way to itself")
            return None
        try:
            node = self.read(path, chain)
        except Refused as refused:
            self._problem(entry, str(refused))
            self._findings.incomplete = True
            return None
        for key in reversed(group.split("/") if group else []):
            node = node and mapping({key: node}, {key: entry.place}, entry.place)
        return node

    def _problem(self, node: Node, message: str) -> None:
        self._findings.add(node.place, ("defaults",), message)
