"""Templates in schema version 1: a mapping with `_template_: name` is laid on that entry of the top-level `templates`.

In: the tree after defaults. Out: the tree without `templates`; what a mapping says itself wins, and `_merge_` holds.
"""

from __future__ import annotations

from policysmith.config.defaults import without
from policysmith.config.located_data import Findings, Node, Path, children, describe, quote, rebuilt
from policysmith.dialects.policy_constructor.composition.merge import TEMPLATE, Merger
from policysmith.errors import did_you_mean

__all__ = ["expand"]


def expand(root: Node, merger: Merger, findings: Findings) -> Node:
    """`root` with every template laid under what uses it."""
    assert isinstance(root.value, dict)
    definitions = root.value.get("templates")
    if definitions is not None and not isinstance(definitions.value, dict | None):
        message = f"templates takes a mapping from names to mappings, found {describe(definitions)}"
        findings.add(definitions.place, ("templates",), message)
    expander = _Expander(definitions, merger, findings)
    return expander.expand(without(root, "templates"), ())


class _Expander:
    def __init__(self, definitions: Node | None, merger: Merger, findings: Findings) -> None:
        self._merger, self._findings = merger, findings
        self._raw = definitions.value if definitions and isinstance(definitions.value, dict) else {}
        self._ready: dict[str, Node] = {}
        self._chain: list[str] = []

    def expand(self, node: Node, path: Path) -> Node:
        """`node` without templates below."""
        below = {key: self.expand(child, (*path, key)) for key, child in children(node) if key != TEMPLATE}
        name = node.value.get(TEMPLATE) if isinstance(node.value, dict) else None
        if name is None:
            changed = any(below[key] is not child for key, child in children(node))
            return rebuilt(node, below) if changed else node
        template = self._template(name, (*path, TEMPLATE))
        own = rebuilt(node, below)
        return self._merger.laid(self._merger.settled(template), own, path) if template else own

    def _template(self, name: Node, path: Path) -> Node | None:
        """The template that an entry names, expanded; None, and a problem, where there is none."""
        problem = None
        if not isinstance(name.value, str):
            problem = f"takes the name of a template, found {describe(name)}"
        elif name.value in self._chain:
            cycle = " → ".join([*self._chain[self._chain.index(name.value) :], name.value])
            problem = f"templates form a cycle: {cycle}"
        elif name.value not in self._raw:
            known = ", ".join(map(repr, self._raw)) or "none"
            hint = did_you_mean(name.value, self._raw) or f"; defined: {known}"
            problem = f"unknown template {quote(name.value)}{hint}"
        elif not isinstance(self._raw[name.value].value, dict):
            problem = f"template {quote(name.value)} must be a mapping, found {describe(self._raw[name.value])}"
        if problem:
            self._findings.add(name.place, path, problem)
            return None
        return self._body(str(name.value))

    def _body(self, name: str) -> Node:
        if name not in self._ready:
            self._chain.append(name)
            self._ready[name] = self.expand(self._raw[name], ("templates", name))
            self._chain.pop()
        return self._ready[name]
