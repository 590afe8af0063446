"""What /proc tells of processes: when one started, who belongs to it, and how much memory they hold.

A process is known by its number and its start together: numbers are given again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HAVE_PROC", "Process", "families", "is_alive", "kill_all", "machine_memory", "resident_of", "start_of"]

PROC = Path("/proc")
HAVE_PROC = hasattr(os, "pidfd_open") and (PROC / "self" / "stat").exists()
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True)
class Process:
    """One process: number, parent, group, start (clock ticks since boot), resident bytes, and whether it has ended."""

    pid: int
    parent: int
    group: int
    start: int
    resident: int
    ended: bool


def start_of(pid: int) -> int | None:
    """When a process started; None if there is none, or it has ended."""
    found = _read(pid)
    return None if found is None or found.ended else found.start


def is_alive(pid: int, start: int) -> bool:
    """Whether the very process lives that has this number and started then."""
    return start_of(pid) == start


def resident_of(pid: int) -> int:
    """Resident bytes of one process, without its descendants; 0 if there is none."""
    found = _read(pid)
    return 0 if found is None else found.resident


def machine_memory() -> int:
    """Bytes of memory that this machine has."""
    return PAGE * os.sysconf("SC_PHYS_PAGES")


def families(leaders: Iterable[int]) -> dict[int, list[Process]]:
    """Of each leader's number: itself, its process group, and their descendants, also those in groups of their own."""
    everyone = list(_everyone())
    children: dict[int, list[Process]] = {}
    for process in everyone:
        children.setdefault(process.parent, []).append(process)
    found = {}
    for leader in leaders:
        todo = [process for process in everyone if leader in (process.pid, process.group)]
        family: dict[int, Process] = {}
        while todo:
            process = todo.pop()
            if process.pid not in family:
                family[process.pid] = process
                todo += children.get(process.pid, [])
        found[leader] = list(family.values())
    return found


def kill_all(processes: Iterable[Process]) -> None:
    """End them at once, those that still are what they were."""
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            if is_alive(process.pid, process.start):
                os.kill(process.pid, signal.SIGKILL)


def _everyone() -> Iterator[Process]:
    numbers = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal())
    return (process for process in map(_read, numbers) if process is not None)


def _read(pid: int) -> Process | None:
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name, in brackets, may hold anything; what follows are numbers from field 3 on.
    fields = text.rpartition(")")[2].split()
    state, parent, group, start, pages = fields[0], fields[1], fields[2], fields[19], fields[21]
    return Process(pid, int(parent), int(group), int(start), int(pages) * PAGE, state in "ZX")
