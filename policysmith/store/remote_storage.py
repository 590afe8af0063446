"""Where the files of a store lie: anywhere that fsspec reaches, `s3://`, `gs://`, `hf://`, `memory://`.

In: names and bytes. Out: bytes. Object stores put a file all at once; elsewhere a half-written one fails its hash.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from policysmith.errors import CheckpointError, missing_extra

__all__ = ["RemoteStorage"]

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}


class RemoteStorage:
    """A folder of a remote file system; options and credentials come from fsspec's own configuration.

    Raises `MissingExtraError` where the package for such URIs is not installed, and `CheckpointError` for others.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        protocol = uri.partition("://")[0]
        try:
            from fsspec.core import url_to_fs  # a dependency of torch

            self._files, root = url_to_fs(self.uri)
        except ImportError:
            raise missing_extra(PACKAGES.get(protocol, f"what fsspec needs for {protocol}://"), "store") from None
        except ValueError as error:
            raise CheckpointError(f"{uri}: {error}; s3://, gs://, hf:// and memory:// are known") from None
        self._root = root.rstrip("/")

    def shown(self, name: str) -> str:
        """The file as messages name it."""
        return f"{self.uri}/{name}"

    def read(self, name: str) -> bytes:
        """Its content."""
        return bytes(self._done(name, lambda: self._files.cat_file(self._path(name))))

    def write(self, name: str, content: bytes) -> None:
        """Put it there, in place of what there was."""
        self._done(name, lambda: self._write(self._path(name), content))

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return bool(self._done(name, lambda: self._files.isfile(self._path(name))))

    def size(self, name: str) -> int:
        """Its bytes."""
        return int(self._done(name, lambda: self._files.size(self._path(name))))

    def age(self, name: str) -> float:
        """Seconds since it was written, by the clock of the remote side."""
        return time.time() - self._done(name, lambda: self._files.modified(self._path(name))).timestamp()

    def remove(self, name: str) -> None:
        """Remove it, if it is there."""
        if self.exists(name):
            self._done(name, lambda: self._files.rm_file(self._path(name)))

    def names(self, folder: str) -> list[str]:
        """The names of all files below a folder, sorted; none where there is no such folder."""
        self._files.invalidate_cache()  # others write there too
        found = self._done(folder, lambda: self._found(folder))
        start = len(self._root) + 1
        return sorted(path[start:] for path in found)

    def _found(self, folder: str) -> list[str]:
        try:
            return list(self._files.find(self._path(folder)))
        except FileNotFoundError:
            return []

    def _write(self, path: str, content: bytes) -> None:
        try:
            self._files.pipe_file(path, content)
        except FileNotFoundError:  # a file system that has directories
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(path, content)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _done(self, name: str, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except FileNotFoundError:
            raise CheckpointError(f"{self.shown(name)}: is missing; restore it from a copy") from None
        except Exception as error:  # each service has a family of its own
            raise CheckpointError(f"{self.shown(name)}: {type(error).__name__}: {error}") from error
