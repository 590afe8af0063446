"""What the commands print: results go to stdout, errors and everything that others print go to stderr."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from policysmith.errors import PolicysmithError, Problem

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

__all__ = [
    "chatter_to_stderr",
    "command_line",
    "count",
    "duration",
    "facts",
    "fits",
    "mean_and_deviation",
    "print_columns",
    "print_error",
    "print_json",
    "print_paragraph",
    "print_problems",
    "print_readings",
    "print_rich",
    "shown_path",
    "write_file",
]

PIPE_WIDTH = 120
LABEL = 10


def print_rich(what: RenderableType, *, to_stderr: bool = False, wrap: bool = False) -> None:
    """Print something of rich's; lines are left whole unless `wrap` fits them into the terminal."""
    _console(to_stderr).print(what, soft_wrap=not wrap)


def print_paragraph(text: str) -> None:
    """A text, broken into lines between its words."""
    import textwrap

    typer.echo(textwrap.fill(text, _console(False).width))


def fits(what: RenderableType) -> bool:
    """Whether it fits into the width of stdout with words whole."""
    from rich.measure import Measurement

    console = _console(False)
    return Measurement.get(console, console.options.update(width=1000), what).minimum <= console.width


def print_json(data: Any) -> None:
    """One JSON object on stdout."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def print_problems(problems: Iterable[Problem], *, to_stderr: bool = False) -> None:
    """A line a problem: where, what, why."""
    from rich.text import Text

    for problem in problems:
        if not problem.place and not problem.path:
            print_error(problem.message, to_stderr=to_stderr)
            continue
        place = (f"{problem.place}  ", "cyan") if problem.place else ""
        path = (f"{problem.path}: ", "bold") if problem.path else ""
        print_rich(Text.assemble(place, path, problem.message), to_stderr=to_stderr)


def print_readings(readings: Mapping[str, str]) -> None:
    """A line a leaf of the observation: what it is, and how it is read."""
    from rich.text import Text

    width = max(map(len, readings), default=0)
    for name, how in readings.items():
        print_rich(Text.assemble("    ", (name.ljust(width), "bold"), f"  {how}"))


def print_error(message: str, *, to_stderr: bool = True, label: str = "error") -> None:
    """What went wrong, in a sentence; `label` `note` for what is to be known beside it."""
    from rich.text import Text

    print_rich(Text.assemble((f"{label}: ", "bold red" if label == "error" else "bold"), message), to_stderr=to_stderr)


def facts(rows: Mapping[str, str | Text | Sequence[str]]) -> None:
    """Aligned lines `label  value`; a sequence takes a line an item under one label."""
    from rich.text import Text

    for label, value in rows.items():
        lines = [value] if isinstance(value, str | Text) else value
        for index, line in enumerate(lines):
            print_rich(Text.assemble((f"{'' if index else label:<{LABEL}}", "dim"), line))


def print_columns(rows: Sequence[Sequence[str]], widths: Sequence[int] = ()) -> None:
    """Indented rows with aligned cells; what does not fit on a line is cut, and the first column stands out."""
    from rich.text import Text

    widths = widths or [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    room = _console(False).width
    for row in rows:
        cells = [f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False)]
        line = Text.assemble("  ", (cells[0], "cyan"), *cells[1:], row[-1])
        line.rstrip()
        line.truncate(room, overflow="ellipsis")
        print_rich(line)


def chatter_to_stderr() -> AbstractContextManager[Any]:
    """While work is done: environments and plugins may print, and stdout is for results."""
    return redirect_stdout(sys.stderr)


def write_file(path: Path, text: str) -> None:
    """Write a text file, and the directories above it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PolicysmithError(f"cannot write {path}: {error.strerror or error}") from error


def shown_path(path: str | Path) -> str:
    """A path as a person at this prompt would write it."""
    absolute, here = Path(path).absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)


def command_line(words: Sequence[str]) -> str:
    """Words as one line for a shell."""
    return shlex.join(words)


def count(number: int, noun: str) -> str:
    """`1 component`, `4 components`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """`9.4 s`, `1 min 12 s`, `2 h 03 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def mean_and_deviation(mean: float, deviation: float) -> str:
    """`487.3 ± 21.4`, with as many decimals as the size of the two deserves."""
    size = max(abs(mean), abs(deviation))
    decimals = 1 if size >= 100 else 2 if size >= 1 else 3
    return f"{mean:,.{decimals}f} ± {deviation:,.{decimals}f}"


def _console(to_stderr: bool) -> Console:
    """A console that neither guesses at markup nor colours numbers; wide where nobody looks."""
    from rich.console import Console

    stream = sys.stderr if to_stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(stderr=to_stderr, width=width, markup=False, highlight=False, emoji=False)
