"""Silence a warning of torch's that tells our users nothing, with several threads at work.

`warnings.catch_warnings` exchanges the filters of the whole process and puts back those it met: of two threads inside
at once, the second to leave leaves the first one's filters behind for good. So one thread at a time is inside.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]


class _Inside:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start_anew)

    def _start_anew(self) -> None:
        """A forked process lacks the thread that would release the lock."""
        self.lock = threading.RLock()


_INSIDE = _Inside()


@contextmanager
def quiet(message: str = "") -> Iterator[None]:
    """Ignore warnings whose text begins so (a regular expression; all by default); one thread at a time."""
    with _INSIDE.lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message)
        yield
