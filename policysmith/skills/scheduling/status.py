"""How it goes with every skill: what the scheduler keeps, and what it tells those who watch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from policysmith.skills.runs.run_files import Result

__all__ = ["Phase", "SkillsReport", "SkillStatus"]


class Phase(StrEnum):
    """Where a skill is on its way."""

    WAITING = "waiting"  # for skills that it needs
    READY = "ready"  # for room
    RUNNING = "running"
    STOPPING = "stopping"  # asked to save and make room
    RETRYING = "retrying"  # after a pause
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"  # by one that failed
    STOPPED = "stopped"  # with the scheduler; it can go on


@dataclass
class SkillStatus:
    """One skill; times are seconds since the epoch, `reason` is why it failed, is retried or blocked."""

    name: str
    phase: Phase = Phase.WAITING
    expert: int | None = None
    attempt: int = 0
    failures: int = 0
    reason: str = ""
    since: float | None = None
    retry_at: float | None = None
    ended: float | None = None
    result: Result | None = None


@dataclass(frozen=True)
class SkillsReport:
    """What became of the skills: everything by name, and whether the scheduler was stopped before the end."""

    skills: Mapping[str, SkillStatus]
    interrupted: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether every skill is trained."""
        return all(status.phase is Phase.DONE for status in self.skills.values())

    def counts(self) -> Counter[Phase]:
        """How many skills are in each phase."""
        return Counter(status.phase for status in self.skills.values())
