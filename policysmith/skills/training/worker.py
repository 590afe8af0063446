"""Training the skill of one run's folder, from its latest checkpoint to its goal or the end of its budget.

In: what `prepare_training_run` made. Out, in the same folder: checkpoints by step, `progress.jsonl`, and `result.json`.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

from policysmith.errors import NonFiniteError
from policysmith.skills.experts.moe_checkpoint import MoECheckpoint
from policysmith.skills.experts.parameter_names import expert_name
from policysmith.skills.experts.partial_load import moments_of, restore_moments
from policysmith.skills.runs.run_files import PROGRESS, RESULT, SAVED
from policysmith.skills.training.guard import within
from policysmith.skills.training.progression import Attempts
from policysmith.skills.training.run_setup import RunSetup
from policysmith.skills.training.skill_ppo import SkillCollector
from policysmith.skills.walls.walls import standing
from policysmith.store.files import replace_file
from policysmith.store.json_files import json_bytes
from policysmith.training.logging.report import Report
from policysmith.training.process.signals import graceful_stop
from policysmith.training.process.threads import few_threads

__all__ = ["train_skill"]

CHECKPOINT_SECONDS = 20.0  # what a kill may cost
ITERATION_SECONDS = 600.0  # of one rollout and its update: longer means that something hangs
AGAIN = 5  # iterations between two evaluations that ask whether the goal is reached


def train_skill(run_folder: str | Path) -> int:
    """Train; returns the exit status: 0 when `result.json` is written, 75 when a signal asked to stop before.

    Call it in a process of its own: it executes the skill's code, limits this process for good, and wants signals.
    """
    setting = RunSetup(run_folder)
    print("walls:", "; ".join(standing(setting.walls)), flush=True)  # into the worker's log
    return _Training(setting).run()


class _Training:
    """A run between two iterations."""

    def __init__(self, setting: RunSetup) -> None:
        self.setting, self.folder = setting, setting.run.run_folder
        self.algorithm, self.policy, self.step = setting.config.algorithm, setting.policy, setting.step
        self.optimizer = self.algorithm.optimizer(self.policy)
        learned = {n: t for n, t in setting.checkpoint.moments.items() if _local(n) in setting.trained}
        restore_moments(self.optimizer.torch_optimizer, self.policy, learned)
        seed = None if setting.config.seed is None else setting.config.seed + self.step
        self.collector = SkillCollector(self.policy, setting.environments, setting.trained, seed, self.step)
        self.solved: Attempts | None = None
        self._spent, self._started = _seconds_spent(self.folder / PROGRESS), time.monotonic()
        self._saved, self._ask_again = time.monotonic(), 0

    def run(self) -> int:
        """From here to the end."""
        loggers = [spec.build(directory=self.folder, step=self.step) for spec in self.algorithm.loggers]
        iteration = self.step // (self.algorithm.rollout_steps * self.collector.count)
        with graceful_stop(signal.SIGTERM) as stop, few_threads(self.policy):

            def watch(report: Report) -> bool:
                self.step = report.step
                for logger in loggers:
                    logger.report(report, self.step / max(self.seconds, 1e-9))
                self._tell(report)
                signal.setitimer(signal.ITIMER_REAL, ITERATION_SECONDS)
                return stop.is_set() or self._is_over(report)

            with within(ITERATION_SECONDS, f"{self.setting.run.module_path}: an iteration"):
                try:
                    self.algorithm.learn(self.policy, self.collector, self.optimizer, watch, iteration)
                except NonFiniteError:
                    self.save()  # the last finite state, which training has gone back to
                    raise
            for logger in loggers:
                logger.close()
            self.save()
            if not stop.is_set():
                with within(ITERATION_SECONDS, f"{self.setting.run.module_path}: the evaluation"):
                    self._finish()
        return SAVED if stop.is_set() else 0

    @property
    def seconds(self) -> float:
        """Spent on training, over all attempts."""
        return self._spent + time.monotonic() - self._started

    def save(self) -> None:
        """A checkpoint, named by the steps so far; older ones go, but for the one the run started from."""
        began, run = self.setting.checkpoint, self.setting.run
        frames = {e: began.frames.get(e, 0) + self.collector.frames[e] for e in range(run.num_experts)}
        weights = {name: tensor for name, tensor in self.policy.state_dict().items() if expert_name(name)}
        moments = moments_of(self.optimizer.torch_optimizer, self.policy)
        latest = run.policies_folder / str(self.step)
        MoECheckpoint(weights, moments, frames, began.versions).save(latest)
        for other in run.policies_folder.iterdir():
            if other.name.isdecimal() and other.name != "0" and other != latest:
                shutil.rmtree(other)
        self._saved = time.monotonic()

    def _is_over(self, report: Report) -> bool:
        """Save if it is time; true when the goal or the end of the time is reached."""
        if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            self.save()
        if self._seems_solved() and report.iteration >= self._ask_again:
            self._ask_again = report.iteration + AGAIN
            attempts = self.setting.evaluate(self.algorithm.evaluation_episodes)
            if attempts.success_rate >= (self.setting.config.success or 0.0):
                self.solved = attempts
                return True
        limit = self.setting.config.seconds
        return limit is not None and self.seconds >= limit

    def _seems_solved(self) -> bool:
        goal, attempts = self.setting.config.success, self.setting.environments.attempts
        enough = len(attempts.plans) * 2 >= self.algorithm.window
        return goal is not None and enough and attempts.success_rate >= goal

    def _tell(self, report: Report) -> None:
        """A line of `progress.jsonl`."""
        returns = [episode.episode_return for episode in report.episodes]
        line = {
            "step": report.step,
            "seconds": round(self.seconds, 3),
            "success_rate": self.setting.environments.attempts.success_rate,
            "return": sum(returns) / len(returns) if returns else None,
        }
        with (self.folder / PROGRESS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def _finish(self) -> None:
        """`result.json`: how it went in whole plans that were not trained on."""
        attempts = self.solved or self.setting.evaluate(self.algorithm.evaluation_episodes)
        result = {
            "status": "solved" if self.solved else "budget",
            "steps": self.step,
            "seconds": round(self.seconds, 3),
            "success_rate": attempts.success_rate,
            "scores": self.setting.scores(attempts),
        }
        replace_file(self.folder / RESULT, json_bytes(result, RESULT))


def _local(name: str) -> int | None:
    """The expert that a moment belongs to."""
    found = expert_name(name.rpartition("/")[0])
    return None if found is None else found.number


def _seconds_spent(file: Path) -> float:
    """What `progress.jsonl` says of earlier attempts."""
    spent = 0.0
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            spent = max(spent, float(json.loads(line)["seconds"]))
        except (ValueError, KeyError, TypeError):
            continue  # torn when the worker was killed
    return spent
