"""How a component calls its module: with edges and with constants, and what of the result becomes which edge.

In: the tensors of a component's `in_keys`. Out: the module's arguments, and the values of its `out_keys`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from policysmith.errors import WiringError

__all__ = ["Call", "Edge", "edges_in"]


@dataclass(frozen=True)
class Edge:
    """The value of an edge by its name, among the arguments of a call."""

    name: str


@dataclass(frozen=True, eq=False)
class Call:
    """Arguments by position and by name, in which an `Edge` may stand at any depth; the rest are constants.

    `keys` are the parts of the result that become the component's out_keys; None takes the result as it is. `title` and
    `place` are what messages call it, and where it was written. `edges` are the names of the edges that it reads, each
    once: the component's in_keys.
    """

    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)
    keys: tuple[int | str, ...] | None = None
    title: str = ""
    place: str = ""
    edges: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", tuple(dict.fromkeys(edges_in([self.args, self.kwargs]))))

    def arguments(self, values: Sequence[object]) -> tuple[list[object], dict[str, object]]:
        """The arguments with the values of `edges` in place, containers anew."""
        known = dict(zip(self.edges, values, strict=True))
        return _filled(list(self.args), known), _filled(dict(self.kwargs), known)

    def parts(self, result: Any, names: Sequence[str | tuple[str, ...]]) -> Any:
        """What becomes the out_keys `names`, a tuple if there are several; WiringError for a result of other parts."""
        if self.keys is None:
            return result
        if not isinstance(result, fx.Proxy):  # which can't be looked into: the first call, by module, has done it
            _check(result, self.keys, names)
        parts = tuple(result[key] for key in self.keys)
        return parts[0] if len(parts) == 1 else parts

    def encode(self) -> object:
        """As a configuration writes it: a list, or a mapping from names; edges are `$name`."""
        return _written(dict(self.kwargs) if self.kwargs else list(self.args))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    @property
    def _text(self) -> str:
        """All that makes a difference to what is computed; 1, 1.0 and True are three values."""
        return repr((self.args, dict(self.kwargs), self.keys))


def edges_in(value: object) -> Iterator[str]:
    """The names of the edges in an argument, at any depth."""
    if isinstance(value, Edge):
        yield value.name
    elif isinstance(value, Mapping | list | tuple):
        for below in value.values() if isinstance(value, Mapping) else value:
            yield from edges_in(below)


def _check(result: object, keys: Sequence[int | str], names: Sequence[str | tuple[str, ...]]) -> None:
    if isinstance(keys[0], str):
        if not isinstance(result, Mapping):
            raise WiringError(f"out is a mapping, so a dict is expected; it gave a {type(result).__name__}")
        if missing := [key for key in keys if key not in result]:
            there = ", ".join(map(repr, result)) or "none"
            raise WiringError(f"out asks for {', '.join(map(repr, missing))}, which it does not give; keys: {there}")
    elif not isinstance(result, tuple | list):
        raise WiringError(f"out is a list, so a tuple or a list is expected; it gave a {type(result).__name__}")
    elif len(result) != len(keys):
        raise WiringError(f"out has {len(keys)} names, {', '.join(map(str, names))}, for {len(result)} results")


def _filled(value: Any, known: Mapping[str, object]) -> Any:
    if isinstance(value, Edge):
        return known[value.name]
    if isinstance(value, list):
        return [_filled(item, known) for item in value]
    return {key: _filled(item, known) for key, item in value.items()} if isinstance(value, dict) else value


def _written(value: object) -> object:
    if isinstance(value, Edge):
        return f"${value.name}"
    if isinstance(value, list):
        return [_written(item) for item in value]
    if isinstance(value, dict):
        return {key: _written(item) for key, item in value.items()}
    return f"${value}" if isinstance(value, str) and value.startswith("$") else value
