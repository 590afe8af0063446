"""Storage: the files of a store as named bytes in a local directory. Names are relative, with '/' between their parts.

In: names and bytes. Out: bytes. A file appears whole or not at all. `remote_storage` is the same on other machines.
"""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from policysmith.errors import CheckpointError
from policysmith.store.files import sync_directory, write_synced

__all__ = ["LocalStorage", "Storage", "TEMPORARY"]

TEMPORARY = "tmp"
COUNT = itertools.count()


class Storage(Protocol):
    """Files by name. What fails raises `CheckpointError` naming the file."""

    def shown(self, name: str) -> str:
        """The file as messages name it."""
        ...

    def read(self, name: str) -> bytes:
        """Its content."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Put it there, in place of what there was, all at once and for good."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        ...

    def size(self, name: str) -> int:
        """Its bytes."""
        ...

    def age(self, name: str) -> float:
        """Seconds since it was written."""
        ...

    def remove(self, name: str) -> None:
        """Remove it, if it is there."""
        ...

    def names(self, folder: str) -> list[str]:
        """The names of all files below a folder, sorted; none where there is no such folder."""
        ...


class LocalStorage:
    """A directory of this machine, or one that looks like it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def shown(self, name: str) -> str:
        """The file as messages name it."""
        return str(self.root / name)

    def read(self, name: str) -> bytes:
        """Its content."""
        return self._done(name, (self.root / name).read_bytes)

    def write(self, name: str, content: bytes) -> None:
        """Put it there, in place of what there was, all at once and for good."""
        self._done(name, lambda: self._write(self.root / name, content))

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.root / name).is_file()

    def size(self, name: str) -> int:
        """Its bytes."""
        return int(self._done(name, (self.root / name).stat).st_size)

    def age(self, name: str) -> float:
        """Seconds since it was written."""
        return time.time() - float(self._done(name, (self.root / name).stat).st_mtime)

    def remove(self, name: str) -> None:
        """Remove it, if it is there."""
        self._done(name, lambda: (self.root / name).unlink(missing_ok=True))

    def names(self, folder: str) -> list[str]:
        """The names of all files below a folder, sorted; none where there is no such folder."""
        start = len(str(self.root)) + 1
        return sorted(
            f"{above[start:]}/{file}".replace(os.sep, "/")
            for above, _, files in os.walk(self.root / folder)
            for file in files
        )

    def _write(self, file: Path, content: bytes) -> None:
        temporary = self.root / TEMPORARY / f"{os.getpid()}-{secrets.token_hex(4)}-{next(COUNT)}"
        for folder in (temporary.parent, file.parent):
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                sync_directory(folder.parent)
        try:
            write_synced(temporary, content)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(file.parent)

    def _done(self, name: str, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except FileNotFoundError:
            raise CheckpointError(f"{self.shown(name)}: is missing; restore it from a copy") from None
        except OSError as error:
            raise CheckpointError(f"{self.shown(name)}: {error}; check permissions and room") from error
