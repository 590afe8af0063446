"""The walls of a process that runs skills' code, raised in two steps: around its files and network before the libraries
are loaded, around its system calls and resources after.

In: what the process still has to read and write. Out: which walls stand, and why the others do not.
"""

from __future__ import annotations

import site
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from policysmith.skills.walls import landlock, namespaces, seccomp

__all__ = ["Walls", "close_calls", "close_files", "close_network", "standing"]

# Which walls stand: name → what of it, or why it does not.
Walls = dict[str, str]

# What the C library and the array libraries look at while they run.
SYSTEM_FILES = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime",
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm", "/sys/devices/system",
    "/sys/fs/cgroup", "/dev/urandom", "/dev/random", "/dev/zero",
)  # fmt: skip


def close_network(walls: Walls) -> None:
    """Namespaces; only while there is one thread, so before any library is loaded."""
    walls["namespaces"] = _tried(namespaces.leave_network)


def close_files(walls: Walls, *, read: Iterable[Path] = (), write: Iterable[Path] = ()) -> None:
    """Landlock: the libraries and `read` can be read, what lies below `write` can be changed, nothing else."""
    places = [*readable_places(), *read], [Path("/dev/null"), *write]
    walls["landlock"] = _tried(lambda: f"version {landlock.close_files(*places)}")


def close_calls(walls: Walls, *, files: bool) -> None:
    """Seccomp, on all threads; `files`: no file may be changed or opened for writing."""

    def close() -> str:
        seccomp.close_calls(files=files)
        return "no program, process, socket" + (", write" if files else "")

    walls["seccomp"] = _tried(close)


def readable_places() -> list[Path]:
    """Where Python and its libraries lie. Never the root of the file system, nor a home folder as a whole."""
    places = [*sys.path, *site.getsitepackages(), sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()]
    never = {Path("/"), Path.home(), Path("/home"), Path("/root"), Path("/tmp"), Path(tempfile.gettempdir())}
    found = [Path(place).resolve() for place in places if place]
    return [place for place in dict.fromkeys(found) if place not in never] + [Path(name) for name in SYSTEM_FILES]


def standing(walls: Walls) -> list[str]:
    """In a line each: the walls that stand, then those that do not."""
    return [f"{name}: {what}" for name, what in sorted(walls.items(), key=lambda wall: wall[1].startswith("no wall"))]


def _tried(raise_wall: Callable[[], str]) -> str:
    try:
        return raise_wall()
    except OSError as error:
        return f"no wall ({error.strerror or error})"
