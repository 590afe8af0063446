"""JSON text becomes located data; the standard decoder reads the scalars, what is here knows the places.

YAML's parser would not do: it refuses tabs, surrogate pairs and long keys, which are all legal in JSON.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable

from policysmith.config.located_data import MAX_DEPTH, TOO_DEEP, Entries, Findings, Node, Path, Place, scalar, sequence

__all__ = ["read_json"]

SPACE = re.compile(r"[ \t\n\r]*")
SCALAR = json.JSONDecoder()


def read_json(text: str, place_at: Callable[[int, int], Place], findings: Findings) -> Node | None:
    """The value in `text`; None, and a problem, where it is no JSON. `place_at` takes line and column from 1."""
    reader = _Reader(text, place_at, findings)
    if not text.strip():
        findings.add(place_at(1, 1), (), "is empty; a mapping is needed")
        return None
    try:
        return reader.document()
    except json.JSONDecodeError as error:
        message = error.msg if error.msg == TOO_DEEP else f"not valid JSON: {error.msg[0].lower()}{error.msg[1:]}"
        findings.add(reader.place(error.pos), (), message)
        return None


class _Reader:
    """A descent over the text; `self._at` is the position of the next character to read."""

    def __init__(self, text: str, place_at: Callable[[int, int], Place], findings: Findings) -> None:
        self._text, self._place_at, self._findings = text, place_at, findings
        self._at = 0
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def document(self) -> Node:
        node = self._value(())
        if self._next():
            raise self._error("expected the end of the file")
        return node

    def place(self, at: int) -> Place:
        line = bisect_right(self._lines, at)
        return self._place_at(line, at - self._lines[line - 1] + 1)

    def _next(self) -> str:
        """The next character that is not space, unread; empty at the end."""
        self._at = SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it matches nothing, too
        return self._text[self._at : self._at + 1]

    def _value(self, path: Path) -> Node:
        first = self._next()
        if first not in ("{", "["):
            return self._scalar(path)
        if len(path) >= MAX_DEPTH:
            raise self._error(TOO_DEEP)
        return self._object(path) if first == "{" else self._array(path)

    def _scalar(self, path: Path) -> Node:
        place = self.place(self._at)
        try:
            value, self._at = SCALAR.raw_decode(self._text, self._at)
        except json.JSONDecodeError:
            raise
        except ValueError:
            raise self._error("a number with too many digits") from None
        return scalar(value, place)

    def _object(self, path: Path) -> Node:
        place, entries = self.place(self._at), Entries(self._findings, path)
        while self._more("}", first=not entries.nodes):
            key_at = self._at
            if self._next() != '"':
                raise self._error("expected a key in double quotes")
            key = str(self._scalar(path).value)
            if self._next() != ":":
                raise self._error("expected ':'")
            self._at += 1
            entries.add(key, self.place(key_at), self._value((*path, key)))
        return entries.node(place)

    def _array(self, path: Path) -> Node:
        place, items = self.place(self._at), list[Node]()
        while self._more("]", first=not items):
            items.append(self._value((*path, len(items))))
        return sequence(items, place)

    def _more(self, end: str, *, first: bool) -> bool:
        """Step over `[`, `{`, `,` or the end; true where another item follows."""
        if first:
            self._at += 1
        if self._next() == end:
            self._at += 1
            return False
        if not first:
            if self._next() != ",":
                raise self._error(f"expected ',' or '{end}'")
            self._at += 1
            self._next()
        return True

    def _error(self, message: str) -> json.JSONDecodeError:
        return json.JSONDecodeError(message, self._text, self._at)
