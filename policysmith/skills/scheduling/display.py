"""What is seen while skills are trained: a live table on a terminal, a line for each change elsewhere.

In: the scheduler's statuses, and the progress that workers write. Out: text on stderr.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from policysmith.skills.runs.run_files import RunProgress, read_progress
from policysmith.skills.scheduling.status import Phase, SkillStatus

if TYPE_CHECKING:
    from policysmith.skills.scheduling.scheduler import Scheduler

__all__ = ["Display", "row_of", "shown_skills"]

HEADINGS = ("skill", "state", "expert", "steps", "success", "return", "time", "attempt")
ROOM = 40  # skills; of more, those are shown that something happens to
REFRESH = 0.1  # seconds between drawings of the table, at least
SAY_AGAIN = 30.0  # seconds between lines on how a skill goes, where there is no terminal
STYLES = {
    Phase.RUNNING: "cyan",
    Phase.DONE: "green",
    Phase.FAILED: "red",
    Phase.BLOCKED: "red",
    Phase.RETRYING: "yellow",
}


class Display:
    """`with display:` shows a scheduler that was given to `watch`; `enabled=False` shows nothing."""

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled
        self._scheduler: Scheduler | None = None
        self._needs: Mapping[str, Collection[str]] = {}
        self._said: dict[str, float] = {}
        self._next_refresh = 0.0
        self._console: Any = None
        self._live: Any = None

    def watch(self, scheduler: Scheduler, needs: Mapping[str, Collection[str]]) -> None:
        """Show this scheduler, whose skills need these."""
        self._scheduler, self._needs = scheduler, needs

    def __enter__(self) -> Self:
        if self._enabled:
            from rich.console import Console
            from rich.live import Live

            self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
            if self._console.is_terminal:
                self._live = Live(console=self._console, auto_refresh=False, get_renderable=self._table)
                self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, status: SkillStatus) -> None:
        """A skill's phase has changed."""
        if self._console is not None and self._live is None and status.phase not in (Phase.READY, Phase.STOPPING):
            self._say(status)

    def tick(self) -> None:
        """Time has passed."""
        if self._live is not None:
            if time.monotonic() >= self._next_refresh:
                self._next_refresh = time.monotonic() + REFRESH
                self._live.refresh()
        elif self._console is not None and self._scheduler is not None:
            for skill in self._scheduler.jobs:
                if time.monotonic() > self._said.get(skill, 0.0) + SAY_AGAIN:
                    self._say(self._scheduler.skills[skill])

    def _say(self, status: SkillStatus) -> None:
        """A line on one skill: what of its row is not empty."""
        self._said[status.name] = time.monotonic()
        name, state, *rest = self._row(status)
        words = [f"{heading} {cell}" for heading, cell in zip(HEADINGS[2:], rest, strict=True) if cell]
        self._console.print(f"{name}: {state}{'  ' if words else ''}{', '.join(words)}", soft_wrap=True)

    def _row(self, status: SkillStatus) -> tuple[str, ...]:
        assert self._scheduler is not None
        skills, job = self._scheduler.skills, self._scheduler.jobs.get(status.name)
        missing = [n for n in self._needs[status.name] if n in skills and skills[n].phase is not Phase.DONE]
        return row_of(status, read_progress(job.folder) if job else RunProgress(), missing, time.time())

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="dim", pad_edge=False)
        for heading in HEADINGS:
            number = heading not in ("skill", "state")
            table.add_column(heading, justify="right" if number else "left", no_wrap=number)
        skills = self._scheduler.skills if self._scheduler is not None else {}
        shown = shown_skills(skills)
        for status in shown:
            name, state, *rest = self._row(status)
            table.add_row(name, Text(state, STYLES.get(status.phase, "dim")), *rest)
        if len(shown) < len(skills):
            done = sum(status.phase is Phase.DONE for status in skills.values())
            table.add_row("", Text(f"{len(skills) - len(shown):,} more; {done:,} of {len(skills):,} done", "dim"))
        return table


def shown_skills(skills: Mapping[str, SkillStatus]) -> list[SkillStatus]:
    """All skills where there is room, else those that run, wait for another attempt, or failed."""
    if len(skills) <= ROOM:
        return list(skills.values())
    eventful = (Phase.RUNNING, Phase.STOPPING, Phase.RETRYING, Phase.FAILED, Phase.STOPPED)
    return [status for status in skills.values() if status.phase in eventful][:ROOM]


def row_of(status: SkillStatus, progress: RunProgress, missing: Iterable[str], now: float) -> tuple[str, ...]:
    """A skill's cells, in the order of `HEADINGS`; `missing` are the skills that it still needs."""
    result = status.result
    steps = result.steps if result else progress.step
    rate = result.success_rate if result else progress.success_rate
    seconds = None if status.since is None else (status.ended or now) - status.since
    return (
        status.name,
        _state(status, list(missing), now),
        "" if status.expert is None else str(status.expert),
        "" if steps is None else f"{steps:,}",
        "" if rate is None else f"{rate:.0%}",
        "" if progress.mean_return is None else f"{progress.mean_return:.2f}",
        "" if seconds is None or status.phase not in (Phase.RUNNING, Phase.STOPPING, Phase.DONE) else _clock(seconds),
        str(status.attempt) if status.attempt else "",
    )


def _state(status: SkillStatus, missing: list[str], now: float) -> str:
    reason = status.reason.splitlines()[0] if status.reason else ""
    match status.phase:
        case Phase.WAITING:
            return f"waiting on {', '.join(missing)}" if missing else "waiting"
        case Phase.READY:
            return "waiting for room"
        case Phase.STOPPING:
            return "saving"
        case Phase.RETRYING:
            return f"retry in {max(0.0, (status.retry_at or now) - now):.0f} s: {reason}"
        case Phase.DONE:
            return "done, budget spent" if status.result and status.result.status == "budget" else "done"
        case Phase.FAILED | Phase.BLOCKED:
            return f"{status.phase.value}: {reason}"
        case Phase.STOPPED:
            return "stopped, can go on"
    return status.phase.value


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
