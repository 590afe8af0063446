"""Templates: a mapping with `template: name` is laid on the mapping of that name in the top-level `templates`.

In: the tree after defaults and overrides. Out: the tree without templates; what a mapping says itself wins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from policysmith.config.defaults import without
from policysmith.config.located_data import Findings, Node, Path, Refused, children, describe, merge, quote, rebuilt
from policysmith.config.overrides import edited
from policysmith.errors import did_you_mean

__all__ = ["expand_templates", "template_names"]


def template_names(root: Node) -> tuple[str, ...]:
    """The templates that a file defines itself."""
    node = root.value.get("templates") if isinstance(root.value, dict) else None
    return tuple(node.value) if node and isinstance(node.value, dict) else ()


def expand_templates(root: Node, own: Iterable[str], findings: Findings) -> Node:
    """`root` with every template laid under what uses it; the templates named by `own` must be in use."""
    assert isinstance(root.value, dict)
    definitions = root.value.get("templates")
    if definitions is None and not root.has_template:
        return root
    expander = _Expander(definitions, findings)
    expanded = expander.expand(without(root, "templates"), ())
    expander.finish(own)
    return expanded


class _Expander:
    def __init__(self, definitions: Node | None, findings: Findings) -> None:
        self._findings = findings
        self._definitions = definitions
        self._raw = self._checked(definitions) if definitions else {}
        self._ready: dict[str, Node] = {}
        self._chain: list[str] = []
        self._done: dict[int, tuple[Node, Node]] = {}  # with the node, so that its id stays taken

    def _checked(self, definitions: Node) -> dict[str, Node]:
        """The definitions that are mappings; the others are problems."""
        if not isinstance(definitions.value, dict):
            message = f"templates takes a mapping from names to mappings, found {describe(definitions)}"
            self._findings.add(definitions.place, ("templates",), message)
            return {}
        for name, node in definitions.value.items():
            if not isinstance(node.value, dict):
                self._findings.add(
                    node.place, ("templates", name), f"a template must be a mapping, found {describe(node)}"
                )
        return {name: node for name, node in definitions.value.items() if isinstance(node.value, dict)}

    def expand(self, node: Node, path: Path) -> Node:
        """`node` without templates below; what is shared stays shared, and is expanded once."""
        if not node.has_template:
            return node
        if id(node) not in self._done:
            self._done[id(node)] = node, self._expanded(node, path)
        return self._done[id(node)][1]

    def _expanded(self, node: Node, path: Path) -> Node:
        below = {}
        for key, child in children(node):
            if key != "template":
                below[key] = self.expand(child, (*path, key))
        own = rebuilt(node, below)
        name = node.value.get("template") if isinstance(node.value, dict) else None
        template = self._template(name, (*path, "template")) if name else None
        return self._edited(merge(template, own) if template else own, node)

    def _edited(self, expanded: Node, node: Node) -> Node:
        """The overrides that waited for the template."""
        for below, override in node.edits:
            value = self.expand(override.value, override.path) if override.value else None
            try:
                expanded = edited(expanded, below, replace(override, value=value))
            except Refused as refused:
                self._findings.add(override.place, override.path, str(refused))
        return expanded

    def _template(self, name: Node, path: Path) -> Node | None:
        """The template that a `template:` entry names, expanded."""
        if not isinstance(name.value, str):
            self._findings.add(name.place, path, f"template takes the name of a template, found {describe(name)}")
            return None
        if name.value in self._chain:
            cycle = " → ".join([*self._chain[self._chain.index(name.value) :], name.value])
            self._findings.add(name.place, path, f"templates form a cycle: {cycle}")
            return None
        if name.value not in self._raw:
            self._unknown(name, path)
            return None
        return self._body(name.value)

    def _unknown(self, name: Node, path: Path) -> None:
        defined = self._definitions.value if self._definitions and isinstance(self._definitions.value, dict) else {}
        if name.value in defined:
            return  # it is no mapping, which has been said
        known = ", ".join(map(repr, defined)) or "none"
        remedy = did_you_mean(name.value, defined) or f"; defined: {known}"
        self._findings.add(name.place, path, f"unknown template {quote(name.value)}{remedy}")

    def _body(self, name: str) -> Node:
        if name not in self._ready:
            self._chain.append(name)
            self._ready[name] = self.expand(self._raw[name], ("templates", name))
            self._chain.pop()
        return self._ready[name]

    def finish(self, own: Iterable[str]) -> None:
        """Report the templates of `own` that nothing has used so far, and what is wrong inside any template."""
        unused = [name for name in own if name in self._raw and name not in self._ready]
        for name in unused:
            place = self._definitions.key_places.get(name) if self._definitions else None
            self._findings.add(place, ("templates", name), f"unused template {quote(name)}")
        for name in self._raw:
            self._body(name)
