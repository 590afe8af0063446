"""Source text that is changed at places of its syntax tree, so that comments and layout stay.

In: text and syntax nodes. Out: the text with the nodes' own characters replaced.
"""

from __future__ import annotations

import ast
import itertools
from typing import Any

__all__ = ["SourceText"]


class SourceText:
    """A text and the changes that are to be made to it, all at places of the original."""

    def __init__(self, text: str) -> None:
        # Lines as Python's parser counts them, which str.splitlines does not (form feeds, …); columns are bytes.
        self._bytes = text.replace("\r\n", "\n").replace("\r", "\n").encode()
        lengths = (len(line) + 1 for line in self._bytes.split(b"\n"))
        self._starts = list(itertools.accumulate(lengths, initial=0))
        self._changes: list[tuple[int, int, bytes]] = []

    def replace(self, node: Any, text: str) -> None:
        """Put `text` in place of a node."""
        start, end = self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)
        self._changes.append((start, end, text.encode()))

    def replace_name(self, node: ast.FunctionDef, name: str) -> None:
        """Rename a function where it is defined."""
        start = self._bytes.index(node.name.encode(), self._at(node.lineno, node.col_offset) + len("def"))
        self._changes.append((start, start + len(node.name.encode()), name.encode()))

    def insert_after(self, node: Any, text: str) -> None:
        """Put `text` where a node ends."""
        end = self._at(node.end_lineno, node.end_col_offset)
        self._changes.append((end, end, text.encode()))

    def insert_line(self, line: int, text: str) -> None:
        """Put whole lines before line number `line` (from 1)."""
        start = min(self._starts[line - 1], len(self._bytes))
        head = b"" if start == 0 or self._bytes[start - 1 : start] == b"\n" else b"\n"
        self._changes.append((start, start, head + text.encode() + b"\n"))

    def lines(self, first: int, last: int) -> str:
        """The changed text of the original's lines `first` … `last` (from 1, both included)."""
        begin, end = self._starts[first - 1], min(self._starts[last] - 1, len(self._bytes))
        text = self._bytes[begin:end]
        for start, stop, fresh in sorted(self._changes, reverse=True):
            if begin <= start and stop <= end:
                text = text[: start - begin] + fresh + text[stop - begin :]
        return text.decode()

    def text(self) -> str:
        """The whole changed text."""
        return self.lines(1, len(self._starts) - 1)

    def _at(self, line: int, column: int) -> int:
        return self._starts[line - 1] + column
