"""A URI becomes the parts of a store: where its files lie, what lists them, and the lock that its writers share.

In: a path or a URI. Out: a place, a catalogue, and a lock where there are locks.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from policysmith.errors import CheckpointError
from policysmith.store.catalogue import Catalogue, IndexedCatalogue, ListedCatalogue
from policysmith.store.file_names import MARK, MARK_CONTENT, RECORDS
from policysmith.store.json_files import check_format, damaged, parsed
from policysmith.store.locks import HAVE_LOCKS, Lock
from policysmith.store.record_index import Index
from policysmith.store.remote_storage import RemoteStorage
from policysmith.store.storage import TEMPORARY, LocalStorage, Storage

__all__ = ["is_store", "open_store"]

INDEX, LOCKS = "index.sqlite", "locks"
URI = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)


def open_store(uri: str) -> tuple[Storage, Catalogue, Lock | None]:
    """The parts of the store at `uri`; makes nothing. Raises `MissingExtraError` and `CheckpointError`."""
    match = URI.match(uri)
    if match and match[1].lower() not in ("file", "local"):
        remote = RemoteStorage(uri)
        return remote, ListedCatalogue(remote), None
    root = Path(uri[match.end() :] if match else uri).expanduser().absolute()  # stays where it is if a process moves
    storage = LocalStorage(root)
    if not HAVE_LOCKS or (root.is_dir() and not os.access(root, os.W_OK)):  # a read-only store needs no index
        return storage, ListedCatalogue(storage), None
    lock = Lock(root / LOCKS / "store")
    index = Index(root / INDEX, Lock(root / LOCKS / "index"))
    return storage, IndexedCatalogue(storage, index, lock), lock


def is_store(storage: Storage) -> bool:
    """Whether there is a store; raises `CheckpointError` where there is something else, or one that is damaged."""
    if not storage.exists(MARK):
        if storage.names(RECORDS):
            raise CheckpointError(f"{storage.shown(MARK)}: is missing from a store of policies; restore it from a copy")
        if isinstance(storage, LocalStorage) and _holds_other_files(storage.root):
            remedy = "choose another directory, or move this one away"
            raise CheckpointError(f"{storage.root}: holds files but no store of policies; {remedy}")
        return False
    file, content = storage.shown(MARK), storage.read(MARK)
    if content != MARK_CONTENT:
        check_format(file, parsed(file, content))
        raise damaged(file, f"it should hold {MARK_CONTENT.decode().strip()}")
    return True


def _holds_other_files(root: Path) -> bool:
    if root.exists() and not root.is_dir():
        return True
    return root.is_dir() and any(entry.name not in (TEMPORARY, LOCKS) for entry in root.iterdir())
