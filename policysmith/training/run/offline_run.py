"""One run of offline training from start to finish: data, checkpoints, resuming, Ctrl-C, and the last evaluation.

In: a checked experiment, a policy and episodes. Out: an `OfflineResult`, and an artifact where a place was given.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from policysmith.config.experiment import Experiment
from policysmith.errors import CheckpointError, ConfigError, DatasetError, Problem
from policysmith.policy.actor_critic import ActorCritic
from policysmith.registry import Registry, default_registry
from policysmith.store import TrainingState
from policysmith.training.datasets import Episodes
from policysmith.training.distribution import World, joined
from policysmith.training.distribution.batch_norms import average_statistics
from policysmith.training.distribution.choice import strategy_of
from policysmith.training.distribution.shards import Stored, below, newest
from policysmith.training.environments.gate import require_sound
from policysmith.training.logging.history import History
from policysmith.training.logging.loggers import ProgressBar
from policysmith.training.logging.plots import plot_losses
from policysmith.training.logging.report import Report
from policysmith.training.nonfinite.events import LeftOut
from policysmith.training.offline.objectives import Start
from policysmith.training.offline.offline import Offline, RunningMeans
from policysmith.training.optim.snapshot import Snapshot
from policysmith.training.optim.step_guard import all_finite
from policysmith.training.process.generators import generators_kept, seed_everything
from policysmith.training.process.threads import few_threads
from policysmith.training.run.results import OfflineResult
from policysmith.training.run.run import Captured, Run

__all__ = ["OfflineRun", "run_offline"]

AGREE_EVERY = 16  # updates after which processes ask each other about Ctrl-C
TRAINING_LOSS = "training/loss"
SAID = "finishing the update; press Ctrl-C again to stop now"


def run_offline(
    experiment: Experiment,
    policy: ActorCritic,
    episodes: Episodes,
    output: Path | None = None,
    *,
    resume: Path | None = None,
    progress: bool = True,
    evaluate: bool = True,
    registry: Registry = default_registry,
) -> OfflineResult:
    """Train `policy` on `episodes` as `experiment` says; with `resume` from where that artifact was.

    Under torchrun every process calls this, and they train one policy together (docs/distribution.md).
    """
    with joined() as world:
        told = require_sound(experiment) if evaluate else []
        stored = _stored(resume) if resume is not None else None
        if stored is not None and stored.weights is not None:
            policy.load_state_dict(stored.weights)
        policy.to(world.device) if world.size > 1 else None  # before data is bound to where it is
        seed_everything(experiment.seed)
        state = stored and stored.training
        run = OfflineRun(experiment, policy, episodes, world.told(output), registry, state, world)
        run.notes += told
        with run.claimed(), run.guarded(SAID) as run.stop:
            if state is not None:
                assert resume is not None
                run.resume(state, resume)
            return _train(run, progress, evaluate)


def _train(run: OfflineRun, progress: bool, evaluate: bool) -> OfflineResult:
    world = run.world
    world.reseed(run.seed, run.step)
    if run.output is not None and not run.in_place:
        run.capture()
        run.save()  # finds out now, not after the training, whether the place can be written
    started = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(few_threads(run.policy))
        with generators_kept():  # rich draws when it is imported
            shown = ProgressBar(run.total, run.title, run.step, progress and world.writes, "updates", TRAINING_LOSS)
            run.show(stack.enter_context(shown))
        shared: dict[str, Any] = {"means": run.means} | ({} if world.size == 1 else {"strategy": run.strategy})
        if run.average is not None:
            shared["judging"] = run.averaged
        run.algorithm.learn(run.learner, run.samplers, run.optimizer, run, run.step, **shared)
    return run.finish(time.perf_counter() - started, evaluate)


class OfflineRun(Run):
    """The state of one run between updates; what watches it, too."""

    unit, command = "updates", "train-offline"

    def __init__(
        self,
        experiment: Experiment,
        policy: ActorCritic,
        episodes: Episodes,
        output: Path | None,
        registry: Registry,
        stored: TrainingState | None,
        world: World,
    ) -> None:
        algorithm: Offline = experiment.built("training")
        self.episodes, self.seed = episodes, world.told(_seed(experiment, stored))
        self.learner = algorithm.objective.start(Start(policy, episodes, self.seed, registry))
        shared = {} if world.size == 1 else {"world": world}
        self.samplers = algorithm.samplers(self.learner, episodes, self.seed, **shared)
        strategy = strategy_of(algorithm, world, policy, self.learner.extra)
        title = experiment.name or algorithm.objective_part.type
        super().__init__(experiment, policy, algorithm, output, strategy, algorithm.optimizer(self.learner), title)
        self.total = algorithm.total(self.samplers)
        self.losses: dict[str, list[tuple[int, float]]] = {"training": [], "validation": []}
        self.loss_log = History(self.watchers.directory, "losses.csv", ("step", "training", "validation"))
        self.metrics: dict[str, float] = {}
        self.left_out, self.means = LeftOut(), RunningMeans()
        self.stop = threading.Event()
        self.in_place = False
        self._captured_at, self._capture_cost = time.monotonic(), 0.0
        self._began = time.perf_counter()
        if stored is None and policy.has_statistics:
            self._take_statistics()

    def report(self, report: Report) -> bool:
        """Note a report, judge the policy if it is time, and pass it on; True when a callback wants to stop."""
        self.step, self.metrics = report.step, report.scalars
        self.left_out.add(report.nonfinite, report.scalars)
        known = {kind: report.scalars.get(f"{kind}/loss") for kind in self.losses}
        for kind, loss in known.items():
            if loss is not None:
                self.losses[kind].append((report.step, loss))
        row = [math.nan if loss is None else loss for loss in known.values()]
        self.note_rows(self.loss_log, [(report.step, *row)])
        self.capture()  # an error while the policy is judged loses nothing
        self.judge_if_due(report)
        speed = (report.step - self.began_at) / (time.perf_counter() - self._began)
        try:
            wanted = self.watchers.tell(report, speed)
            if self.recorder is not None and self.recorder.is_due(report.iteration):
                self.keep_in_store(report.iteration)
        finally:  # callbacks may have changed the policy, or drawn
            self.capture()
        return self.world.any(wanted)

    def keep_in_store(self, epoch: int) -> None:
        """Keep the policy in the store, if there is one, with its latest losses and its judgement."""
        losses = {kind: points[-1][1] for kind, points in self.losses.items() if points}
        judged = {"evaluation": self.evaluation.mean} if self.evaluation else {}
        self.record(self.step, epoch, {**losses, **judged})

    def update(self, update: int) -> bool:
        """Count an update, save if it is time; True after Ctrl-C."""
        self.step = update
        self.world.reseed(self.seed, update)
        agreed = self.world.size == 1 or update % AGREE_EVERY == 0
        if update < self.total and (agreed or self.checkpoints.every is not None) and self.is_due():
            average_statistics(self.policy, self.world)
            self.capture()
            if self.captured is not None and self.captured.step == update:
                self.checkpoint()
        elif self.world.size == 1 and self._is_old():
            self.capture()
        return agreed and self.world.any(self.stop.is_set())

    def _is_old(self) -> bool:
        """Whether to copy the run again: at most every second, and for a hundredth of the time."""
        return time.monotonic() - self._captured_at >= max(1.0, 100.0 * self._capture_cost)

    def capture(self) -> None:
        """As it is after an update, if that is finite: what an update has spoiled is undone when it is looked at."""
        began, before = time.monotonic(), self.captured
        super().capture()
        if self.world.size == 1 and before is not None and not _is_finite(self.captured):
            self.captured, self.optimizer.snapshot = before, None
        self._captured_at = time.monotonic()
        self._capture_cost = self._captured_at - began

    def finish(self, seconds: float, evaluate: bool) -> OfflineResult:
        """The last judgement and save, and what the run gives back."""
        interrupted = self.world.any(self.stop.is_set())
        average_statistics(self.policy, self.world)
        self.capture()
        if evaluate and not interrupted:
            if self.output is not None and self.step != self.saved_at:
                self.save()  # the judgement may take long
            self.judge_at_end()
        else:
            self.evaluation = None
        result = OfflineResult(
            self.policy, self.step, seconds, self.losses, self.metrics,
            evaluation=self.evaluation, interrupted=interrupted, left_out=self.left_out,
        )  # fmt: skip
        self.keep_in_store(int(self.samplers.training.epochs(self.step)))
        if self.output is not None:
            self.capture_judgement()
            self.save()
        if self.output is not None and self.world.writes:
            result.artifact = self.output
            curves = {kind: ([u for u, _ in points], [x for _, x in points]) for kind, points in self.losses.items()}
            picture = self.output / "learning_curve.png"
            result.files |= self.best_file() | {"learning_curve": plot_losses(picture, curves, self.title)}
        result.notes = self.notes
        self.settle()
        return result

    def _take_statistics(self) -> None:
        """Running normalisers see every observation that teaches, once, before the first update."""
        for batch in self.samplers.training:
            self.learner.take_statistics(batch)

    def resume(self, stored: TrainingState, directory: Path) -> None:
        """Go on where another run, of however many processes, stood; nothing is written yet."""
        data, tensors = stored.data, stored.tensors
        if data["dataset"] != self.episodes.fingerprint:
            raise DatasetError(
                f"{self.episodes.place}: is not what the run began with (episodes, steps, order: {data['dataset']}; "
                f"found {self.episodes.fingerprint}); train anew, or give the data it began with"
            )
        self.resume_shared(stored, directory)
        self.in_place = self.output is not None and self.output.resolve() == directory.resolve()
        self.learner.extra.load_state_dict(below("objective/", tensors))
        if "means" in data:
            self.means.load_state(data["means"], self.policy.device)
        if "epochs" in data:  # batches may be of another size now, and as many updates another part of the data
            self.samplers.training.go_on(self.step, data["epochs"])
            self.total = self.algorithm.total(self.samplers)
        self._take_up_losses(data, directory)
        self.metrics = {tag: float(value) for tag, value in data["metrics"].items()}
        if self.step >= self.total:
            path = "training.updates" if self.algorithm.updates else "training.epochs"
            message = f"{self.step:,} updates of {self.total:,} are done already; raise it to go on"
            raise ConfigError([Problem(path, message)])
        self.resume_generators(stored)

    def _take_up_losses(self, data: Mapping[str, Any], directory: Path) -> None:
        """Of the history, or of a checkpoint that holds them all."""
        if "losses" in data:
            self.losses = {kind: [(int(u), float(x)) for u, x in points] for kind, points in data["losses"].items()}
            steps = sorted({step for points in self.losses.values() for step, _ in points})
            found = [dict(self.losses[kind]) for kind in ("training", "validation")]
            self.loss_log.take_over([(step, *(points.get(step, math.nan) for points in found)) for step in steps])
            return
        for step, *losses in self.loss_log.take_up(directory, data["reports"]):
            for kind, loss in zip(("training", "validation"), losses, strict=True):
                if not math.isnan(loss):
                    self.losses[kind].append((int(step), loss))

    def logs(self) -> list[History]:
        """With the losses."""
        return [*super().logs(), self.loss_log]

    def own_tensors(self, snapshot: Snapshot) -> dict[str, Tensor]:
        """Copies of what the objective trains besides the policy."""
        return snapshot.copies(self.learner.extra.state_dict(keep_vars=True), "objective/")

    def modules(self) -> list[nn.Module]:
        """The policy, and what the objective trains besides."""
        return [self.policy, self.learner.extra]

    def own_data(self) -> dict[str, Any]:
        """Where in the data the run is."""
        return {
            "epochs": self.samplers.training.epochs(self.step),
            "seed": self.seed,
            "dataset": self.episodes.fingerprint,
            "reports": self.loss_log.count,
            "means": self.means.state(),
            "metrics": dict(self.metrics),
        }


def _is_finite(captured: Captured | None) -> bool:
    if captured is None:
        return True
    tensors = [*captured.weights.values(), *captured.tensors.values(), *(captured.average or {}).values()]
    return all_finite(tensor for tensor in tensors if tensor.is_floating_point())


def _seed(experiment: Experiment, stored: TrainingState | None) -> int:
    """Where the split, the order and an objective's own weights come from; a resumed run goes on with its own."""
    if stored is not None:
        return int(stored.data["seed"])
    return secrets.randbits(31) if experiment.seed is None else experiment.seed


def _stored(directory: Path) -> Stored:
    stored = newest(directory)
    if stored is None or "dataset" not in stored.training.data:
        raise CheckpointError(f"{directory} holds no state of offline training: it can't be resumed, only trained anew")
    return stored
