"""What the scheduler decides, with runs and workers that exist in memory only."""

import itertools
import sys
from pathlib import Path

import pytest

from policysmith.errors import SkillError
from policysmith.skills.runs.run_files import Result
from policysmith.skills.scheduling.dag import SkillOrder, needed, one_cycle
from policysmith.skills.scheduling.launcher import Ended, Job
from policysmith.skills.scheduling.scheduler import Rules, Scheduler


class Disk:
    """Runs in memory; `status` gives a worker's exit status by skill and attempt."""

    def __init__(self, status=lambda skill, attempt: 0):
        self.status, self.finished, self.prepared = status, {}, []

    def done(self):
        return self.finished.keys()

    def expert(self, skill):
        return len(self.prepared)

    def unfinished(self):
        return {}

    def prepare(self, skill, attempt):
        self.prepared.append(skill)
        return Job(skill, Path("nowhere"), (), attempt)

    def result(self, job):
        return Result("solved") if self.status(job.skill, job.attempt) == 0 else None

    def finish(self, job):
        self.finished[job.skill] = job


class Workers:
    """A launcher whose workers end at once, the oldest first."""

    def __init__(self, disk):
        self.disk, self.jobs, self.most = disk, [], 0

    def start(self, job):
        self.jobs.append(job)
        self.most = max(self.most, len(self.jobs))

    def adopt(self, job):
        return False

    def stop(self, skill):
        raise AssertionError("nobody is to be stopped")

    def wait(self, seconds):
        if not self.jobs:
            return []
        job = self.jobs.pop(0)
        return [Ended(job.skill, self.disk.status(job.skill, job.attempt))]

    def close(self): ...


def train(needs, disk=None, **rules):
    disk = disk or Disk()
    scheduler = Scheduler(needs, disk, Workers(disk), Rules(**{"backoff": 0.0, **rules}))
    return disk, scheduler.run()


def chains(count, length=10):
    """Chains of skills, each of which also needs the first of its chain."""
    return {f"s{i}": [] if i % length == 0 else list({f"s{i - 1}", f"s{i - i % length}"}) for i in range(count)}


def calls_of(count):
    """How many Python functions the scheduler calls for so many skills."""
    disk = Disk()
    scheduler = Scheduler(chains(count), disk, Workers(disk), Rules(parallel=4))
    calls = 0

    def note(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        report = scheduler.run()
    finally:
        sys.setprofile(None)
    assert report.succeeded and len(disk.prepared) == count
    return calls


def test_what_a_skill_costs_does_not_grow_with_their_number():
    few, many = calls_of(200), calls_of(2000)
    assert many <= few * 10 * 1.05


def test_no_skill_starts_before_those_that_it_needs_of_2000():
    needs = chains(2000)
    disk, report = train(needs, parallel=7)
    place = {skill: index for index, skill in enumerate(disk.prepared)}
    assert report.succeeded and len(place) == len(disk.prepared) == 2000
    assert all(place[name] < place[skill] for skill, names in needs.items() for name in names)


def test_of_the_ready_ones_the_most_important_start_first():
    disk, _ = train({"a": [], "b": [], "c": [], "d": ["a"]}, priority={"c": 2, "d": 1})
    assert disk.prepared == ["c", "a", "d", "b"]


@pytest.mark.parametrize(("fails", "attempts", "succeeded"), [(0, 1, True), (2, 3, True), (3, 3, False)])
def test_an_attempt_is_repeated_as_often_as_the_rules_say(fails, attempts, succeeded):
    disk = Disk(lambda skill, attempt: 1 if attempt <= fails else 0)
    _, report = train({"a": []}, disk, retries=2)
    assert (report.succeeded, report.skills["a"].attempt, len(disk.prepared)) == (succeeded, attempts, attempts)


def test_pauses_double_with_a_little_chance_that_the_seed_fixes():
    rules = Rules(backoff=2.0, seed=1)
    pauses = [rules.pause("a", failures) for failures in range(1, 6)]
    assert all(2.0 * 2**i <= pause <= 2.5 * 2**i for i, pause in enumerate(pauses))
    assert pauses == [Rules(backoff=2.0, seed=1).pause("a", failures) for failures in range(1, 6)]
    assert pauses[0] != rules.pause("b", 1) and pauses[0] != Rules(backoff=2.0, seed=2).pause("a", 1)
    assert rules.pause("a", 10_000) <= 3600 * 1.25


def test_a_skill_that_cannot_be_prepared_fails_at_once():
    class Broken(Disk):
        def prepare(self, skill, attempt):
            super().prepare(skill, attempt)
            if skill == "a":
                raise SkillError("its module has no task")
            return Job(skill, Path("nowhere"), (), attempt)

    disk, report = train({"a": [], "b": ["a"], "c": []}, Broken())
    assert disk.prepared == ["a", "c"] and report.skills["a"].reason == "its module has no task"
    assert {name: str(s.phase) for name, s in report.skills.items()} == {"a": "failed", "b": "blocked", "c": "done"}


def test_experts_that_cannot_be_brought_home_are_a_failure():
    class Full(Disk):
        def finish(self, job):
            raise OSError("no space left")

    _, report = train({"a": [], "b": ["a"]}, Full())
    assert report.skills["a"].reason == "its experts could not be brought home: no space left"
    assert str(report.skills["b"].phase) == "blocked"


def test_a_worker_stopped_from_outside_is_started_again_and_loses_no_attempt():
    disk = Disk(lambda skill, attempt: 75 if attempt < 5 else 0)
    _, report = train({"a": []}, disk, retries=0)
    assert report.succeeded and report.skills["a"].attempt == 5


def test_what_would_fail_again_in_the_same_way_is_not_repeated():
    disk, report = train({"a": [], "b": ["a"]}, Disk(lambda skill, attempt: 78), retries=2)
    assert disk.prepared == ["a"] and str(report.skills["a"].phase) == "failed"


def test_every_change_is_told():
    told, disk = [], Disk(lambda skill, attempt: 1 if (skill, attempt) == ("a", 1) else 0)
    tell = lambda status: told.append((status.name, str(status.phase)))  # noqa: E731
    Scheduler({"a": [], "b": ["a"]}, disk, Workers(disk), Rules(backoff=0.0), tell=tell).run()
    of_a, of_b = ([phase for name, phase in told if name == wanted] for wanted in "ab")
    assert of_a == ["ready", "running", "retrying", "ready", "running", "done"]
    assert of_b == ["ready", "running", "done"]


class TestOrder:
    NEEDS = {"a": [], "b": ["a"], "c": ["b", "a"], "d": []}  # noqa: RUF012

    def test_what_is_ready_comes_once(self):
        order = SkillOrder(self.NEEDS)
        assert sorted(order.ready()) == ["a", "d"] and order.ready() == ()
        order.finish("a")
        assert order.ready() == ("b",)

    def test_done_ones_are_left_out(self):
        assert sorted(SkillOrder(self.NEEDS, {"a", "b"}).ready()) == ["c", "d"]

    def test_everything_behind_a_skill(self):
        assert sorted(SkillOrder(self.NEEDS).behind("a")) == ["b", "c"]

    def test_what_skills_need(self):
        assert needed(self.NEEDS, ["c"]) == {"a", "b", "c"} and needed(self.NEEDS, ["c"], {"b"}) == {"a", "c"}

    def test_a_circle_is_told_in_the_order_of_need(self):
        cycle = one_cycle({"a": ["b"], "b": ["c"], "c": ["a"], "d": []})
        assert len(cycle) == 4 and cycle[0] == cycle[-1]
        assert all(pair in {("a", "b"), ("b", "c"), ("c", "a")} for pair in itertools.pairwise(cycle))
        assert one_cycle(self.NEEDS) == []
