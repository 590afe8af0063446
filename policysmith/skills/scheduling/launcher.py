"""What runs workers: the contract of the slot `launcher`, and the jobs that it gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from policysmith.skills.scheduling.settings import Resources

__all__ = ["Ended", "Job", "Launcher"]


@dataclass(frozen=True)
class Job:
    """One attempt to train a skill: a command, the run's folder, and its limits.

    `seconds` is wall time in all, `silence` that between the signs of life in `progress.jsonl`.
    """

    skill: str
    folder: Path
    argv: tuple[str, ...]
    attempt: int = 1
    seconds: float | None = None
    resources: Resources = field(default_factory=Resources)
    silence: float | None = None


@dataclass(frozen=True)
class Ended:
    """A worker that is gone. `status` is its exit status, negative for a signal, None where nobody saw it.

    `reason` says why the launcher ended it, if it did.
    """

    skill: str
    status: int | None
    reason: str = ""


class Launcher(Protocol):
    """A type of the slot `launcher`. What it started outlives a scheduler that is killed, or is ended with it."""

    def start(self, job: Job) -> None:
        """Start a worker in the job's folder."""
        ...

    def adopt(self, job: Job) -> bool:
        """Take over the worker that an earlier scheduler has started there; False if none is alive."""
        ...

    def stop(self, skill: str) -> None:
        """Ask a worker to save and end; it is ended if it does not."""
        ...

    def wait(self, seconds: float) -> list[Ended]:
        """Those that have ended; waits until there is one, but no longer than `seconds`."""
        ...

    def close(self) -> None:
        """Free what the launcher holds; workers go on."""
        ...
