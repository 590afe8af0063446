"""What Python itself reports while code runs: files opened, programs run, modules imported, code compiled."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

HARMLESS = ("gc.", "cpython.", "builtins.id")
_seen: list[list[str]] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    lazy = event == "import" and str(arguments[0]).startswith(("numpy", "_"))  # what NumPy loads when it is first used
    if _seen and not lazy and not event.startswith(HARMLESS):
        _seen[-1].append(f"{event} {arguments[:1]}")


sys.addaudithook(_note)  # there is no way to take one away: it is silent unless somebody watches


@contextmanager
def watched() -> Iterator[list[str]]:
    """Events of this process while the block runs."""
    _seen.append([])
    try:
        yield _seen[-1]
    finally:
        _seen.pop()
