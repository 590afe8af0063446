"""How a file is opened that a configuration, an artifact or a command names: a regular one, of a size that has room.

Opening a named pipe waits for a writer, `/dev/zero` never ends, and a socket or a device may do something when it is
opened. So nothing but a regular file is read, and no more of it than it had when it was looked at.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from policysmith.config.sizes import size_text

__all__ = ["MAX_TEXT_BYTES", "read_regular", "require_regular"]

MAX_TEXT_BYTES = 64 << 20  # of a file that is written by hand or holds plain data; a thousand times what one needs
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_regular(path: str | os.PathLike[str], limit: int | None = MAX_TEXT_BYTES) -> bytes:
    """The contents of a regular file of at most `limit` bytes (None: any size).

    Raises `OSError`, whose `strerror` is the reason, also where it is no regular file or a larger one.
    """
    handle = _opened(path)
    try:
        size = os.fstat(handle).st_size
        if limit is not None and size > limit:
            raise OSError(errno.EFBIG, f"it has {size_text(size)}, at most {size_text(limit)} are read", str(path))
        with os.fdopen(os.dup(handle), "rb") as stream:
            return stream.read(size)
    finally:
        os.close(handle)


def require_regular(path: str | os.PathLike[str]) -> int:
    """The size of a regular file that can be read, for readers that open it themselves; raises `OSError` as above."""
    handle = _opened(path)
    try:
        return os.fstat(handle).st_size
    finally:
        os.close(handle)


def _opened(path: str | os.PathLike[str]) -> int:
    """A descriptor of a regular file; nothing else is kept open, and nothing is waited for."""
    # Looked at before it is opened, since opening a device may do something; and after, in case it was exchanged.
    _refuse_special(Path(path).stat().st_mode, path)
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        _refuse_special(os.fstat(handle).st_mode, path)
    except OSError:
        os.close(handle)
        raise
    return handle


def _refuse_special(mode: int, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, f"it is {kind}, not a regular file", str(Path(path)))
