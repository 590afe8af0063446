"""The small files in a run's folder by which a worker and schedulers know of each other.

`worker.json` says who trains there, `progress.jsonl` how it goes, `result.json` how it ended, `worker.log` what went
wrong. Any of them may be missing, and the last line of what is appended to may be torn.
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from policysmith.errors import SkillError
from policysmith.store.files import replace_file

__all__ = [
    "HOPELESS",
    "LOG",
    "PROGRESS",
    "RESULT",
    "RunProgress",
    "Result",
    "SAVED",
    "WorkerRecord",
    "last_sign",
    "last_words",
    "read_progress",
    "read_result",
]

# Exit statuses of a worker, as sysexits.h has them; 0 when `result.json` is written, anything else is a failure.
SAVED = 75  # EX_TEMPFAIL: it was asked to stop and has saved, so it may go on later
HOPELESS = 78  # EX_CONFIG: what the file or the code says is wrong, and another attempt would fail alike

WORKER, PROGRESS, RESULT, LOG = "worker.json", "progress.jsonl", "result.json", "worker.log"
STATUSES = ("solved", "budget")
TAIL = 8192  # bytes


@dataclass(frozen=True)
class WorkerRecord:
    """The process that trains: its number, its start (see `processes`), which attempt it is, since when, and where."""

    pid: int
    start: int
    attempt: int
    since: float = field(default_factory=time.time)
    host: str = field(default_factory=socket.gethostname)

    def write(self, folder: Path) -> None:
        """Put it in place of an earlier one, all at once."""
        replace_file(folder / WORKER, json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, folder: Path) -> WorkerRecord | None:
        """The record of a folder; None where there is none that can be read."""
        try:
            return cls(**json.loads((folder / WORKER).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    @property
    def is_here(self) -> bool:
        """Whether it was started on this host."""
        return self.host == socket.gethostname()


@dataclass(frozen=True)
class RunProgress:
    """The latest line of `progress.jsonl`; None where it does not say."""

    step: int | None = None
    success_rate: float | None = None
    mean_return: float | None = None


@dataclass(frozen=True)
class Result:
    """What `result.json` says: `solved`, or `budget` where that was spent before."""

    status: str
    steps: int = 0
    seconds: float = 0.0
    success_rate: float | None = None


def read_progress(folder: Path) -> RunProgress:
    """How far a worker is, as its last whole line says."""
    for line in reversed(_tail(folder / PROGRESS).splitlines()):
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict):
            return RunProgress(said.get("step"), said.get("success_rate"), said.get("return"))
    return RunProgress()


def read_result(folder: Path) -> Result | None:
    """How a run ended; None if it has not. Raises `SkillError` for a file that says nothing of the kind."""
    file = folder / RESULT
    try:
        said: Any = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SkillError(f"{file}: cannot be read: {error}; remove it to train the run on") from None
    if not isinstance(said, dict) or said.get("status") not in STATUSES:
        raise SkillError(f"{file}: its status must be one of {', '.join(STATUSES)}, found {said!r:.80}")
    return Result(said["status"], said.get("steps", 0), said.get("seconds", 0.0), said.get("success_rate"))


def last_sign(folder: Path) -> float:
    """When a worker last told how it goes, in seconds since the epoch; 0 if it has not."""
    try:
        return (folder / PROGRESS).stat().st_mtime
    except OSError:
        return 0.0


def last_words(folder: Path) -> str:
    """The last line that is not empty of what a worker wrote to stderr."""
    lines = [line.strip() for line in _tail(folder / LOG).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _tail(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - TAIL))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""
