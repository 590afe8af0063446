"""The latest policies that were loaded, as data: what is built from it belongs to whoever asked.

In and out: a configuration and tensors by the id of a record. The tensors are only ever copied from.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Cache", "Stored"]

Stored = tuple[Mapping[str, Any], "Mapping[str, Tensor]"]


class Cache:
    """At most `size` policies; the one that was not asked for the longest goes first. Threads may share it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._found: OrderedDict[str, Stored] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._found)

    def get(self, id: str, read: Callable[[], Stored]) -> Stored:
        """What is kept of that id, or what `read` gives, which is kept from now on."""
        with self._lock:
            if id in self._found:
                self._found.move_to_end(id)
                return self._found[id]
        stored = read()  # outside the lock: reading takes long
        with self._lock:
            self._found[id] = stored
            while len(self._found) > self.size:
                self._found.popitem(last=False)
        return stored
