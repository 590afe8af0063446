"""Directories that change all at once: whoever looks, or a kill at any moment, finds the old contents or the new whole.

In: a path and the contents of its files. Out: a directory of these files and of all that others had put beside the old.
On Linux two directories trade names in one step. Elsewhere a replacement takes two renames: a kill in the instant
between them leaves the old directory under the name `.{name}.old-…` alone, where `find_directory` finds it, and the
next replacement puts it back.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import re
import secrets
import shutil
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "find_directory",
    "link_directory",
    "remove_left",
    "replace_directory",
    "replace_file",
    "sync_directory",
    "write_synced",
]

SiblingKind = Literal["tmp", "old"]

AT_FDCWD, RENAME_EXCHANGE = -100, 2
LIFE = secrets.token_hex(4)  # tells this process from an earlier one of its number: in a container each may be number 1
COUNT = itertools.count()
MAKER = re.compile(r"\d{1,9}-[0-9a-f]{8}\d+")  # how the names that `_sibling` gives end


def replace_directory(directory: Path, files: Mapping[str, bytes], own: Collection[str]) -> None:
    """Make `directory` hold `files`, and what it held before except the names in `own`.

    What is kept is hard-linked, so writers that have it open go on writing to the same file; where the file system
    has no hard links it is copied. Sub-directories are new ones of the old names. A symbolic link to a directory stays
    one. Raises OSError, and then nothing has changed.
    """
    target = directory.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    _tidy(target)
    fresh = _sibling(target, "tmp")
    try:
        fresh.mkdir()
        for name, content in files.items():
            write_synced(fresh / name, content)
        if target.is_dir():
            _carry(target, fresh, own)
            shutil.copymode(target, fresh)
        sync_directory(fresh)
        _put_in_place(fresh, target)
        sync_directory(target.parent)
        if fresh.is_dir():  # now the old one: files may have come to it since they were carried over
            _carry(fresh, target, own)
    finally:
        remove_left(fresh)


def link_directory(source: Path, names: Collection[str], goal: Path) -> None:
    """Make `goal` hold those files of `source` that are there, as the same files where there are hard links.

    It is for files that are replaced and never written to. All at once, in place of an older `goal`.
    """
    goal.parent.mkdir(parents=True, exist_ok=True)
    fresh = _sibling(goal, "tmp")
    try:
        fresh.mkdir()
        for name in names:
            with suppress(FileNotFoundError):
                _link(source / name, fresh / name)
        sync_directory(fresh)
        _put_in_place(fresh, goal)
        sync_directory(goal.parent)
    finally:
        remove_left(fresh)


def remove_left(fresh: Path) -> None:
    """Remove what was laid out under a name of its own, unless it has another name by now."""
    if os.path.lexists(fresh):  # to find that out is ten times as cheap as to remove nothing
        shutil.rmtree(fresh, ignore_errors=True)


def find_directory(directory: Path) -> Path:
    """`directory`, or if it is gone the old one that an interrupted replacement had set aside."""
    if directory.exists():
        return directory
    target = directory.resolve()
    aside = [] if os.path.lexists(target) else _siblings(target, "old")
    return aside[0] if aside else directory


def write_synced(file: Path, content: bytes) -> None:
    """Write a new file, and wait until the disk has it."""
    with file.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def replace_file(file: Path, content: bytes) -> None:
    """Put a file in the place of another, or of none, all at once; its directory must be there."""
    fresh = Path(f"{file}.{os.getpid()}.{secrets.token_hex(4)}~")
    try:
        write_synced(fresh, content)
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)
    sync_directory(file.parent)


def sync_directory(directory: Path) -> None:
    """Wait until the disk has the names of a directory."""
    if os.name != "posix":
        return  # elsewhere a directory can't be opened
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _carry(source: Path, goal: Path, skip: Collection[str]) -> None:
    """Link what is in `source` and not in `goal`, all but the names in `skip`."""
    for entry in list(source.iterdir()):
        below = goal / entry.name
        if entry.name in skip:
            continue
        with suppress(FileNotFoundError):  # its owner has removed it by now
            if entry.is_dir() and not entry.is_symlink():
                below.mkdir(exist_ok=True)
                _carry(entry, below, ())
                shutil.copystat(entry, below)
                sync_directory(below)
            elif not os.path.lexists(below):
                _link(entry, below)


def _link(source: Path, goal: Path) -> None:
    try:
        os.link(source, goal, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(source, goal, follow_symlinks=False)


def _put_in_place(fresh: Path, target: Path) -> None:
    """Give `fresh` the name `target`; a directory of that name gets the name of `fresh`."""
    try:
        fresh.rename(target)  # if there is none, or an empty one
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    if not _exchange(fresh, target):
        _exchange_by_renames(fresh, target)


def _exchange(fresh: Path, target: Path) -> bool:
    """Let two directories trade names in one step; False where the system or the file system cannot."""
    rename = _renameat2()
    if rename is None:
        return False
    if rename(AT_FDCWD, os.fsencode(fresh), AT_FDCWD, os.fsencode(target), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(target))


@cache
def _renameat2() -> Any:
    """The system's function, for which Python has none; None where the system has none either."""
    return getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None


def _exchange_by_renames(fresh: Path, target: Path) -> None:
    aside = _sibling(target, "old")
    target.rename(aside)
    try:
        fresh.rename(target)
    except OSError:
        aside.rename(target)
        raise
    aside.rename(fresh)


def _sibling(target: Path, kind: SiblingKind) -> Path:
    """A new hidden name beside `target`, which tells who made it."""
    return target.with_name(f".{target.name}.{kind}-{os.getpid()}-{LIFE}{next(COUNT)}")


def _siblings(target: Path, kind: SiblingKind) -> list[Path]:
    """The directories of such names, the youngest first."""
    start = f".{target.name}.{kind}-"
    found: list[tuple[float, Path]] = []
    for name in os.listdir(target.parent) if target.parent.is_dir() else ():  # noqa: PTH208 - most need no path
        if name.startswith(start) and MAKER.fullmatch(name, len(start)):
            with suppress(FileNotFoundError):  # gone while we look
                found.append(((target.parent / name).lstat().st_ctime, target.parent / name))
    return [path for _, path in sorted(found, reverse=True)]


def _tidy(target: Path) -> None:
    """Put back what a killed process had set aside, and remove what else such processes left."""
    for path in filter(_abandoned, _siblings(target, "old")):
        if not os.path.lexists(target):
            path.rename(target)
        else:
            _discard(path, target)
    for path in filter(_abandoned, _siblings(target, "tmp")):
        _discard(path, target)


def _discard(path: Path, target: Path) -> None:
    """Remove a directory; under a name of ours first, so that no owner who does live can put half of it in place."""
    ours = _sibling(target, "tmp")
    with suppress(OSError):
        path.rename(ours)
        shutil.rmtree(ours, ignore_errors=True)


def _abandoned(path: Path) -> bool:
    """Whether the process that made a `_sibling` has ended; where that cannot be known, it is taken to live."""
    pid, life = path.name.rsplit("-", 2)[1:]
    if int(pid) == os.getpid():
        return not life.startswith(LIFE)
    if os.name != "posix":
        return False  # os.kill would end it
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
