"""The scheduler: skills that are ready are trained side by side, until all are done or cannot be.

In: what needs what, the disk (`Runs`) and a launcher. Out: a `SkillsReport`. What it decides is on disk before it
counts, so one that is killed is followed by another that goes on. Each event costs as much as the skills it concerns.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from policysmith.errors import PolicysmithError
from policysmith.skills.runs.run_files import HOPELESS, SAVED, last_words
from policysmith.skills.scheduling.dag import SkillOrder, needed
from policysmith.skills.scheduling.launcher import Ended, Job, Launcher
from policysmith.skills.scheduling.skill_runs import Runs
from policysmith.skills.scheduling.status import Phase, SkillsReport, SkillStatus

__all__ = ["Rules", "Scheduler"]

TICK = 0.5  # seconds between looks at the clock while nothing ends
JITTER = 0.25  # by how much a pause may be longer: those that failed together do not come back together
LONGEST_PAUSE = 3600.0


@dataclass(frozen=True)
class Rules:
    """How many workers at a time, how often a skill is retried after what pause (seconds), and who goes first."""

    parallel: int = 1
    retries: int = 2
    backoff: float = 1.0
    seed: int = 0
    priority: Mapping[str, int] = field(default_factory=dict)

    def pause(self, skill: str, failures: int) -> float:
        """Seconds before the attempt that follows the n-th failure: twice as many each time, and a little by chance."""
        chance = random.Random(f"{self.seed} {skill} {failures}").random()
        return float(min(LONGEST_PAUSE, self.backoff * 2.0 ** min(failures - 1, 30)) * (1 + JITTER * chance))


class Scheduler:
    """Trains the skills of `needs` (skill → those it needs), or of these `only` and what they need.

    `tell` hears of every skill whose phase has changed, and `tick` is called now and then in between.
    """

    def __init__(
        self,
        needs: Mapping[str, Collection[str]],
        runs: Runs,
        launcher: Launcher,
        rules: Rules | None = None,
        *,
        only: Collection[str] | None = None,
        tell: Callable[[SkillStatus], None] = lambda status: None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._runs, self._launcher, self._rules = runs, launcher, rules or Rules()
        self._tell, self._tick = tell, tick
        self._needs, self._only = needs, needs.keys() if only is None else only
        self.skills: dict[str, SkillStatus] = {}
        self.jobs: dict[str, Job] = {}  # of skills that have a worker
        self._number = {skill: number for number, skill in enumerate(needs)}
        self._left: dict[str, Job] = {}  # runs of an earlier scheduler that are not taken up yet
        self._order = SkillOrder({})
        self._ready: list[tuple[int, int, str]] = []  # a heap: priority, place in the file
        self._pauses: list[tuple[float, str]] = []  # a heap: when to try again

    def run(self, stop: threading.Event | None = None) -> SkillsReport:
        """Train until nothing more can be; once `stop` is set, workers save and end, and the rest stays as it is."""
        stop = stop or threading.Event()
        self._begin()
        while not stop.is_set() and (self.jobs or self._ready or self._pauses):
            self._end_pauses()
            self._fill()
            self._tick()
            if self.jobs or self._pauses:
                for ended in self._launcher.wait(self._patience()):
                    self._over(ended)
            self._tick()
        if stop.is_set():
            self._stop_all()
        return SkillsReport(self.skills, interrupted=stop.is_set())

    # What an earlier scheduler has left is taken up before anything is started.

    def _begin(self) -> None:
        self._left = dict(self._runs.unfinished())
        ended = {skill: job for skill, job in self._left.items() if self._result(job)}
        lost: list[SkillStatus] = []
        for skill, job in ended.items():
            self.skills[skill] = SkillStatus(skill, expert=self._runs.expert(skill), attempt=job.attempt)
            lost += self._store_experts(self.skills[skill], self._left.pop(skill))
        done = self._runs.done()
        wanted = needed(self._needs, self._only, done)
        self._order = SkillOrder({skill: self._needs[skill] for skill in self._needs if skill in wanted}, done)
        told = self.skills
        self.skills = {skill: SkillStatus(skill) for skill in self._needs if skill in wanted or skill in self._only}
        for skill, status in self.skills.items():
            status.phase = Phase.DONE if skill in done else Phase.WAITING
        self.skills |= {skill: status for skill, status in told.items() if status.phase is Phase.DONE}
        for status in lost:
            if status.name in self.skills:
                self.skills[status.name] = status
                self._fail(status, status.reason)
        self._admit()

    def _admit(self) -> None:
        """What has become ready goes on where an earlier scheduler's worker lives, or waits for room."""
        for skill in self._order.ready():
            status, job = self.skills[skill], self._left.pop(skill, None)
            if status.phase is not Phase.WAITING:
                continue
            if job is not None:
                status.attempt = job.attempt
                if self._launcher.adopt(job):
                    self._started(status, job)
                    continue
            self._queue(status)

    def _queue(self, status: SkillStatus) -> None:
        status.retry_at = None
        heapq.heappush(self._ready, (-self._priority(status.name), self._number[status.name], status.name))
        self._enter(status, Phase.READY)

    def _end_pauses(self) -> None:
        while self._pauses and self._pauses[0][0] <= time.monotonic():
            self._queue(self.skills[heapq.heappop(self._pauses)[1]])

    def _patience(self) -> float:
        """How long to wait for an end: until the next pause is over, at most a tick."""
        pause = self._pauses[0][0] - time.monotonic() if self._pauses else TICK
        return min(TICK, max(0.05, pause))

    def _fill(self) -> None:
        """Start what there is room for; where there is none, ask the least important to make room for a better one."""
        while self._ready and len(self.jobs) < self._rules.parallel:
            self._start(self.skills[heapq.heappop(self._ready)[2]])
        if not self._ready or any(self.skills[skill].phase is Phase.STOPPING for skill in self.jobs):
            return
        least = min(self.jobs, key=lambda skill: (self._priority(skill), -self._number[skill]))
        if len(self.jobs) >= self._rules.parallel and -self._ready[0][0] > self._priority(least):
            self._enter(self.skills[least], Phase.STOPPING)
            self._launcher.stop(least)

    def _start(self, status: SkillStatus) -> None:
        try:
            job = self._runs.prepare(status.name, status.attempt + 1)
            status.expert = self._runs.expert(status.name)
        except PolicysmithError as error:  # it would fail in the same way again
            self._fail(status, str(error))
            return
        except OSError as error:
            self._failed_attempt(status, str(error))
            return
        status.attempt += 1
        try:
            self._launcher.start(job)
        except OSError as error:
            self._failed_attempt(status, f"no worker could be started: {error}")
            return
        self._started(status, job)

    def _started(self, status: SkillStatus, job: Job) -> None:
        self.jobs[status.name] = job
        status.attempt, status.since, status.reason = job.attempt, time.time(), ""
        if status.expert is None:
            status.expert = self._runs.expert(status.name)
        self._enter(status, Phase.RUNNING)

    # A worker has ended.

    def _over(self, ended: Ended) -> None:
        job, status = self.jobs.pop(ended.skill), self.skills[ended.skill]
        result = self._result(job)
        if result:
            for lost in self._store_experts(status, job):
                self._fail(status, lost.reason)
            if status.phase is Phase.DONE:
                self._order.finish(status.name)
                self._admit()
        elif status.phase is Phase.STOPPING:
            self._queue(status)
        elif ended.status == HOPELESS and not ended.reason:
            self._fail(status, _reason(ended, job))
        elif ended.status == SAVED and not ended.reason:  # somebody else has asked it to stop
            self._pause(status, "was asked to stop from outside", 1)
        else:
            self._failed_attempt(status, _reason(ended, job))

    def _result(self, job: Job) -> bool:
        """Whether the run has ended; one whose result can't be read has, too, and `_store_experts` says so."""
        try:
            return self._runs.result(job) is not None
        except PolicysmithError:
            return True

    def _store_experts(self, status: SkillStatus, job: Job) -> list[SkillStatus]:
        """Store a run's experts in the library; returns the skills for which that failed."""
        try:
            status.result = self._runs.result(job)
            self._runs.finish(job)
        except (PolicysmithError, OSError) as error:
            status.reason = f"its experts could not be brought home: {error}"
            return [status]
        status.ended = time.time()
        self._enter(status, Phase.DONE)
        return []

    def _failed_attempt(self, status: SkillStatus, reason: str) -> None:
        status.failures += 1
        if status.failures > self._rules.retries:
            self._fail(status, reason)
        else:
            self._pause(status, reason, status.failures)

    def _pause(self, status: SkillStatus, reason: str, failures: int) -> None:
        pause = self._rules.pause(status.name, failures)
        status.reason, status.retry_at = reason, time.time() + pause
        heapq.heappush(self._pauses, (time.monotonic() + pause, status.name))
        self._enter(status, Phase.RETRYING)

    def _fail(self, status: SkillStatus, reason: str) -> None:
        """Give a skill up, and with it those that need it, and no others."""
        status.reason, status.ended = reason, time.time()
        self._enter(status, Phase.FAILED)
        for name in self._order.behind(status.name):
            behind = self.skills[name]
            if behind.phase is not Phase.BLOCKED:
                behind.reason = f"needs {status.name!r}, which failed"
                self._enter(behind, Phase.BLOCKED)

    def _stop_all(self) -> None:
        for skill in self.jobs:
            self._enter(self.skills[skill], Phase.STOPPING)
            self._launcher.stop(skill)
        while self.jobs:
            for ended in self._launcher.wait(TICK):
                job, status = self.jobs.pop(ended.skill), self.skills[ended.skill]
                if not (self._result(job) and not self._store_experts(status, job)):
                    self._enter(status, Phase.STOPPED)
            self._tick()

    def _enter(self, status: SkillStatus, phase: Phase) -> None:
        status.phase = phase
        self._tell(status)

    def _priority(self, skill: str) -> int:
        return self._rules.priority.get(skill, 0)


def _reason(ended: Ended, job: Job) -> str:
    """Why a worker ended, and the last that it said."""
    said = last_words(job.folder)
    if ended.reason:
        return ended.reason
    if ended.status == HOPELESS and said:
        return said
    if ended.status is None:
        how = "its worker is gone"
    elif ended.status < 0:
        how = f"its worker was ended by signal {-ended.status}"
    else:
        how = f"its worker ended with status {ended.status}" + (" and left no result" if ended.status == 0 else "")
    return f"{how}: {said}" if said else how
