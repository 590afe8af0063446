"""A lock between processes that many may share or one may have alone; a killed process lets go of it.

In: a path for its two files. Out: context managers. Whoever waits to be alone holds back those who come later, so
steady sharing does not starve it. Threads of one process count as processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from policysmith.errors import CheckpointError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

__all__ = ["HAVE_LOCKS", "Lock"]

HAVE_LOCKS = fcntl is not None


class Lock:
    """`with lock.shared():` or `with lock.alone():`. It is not reentrant."""

    def __init__(self, path: Path) -> None:
        self._gate, self._room = path.with_suffix(".gate"), path.with_suffix(".lock")

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Together with others who share it."""
        with _held(self._gate, fcntl.LOCK_SH):
            room = _take(self._room, fcntl.LOCK_SH)
        try:
            yield
        finally:
            os.close(room)

    @contextmanager
    def alone(self, wait: bool = True) -> Iterator[None]:
        """Without anybody else; waits for those who share it now, or raises `BlockingIOError` if it shall not wait."""
        kind = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
        with _held(self._gate, kind), _held(self._room, kind):
            yield


@contextmanager
def _held(file: Path, kind: int) -> Iterator[None]:
    handle = _take(file, kind)
    try:
        yield
    finally:
        os.close(handle)  # which lets go of the lock


def _take(file: Path, kind: int) -> int:
    """A handle that holds the lock. Raises `CheckpointError` naming the file."""
    try:
        file.parent.mkdir(exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be opened: {error}; check the permissions of the store") from error
    try:
        fcntl.flock(handle, kind)
    except BaseException:
        os.close(handle)
        raise
    return handle
