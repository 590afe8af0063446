"""A lock between processes that many may share or one may have alone; a killed process lets go of it.

In: a path for its two files. Out: context managers. Whoever waits to be alone holds back those who come later, so
steady sharing does not starve it. Threads of one process count as processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from policysmith.errors import CheckpointError, PolicysmithError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

__all__ = ["HAVE_LOCKS", "Lock", "claimed"]

HAVE_LOCKS = fcntl is not None
_CLAIMED: set[int] = set()  # handles that a forked child lets go of: it would hold a claim longer than its parent lives


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


@contextmanager
def claimed(file: Path, taken: str) -> Iterator[None]:
    """A piece of work for one process alone, as long as the context is open; `file` is there meanwhile.

    Raises `PolicysmithError` with the sentence `taken` where another has it. A killed process lets go of it.
    """
    if fcntl is None:
        yield
        return
    handle = _claim(file, taken)
    _CLAIMED.add(handle)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is held: who has opened it meanwhile sees that it has lost its name
        _CLAIMED.discard(handle)
        os.close(handle)


def _claim(file: Path, taken: str) -> int:
    file.parent.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            handle = _take(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PolicysmithError(taken) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), file.stat()):
                return handle
        os.close(handle)


def _let_go() -> None:
    for handle in _CLAIMED:
        os.close(handle)
    _CLAIMED.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _take(file: Path, kind: int) -> int:
    """A handle that holds the lock. Raises `CheckpointError` naming the file."""
    try:
        file.parent.mkdir(exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be opened: {error}; check the permissions of its directory") from error
    try:
        fcntl.flock(handle, kind)
    except BaseException:
        os.close(handle)
        raise
    return handle
