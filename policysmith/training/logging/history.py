"""What a run has met, row by row, in a CSV file that only grows.

In: rows of numbers as they come. Out: the file, and the rows of an earlier part of the run. A checkpoint notes how many
rows belong to it, so rows that a killed run wrote later, or half of one, are left out when it is resumed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from policysmith.store.files import replace_file

__all__ = ["History"]

Row = Sequence[float]


class History:
    """The rows of `<directory>/<name>`, under a heading; without a directory nothing is written.

    The file is opened anew for each write: a save puts another directory, with the same file in it, in place of this.
    """

    def __init__(self, directory: Path | None, name: str, columns: Sequence[str]) -> None:
        self.file = None if directory is None else directory / name
        self.name, self.columns, self.count = name, columns, 0
        self._begun, self._earlier = False, list[Row]()

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows; raises OSError."""
        self.count += len(rows)
        if self.file is None or not rows:
            return
        if not self._begun:
            self._begin()
        with self.file.open("ab") as stream:
            stream.write("".join(map(_line, rows)).encode())

    def sync(self) -> None:
        """Wait until the disk has all rows, before a checkpoint counts them."""
        if self.file is not None and self._begun:
            handle = os.open(self.file, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def take_up(self, directory: Path, count: int) -> list[list[float]]:
        """The first `count` rows of an earlier run's file, those of it that are whole; this one goes on after them."""
        rows = _read(directory / self.name, len(self.columns))[:count]
        self.count, self._earlier = len(rows), list(rows)
        return rows

    def take_over(self, rows: Sequence[Row]) -> None:
        """Go on after rows that were kept elsewhere; they are written with the next ones."""
        self.count, self._earlier = len(rows), list(rows)

    def _begin(self) -> None:
        """Write what there was in a file of its own: the old one may be that of a kept checkpoint too."""
        assert self.file is not None
        self.file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.file, (",".join(self.columns) + "\n" + "".join(map(_line, self._earlier))).encode())
        self._begun, self._earlier = True, []


def _line(row: Row) -> str:
    return ",".join(map(repr, row)) + "\n"


def _read(file: Path, width: int) -> list[list[float]]:
    """Whole rows of numbers; the heading is none, and neither is a line that was cut off."""
    rows = []
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    for line in text[: text.rfind("\n") + 1].splitlines():
        try:
            row = [_number(cell) for cell in line.split(",")]
        except ValueError:
            continue
        if len(row) == width:
            rows.append(row)
    return rows


def _number(cell: str) -> float:
    """A whole number stays one, so that rows that are written again are the rows that were read."""
    try:
        return int(cell)
    except ValueError:
        return float(cell)
