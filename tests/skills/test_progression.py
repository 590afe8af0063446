"""Tasks follow one another: each has its own horizon, and the environment starts anew only when the plan is done."""

import signal

import numpy as np
import pytest
from gymnasium import spaces

from policysmith.errors import SkillError
from policysmith.skills.environments import SkillStep
from policysmith.skills.training import progression
from policysmith.skills.training.guard import within
from policysmith.skills.training.progression import Attempts, TaskProgression


class Counting:
    """Copies that count; a task is done when its copy's count is a multiple of 3, the environment ends at `end`."""

    observation_space, action_space = spaces.Box(0, 1e9, (1,), np.float32), spaces.Discrete(2)

    def __init__(self, count=1, end=None, limit=None):
        self.count, self.end, self.limit, self.counts, self.seen = count, end, limit, np.zeros(count), []

    def reset(self, seed):
        self.counts[:] = 0
        return self._seen()

    def restart(self, rows):
        self.counts[rows] = 0
        return self._seen()[rows]

    def step(self, actions, tasks):
        self.seen.append(tasks.tolist())
        self.counts += 1
        return SkillStep(self._seen(), tasks + 0.5, self.counts % 3 == 0, self.counts == self.end,
                         self.counts == self.limit)  # fmt: skip

    def close(self):
        pass

    def _seen(self):
        return self.counts[:, None].astype(np.float32)


def steps_of(environments, count):
    environments.reset(seed=0)
    told = [environments.step(np.zeros(environments.num_envs, int)) for _ in range(count)]
    names = ("observation", "reward", "terminated", "truncated", "info")
    return [dict(zip(names, step, strict=True)) for step in told]


def test_a_task_that_is_done_ends_its_horizon_and_the_environment_goes_on():
    environments = TaskProgression(Counting(), [4, 2], 5)
    steps = steps_of(environments, 7)
    assert [int(s["observation"]["task"][0]) for s in steps] == [4, 4, 2, 2, 2, 4, 4]
    assert [float(s["observation"]["observation"][0, 0]) for s in steps] == [1, 2, 3, 4, 5, 0, 1]
    assert [bool(s["terminated"][0]) for s in steps] == [False, False, True, False, False, True, False]
    assert not any(s["truncated"][0] for s in steps)
    assert environments.world.seen == [[0], [0], [0], [1], [1], [1], [0]]  # judged by the task, not by its expert
    assert list(environments.attempts.plans) == [True]


def test_a_time_limit_is_no_end_and_tells_where_it_came_to():
    steps = steps_of(TaskProgression(Counting(limit=5), [4, 2], 5), 5)
    assert steps[4]["truncated"][0] and not steps[4]["terminated"][0]
    final = steps[4]["info"]["final_obs"][0]
    assert final["observation"].tolist() == [5.0] and final["task"] == 2
    assert int(steps[4]["observation"]["task"][0]) == 4  # begins anew


def test_a_task_done_in_the_last_step_before_the_limit_is_done():
    environments = TaskProgression(Counting(limit=3), [0], 1)
    last = steps_of(environments, 3)[-1]
    assert last["terminated"][0] and not last["truncated"][0] and environments.attempts.success_rate == 1.0


def test_an_environment_that_ends_itself_ends_the_plan():
    environments = TaskProgression(Counting(end=4), [0, 1], 2)
    steps = steps_of(environments, 5)
    assert steps[3]["terminated"][0] and int(steps[3]["observation"]["task"][0]) == 0
    assert list(environments.attempts.plans) == [False]
    assert [list(task) for task in environments.attempts.tasks] == [[True], [False]]


def test_scores_are_of_tasks_that_were_begun():
    attempts = Attempts(3, window=10)
    attempts.note(0, True, False), attempts.note(1, False, True)
    attempts.note(0, False, True)
    assert attempts.scores([5, 7, 5]) == {5: 0.5, 7: 0.0} and attempts.success_rate == 0.0
    attempts.note(2, True, True)
    assert attempts.success_rate == pytest.approx(1 / 3)


def test_code_that_never_ends_is_interrupted_within_a_step(monkeypatch):
    class Endless(Counting):
        def step(self, actions, tasks):
            while True:
                pass

    monkeypatch.setattr(progression, "STEP_SECONDS", 0.05)
    environments = TaskProgression(Endless(), [0], 1)
    with within(30, "all of it"):
        with pytest.raises(SkillError, match=r"a step of the environments took longer than 0\.05 s"):
            steps_of(environments, 1)
        assert 20 < signal.getitimer(signal.ITIMER_REAL)[0] < 30, "the limit around it holds on"


def test_each_copy_adds_its_quota_and_no_more():
    environments = TaskProgression(Counting(count=2, limit=2), [0], 1, window=9, quota=[2, 1])
    steps_of(environments, 9)
    assert len(environments.attempts.plans) == 3 and max(environments.quota) <= 0
