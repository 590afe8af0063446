"""Landlock: which files a process may read and write, by what lies below which folders.

In: folders. Out: a rule on this thread, and all that it starts later, for good. It also closes TCP, signals to others
and abstract Unix sockets, where the kernel is new enough.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from policysmith.skills.walls.system import no_new_privileges, system_call

__all__ = ["close_files"]

CREATE, ADD_RULE, RESTRICT = 444, 445, 446  # the same on every processor
ASK_VERSION, BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_DEVICES = 1 << 6 | 1 << 9 | 1 << 11  # character devices, sockets, block devices
TRUNCATE, IOCTL_DEVICE = 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE  # rights that a single file can have
# What each version of the interface knows of files; TCP came with the fourth, scopes with the sixth.
RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
TCP, SCOPES = 0b11, 0b11


def version() -> int:
    """The kernel's version of Landlock. Raises OSError where there is none, or it is switched off."""
    return system_call(CREATE, None, 0, ASK_VERSION)


def close_files(read: Iterable[Path], write: Iterable[Path]) -> int:
    """Only what lies below `read` can be read, below `write` all but executed; what does not exist is left out.

    Returns the version. Raises OSError where the kernel has no Landlock.
    """
    known = version()
    handled = RIGHTS[max(number for number in RIGHTS if number <= known)]
    words = [handled, TCP if known >= 4 else 0, SCOPES if known >= 6 else 0]
    sized = struct.pack("=3Q", *words)[: 8 if known < 4 else 16 if known < 6 else 24]
    rules = system_call(CREATE, ctypes.create_string_buffer(sized, len(sized)), len(sized), 0)
    try:
        for path in read:
            _allow(rules, path, READ_FILE | READ_DIR)
        for path in write:
            _allow(rules, path, handled & ~(EXECUTE | MAKE_DEVICES))
        no_new_privileges()
        system_call(RESTRICT, rules, 0)
    finally:
        os.close(rules)
    return known


def _allow(rules: int, path: Path, rights: int) -> None:
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rights = rights if path.is_dir() else rights & OF_FILES
            rule = struct.pack("=Qi", rights, handle)
            system_call(ADD_RULE, rules, BENEATH, ctypes.create_string_buffer(rule, len(rule)), 0)
        finally:
            os.close(handle)
