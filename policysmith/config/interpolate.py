"""Interpolation: `${a.b[0]}`, `${.sibling}` and `${env:int:NAME,7}` in strings become the values they name.

OmegaConf's grammar reads the strings; what they may reach is decided here: the configuration itself and `env`. No
OmegaConf node is made and no resolver registered, so other strings stay as they are, and the resolvers that a user or
OmegaConf has registered (`oc.env`, `oc.decode`, …) cannot be reached from a configuration.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from policysmith.config.environment import variable
from policysmith.config.located_data import (
    MAX_NODES,
    Findings,
    Node,
    Path,
    Refused,
    Scalar,
    children,
    dotted,
    quote,
    rebuilt,
    scalar,
)
from policysmith.config.overrides import parse_path
from policysmith.config.python_data import from_plain
from policysmith.errors import did_you_mean

__all__ = ["interpolate"]

MAX_TEXT = 10 * MAX_NODES
# A string that is one plain reference, which is nearly every one, needs no grammar: ANTLR takes 0.2 ms a string.
REFERENCE = re.compile(r"\$\{\s*(\.*[\w$-]+(?:\.[\w$-]+|\[[\w$-]+\])*)\s*\}", re.ASCII)


def interpolate(root: Node, findings: Findings) -> Node:
    """`root` with every interpolation replaced; a string that is one interpolation takes the type of its value."""
    return _Interpolator(root, findings).settled(root, ())


class _Broken(Exception):
    """A value is needed that has been reported as a problem."""


class _Part:
    """A mapping or a list on its way to be a whole value: it cannot become a part of a string."""

    def __init__(self, value: Node | dict[Any, Any] | list[Any]) -> None:
        self.value = value

    def __str__(self) -> str:
        raise Refused("a mapping or a list cannot be a part of a string")


class _Interpolator:
    def __init__(self, root: Node, findings: Findings) -> None:
        self._root, self._findings = root, findings
        self._done: dict[Path, Node | None] = {}  # None: broken
        self._chain: dict[Path, None] = {}
        self._characters = 0

    def settled(self, node: Node, path: Path) -> Node:
        """The node at `path` without interpolations in it or below it.

        Raises:
            _Broken: it is a string with a problem, already reported.
            Refused: it is part of a cycle.
        """
        if not node.has_interpolation:
            return node
        if path in self._chain:
            links = [*self._chain][[*self._chain].index(path) :]
            raise Refused(f"references form a cycle: {' → '.join(map(dotted, [*links, path]))}")
        if path not in self._done:
            self._chain[path] = None
            try:
                solve = self._string if isinstance(node.value, str) else self._container
                self._done[path] = solve(node, path)
            finally:
                del self._chain[path]
        done = self._done[path]
        if done is None:
            raise _Broken
        return done

    def _container(self, node: Node, path: Path) -> Node:
        below = {}
        for key, child in children(node):
            try:
                below[key] = self.settled(child, (*path, key))
            except _Broken:
                below[key] = scalar(None, child.place)
        return rebuilt(node, below)

    def _string(self, node: Node, path: Path) -> Node | None:
        """What the string stands for; None, and a problem, where it stands for nothing."""
        assert isinstance(node.value, str)
        try:
            result = self._evaluated(node.value, path)
        except Refused as refused:
            self._findings.add(node.place, path, f"{quote(node.value)}: {refused}")
            return None
        except _Broken:
            return None
        value = result.value if isinstance(result, _Part) else result
        if isinstance(value, Node):
            return replace(value, place=node.place)
        return _literal(from_plain(value, self._findings, path, node.place))

    def _evaluated(self, text: str, path: Path) -> Any:
        if match := REFERENCE.fullmatch(text):
            return self._reference(match[1], path[:-1])
        return _visit(text, lambda key: self._counted(self._reference(key, path[:-1])), self._resolved)

    def _reference(self, key: str, container: Path) -> Scalar | _Part:
        """The value that a reference inside `container` names; leading dots count the levels up, from one."""
        name = key.lstrip(".")
        ups = len(key) - len(name)
        if ups > len(container) + 1:
            raise Refused("more leading dots than levels above")
        start = container[: len(container) + 1 - ups] if ups else ()
        node = self._selected((*start, *parse_path(name)))
        return _Part(node) if isinstance(node.value, dict | list) else node.value

    def _selected(self, path: Path) -> Node:
        node = self._root
        for index, key in enumerate(path):
            if isinstance(node.value, str):
                node = self.settled(node, path[:index])
            node = _child(node, key, path[:index])
        return self.settled(node, path)

    def _counted(self, value: Scalar | _Part) -> Scalar | _Part:
        """Strings that grow out of strings grow exponentially; this ends it."""
        self._characters += len(value) if isinstance(value, str) else 0
        if self._characters > MAX_TEXT:
            raise Refused(f"references insert more than {MAX_TEXT:,} characters")
        return value

    def _resolved(self, resolver: str, args: tuple[Any, ...], texts: tuple[str, ...]) -> Scalar | _Part:
        if resolver != "env":
            remedy = did_you_mean(resolver, ["env"])
            raise Refused(f"unknown resolver {quote(resolver)}{remedy}; there are references and ${{env:NAME,default}}")
        value = variable(args, texts)
        return self._counted(_Part(value) if isinstance(value, dict | list) else value)


def _literal(node: Node) -> Node:
    """The same data, in which `${` is only text from now on."""
    literal = rebuilt(node, {key: _literal(child) for key, child in children(node)}) if node.size > 1 else node
    return replace(literal, has_interpolation=False)


def _child(node: Node, key: str | int, path: Path) -> Node:
    here = dotted(path) or "the top level"
    if isinstance(node.value, dict):
        if str(key) in node.value:
            return node.value[str(key)]
        raise Refused(f"there is no {quote(str(key))} in {here}{did_you_mean(key, node.value)}")
    if not isinstance(node.value, list):
        raise Refused(f"{here} has nothing below it")
    if not str(key).isdecimal() or int(key) >= len(node.value):
        raise Refused(f"{here} is a list of {len(node.value)} and has no index {key}")
    return node.value[int(key)]


def _visit(text: str, reference: Callable[[str], Any], resolver: Callable[..., Any]) -> Any:
    """The value of `text` in OmegaConf's grammar.

    OmegaConf exposes its grammar only through its visitor, whose first callback gets the key as a string up to
    version 2.3, and as an object that holds it as `raw` since.
    """
    from omegaconf.errors import OmegaConfBaseException
    from omegaconf.grammar_parser import parse
    from omegaconf.grammar_visitor import GrammarVisitor

    visitor = GrammarVisitor(
        lambda key, memo: reference(str(getattr(key, "raw", key))),
        lambda name, args, args_str: resolver(name, args, args_str),
        None,
    )
    try:
        result = visitor.visit(parse(text))
    except (OmegaConfBaseException, UserWarning, ValueError) as error:
        raise Refused(f"cannot be read as an interpolation ({error}); write \\${{ for a plain ${{") from None
    return str.__str__(result) if isinstance(result, str) else result
