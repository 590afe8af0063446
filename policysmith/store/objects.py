"""Files named by the hash of what they hold, so that policies share what is the same: weights and configurations.

In: bytes. Out: their hash, by which they are found again, checked.
"""

from __future__ import annotations

import re

from policysmith.errors import CheckpointError
from policysmith.store.json_files import damaged, sha256
from policysmith.store.storage import Storage

__all__ = ["CONFIG", "FOLDER", "WEIGHTS", "Objects", "hash_of"]

FOLDER = "objects"
CONFIG, WEIGHTS = ".json", ".safetensors"
NAME = re.compile(rf"{FOLDER}/([0-9a-f]{{2}})/(\1[0-9a-f]{{62}})({re.escape(CONFIG)}|{re.escape(WEIGHTS)})")


class Objects:
    """The objects of a store; one that is younger than `fresh` seconds is not written again.

    Where locks keep a clean-up away, None: what is there stays, and is only put right if it is damaged.
    """

    def __init__(self, storage: Storage, fresh: float | None) -> None:
        self.storage, self.fresh = storage, fresh

    def name(self, digest: str, suffix: str) -> str:
        """The name of the file."""
        return f"{FOLDER}/{digest[:2]}/{digest}{suffix}"

    def add(self, content: bytes, suffix: str) -> str:
        """Keep the content; returns its hash."""
        digest = sha256(content)
        name = self.name(digest, suffix)
        if not self._is_there(name, content):
            self.storage.write(name, content)
        return digest

    def get(self, digest: str, suffix: str) -> bytes:
        """The content of that hash; raises `CheckpointError` naming the file if it is missing or damaged."""
        name = self.name(digest, suffix)
        content = self.storage.read(name)
        if sha256(content) != digest:
            raise damaged(self.storage.shown(name), f"the sha256 of its {len(content):,} bytes is not its name")
        return content

    def _is_there(self, name: str, content: bytes) -> bool:
        try:
            if not self.storage.exists(name) or self.storage.size(name) != len(content):
                return False
            if self.fresh is None:
                return self.storage.read(name) == content  # from the page cache: a save puts right what was damaged
            return self.storage.age(name) < self.fresh
        except CheckpointError:  # removed meanwhile
            return False


def hash_of(name: str) -> str | None:
    """The hash that a file's name says, or None for a file that is no object."""
    match = NAME.fullmatch(name)
    return match[2] if match else None
