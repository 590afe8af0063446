"""One thread at a time: whoever makes code for an owner's modules, or exchanges them, holds the owner's lock.

The locks lie here and not in the owners, so that modules are copied and pickled as ever. They are re-entrant. Calls of
code that is made already take none.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

__all__ = ["exclusive"]


class _Locks:
    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, threading.RLock] = weakref.WeakKeyDictionary()
        self._guard = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start_anew)

    def of(self, owner: Any) -> threading.RLock:
        with self._guard:
            lock = self._known.get(owner)
            if lock is None:
                lock = self._known[owner] = threading.RLock()
            return lock

    def _start_anew(self) -> None:
        """A forked process has the locks that other threads held, but not the threads that would release them."""
        self._known, self._guard = weakref.WeakKeyDictionary(), threading.Lock()


_LOCKS = _Locks()


def exclusive(owner: Any) -> threading.RLock:
    """The lock of an owner, for `with`; owners are compared as objects and not kept alive."""
    return _LOCKS.of(owner)
