"""One run of offline training from start to finish: data, checkpoints, resuming, Ctrl-C, and the last evaluation.

In: a checked experiment, a policy and episodes. Out: an `OfflineResult`, and an artifact where a place was given.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policysmith.config.experiment import Experiment
from policysmith.errors import CheckpointError, ConfigError, DatasetError, Problem
from policysmith.policy.actor_critic import ActorCritic
from policysmith.registry import Registry, default_registry
from policysmith.store import TrainingState, save
from policysmith.training.averaging import WeightAverage
from policysmith.training.curve import plot_losses
from policysmith.training.datasets import Episodes
from policysmith.training.distribution import World, joined
from policysmith.training.distribution.batch_norms import average_statistics
from policysmith.training.distribution.checkpoint import Stored, below, newest, remove_shards, write_shards
from policysmith.training.distribution.choice import strategy_of
from policysmith.training.evaluation import EvaluationResult
from policysmith.training.logging import Logger, Progress
from policysmith.training.match import judge
from policysmith.training.offline import Offline
from policysmith.training.offline_objectives import Start
from policysmith.training.online import Report
from policysmith.training.optimizer import laid_out_as
from policysmith.training.recorder import Recorder
from policysmith.training.session import seed_everything
from policysmith.training.stopping import graceful_stop
from policysmith.training.threads import few_threads

__all__ = ["OfflineResult", "run_offline"]

AGREE_EVERY = 16  # updates after which processes ask each other about Ctrl-C
TRAINING_LOSS, VALIDATION_LOSS = "training/loss", "validation/loss"


@dataclass
class OfflineResult:
    """What a run gives back: `losses` by kind as (update, loss), and the last report's `metrics` by tag.

    Of several processes only rank 0 writes, so `artifact` is None elsewhere.
    """

    policy: ActorCritic
    updates: int
    seconds: float
    losses: dict[str, list[tuple[int, float]]]
    metrics: dict[str, float]
    artifact: Path | None = None
    evaluation: EvaluationResult | None = None
    interrupted: bool = False
    files: dict[str, Path] = field(default_factory=dict)


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
        stored = _stored(resume) if resume is not None else None
        if stored is not None and stored.weights is not None:
            policy.load_state_dict(stored.weights)
        policy.to(world.device) if world.size > 1 else None  # before data is bound to where it is
        seed_everything(experiment.seed)
        run = _Run(experiment, policy, episodes, world.told(output), registry, stored and stored.training, world)
        if run.output is not None:
            run.save()  # finds out now, not after the training, whether the place can be written
        world.reseed(run.seed, run.update_count)
        started = time.perf_counter()
        with ExitStack() as stack, graceful_stop() as run.stop:
            stack.enter_context(few_threads(policy))
            run.open_loggers(stack, progress and world.writes, started)
            shared: dict[str, Any] = {} if world.size == 1 else {"strategy": run.strategy}
            if run.average is not None:
                shared["judging"] = run.judging
            run.algorithm.learn(run.learner, run.samplers, run.optimizer, run, run.update_count, **shared)
        return run.finish(time.perf_counter() - started, evaluate)


class _Run:
    """The state of one run between updates; what watches it, too."""

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
        self.experiment, self.policy, self.episodes, self.output = experiment, policy, episodes, output
        self.algorithm: Offline = experiment.training.build()
        self.world, self.seed = world, world.told(_seed(experiment, stored))
        self.learner = self.algorithm.objective.start(Start(policy, episodes, self.seed, registry))
        shared = {} if world.size == 1 else {"world": world}
        self.samplers = self.algorithm.samplers(self.learner, episodes, self.seed, **shared)
        self.strategy = strategy_of(self.algorithm, world, policy, self.learner.extra)
        self.optimizer = self.algorithm.optimizer(self.learner)
        self.strategy.follow(self.optimizer)
        self.average = None if self.algorithm.ema is None else WeightAverage(policy, self.algorithm.ema)
        if self.average is not None:
            self.average.follow(self.optimizer)
        self.total = self.algorithm.total(self.samplers)
        self.update_count = 0
        self.losses: dict[str, list[tuple[int, float]]] = {"training": [], "validation": []}
        self.metrics: dict[str, float] = {}
        self.evaluation: EvaluationResult | None = None
        self.loggers: list[Logger] = []
        self.callbacks: list[Callable[[Report], bool]] = [c.build() for c in self.algorithm.callbacks if world.writes]
        self.stop = threading.Event()
        self.recorder = Recorder(experiment.store, policy, self._title) if experiment.store else None
        if stored is not None:
            self._resume(stored)
        elif policy.has_statistics:
            self._take_statistics()

    def open_loggers(self, stack: ExitStack, progress: bool, started: float) -> None:
        """Whoever sees reports; closed with the stack."""
        first, self._started = self.update_count, (started, self.update_count)
        display = Progress(self.total, self._title, first, progress, "updates", TRAINING_LOSS)
        self.loggers = [stack.enter_context(display)]
        if self.output is not None and self.world.writes:
            directory = self.output / "logs"
            self.loggers += [spec.build(directory=directory, step=first) for spec in self.algorithm.loggers]
        for logger in self.loggers:
            stack.callback(logger.close)

    def report(self, report: Report) -> bool:
        """Note a report and pass it on; True when a callback wants to stop."""
        self.metrics = report.scalars
        for kind, tag in (("training", TRAINING_LOSS), ("validation", VALIDATION_LOSS)):
            if tag in report.scalars:
                self.losses[kind].append((report.step, report.scalars[tag]))
        started, first = self._started
        for logger in self.loggers:
            logger.report(report, (report.step - first) / (time.perf_counter() - started))
        if self.recorder is not None and self.recorder.is_due(report.iteration):
            self.record(report.step, report.iteration)
        wanted = [callback(report) for callback in self.callbacks]  # each is told, whoever wants to stop
        return self.world.any(any(wanted))

    def record(self, update: int, epoch: int) -> None:
        """Keep the policy in the store, if there is one, with its latest losses and its judgement."""
        recorder = self.recorder
        if recorder is not None:
            losses = {kind: points[-1][1] for kind, points in self.losses.items() if points}
            judged = {"evaluation": self.evaluation.mean} if self.evaluation else {}
            with self.judging(), self.strategy.whole():
                self.world.by_writer(lambda: recorder.record(update, epoch, {**losses, **judged}).id)

    @property
    def _title(self) -> str:
        return self.experiment.name or self.algorithm.objective_part.type

    def update(self, update: int) -> bool:
        """Count an update, save if it is time; True after Ctrl-C."""
        self.update_count = update
        every = self.algorithm.checkpoint_every
        if every and self.output and update % every == 0 and update < self.total:
            self.save(whole=False)
        if update % AGREE_EVERY and self.world.size > 1:
            return False
        return self.world.any(self.stop.is_set())

    def judging(self) -> AbstractContextManager[None]:
        """With the average of the weights in their place, where one is kept."""
        return nullcontext() if self.average is None else self.average.applied()

    def save(self, whole: bool = True) -> None:
        """Store the artifact; between, a strategy that shards weights stores shards (`whole=False`)."""
        output, policy = self.output, self.policy
        assert output is not None
        average_statistics(policy, self.world)
        self.world.reseed(self.seed, self.update_count)
        tensors, data = self._tensors(), self._data()
        if self.strategy.shards and not whole:
            with self.judging():
                write_shards(output, policy, TrainingState(tensors, data), self.world)
            return
        training = TrainingState(self.strategy.gathered(tensors), data)
        with self.judging(), self.strategy.whole():
            self.world.by_writer(lambda: _store(policy, output, training))

    def finish(self, seconds: float, evaluate: bool) -> OfflineResult:
        interrupted = self.world.any(self.stop.is_set())
        if evaluate and not interrupted:
            self.evaluation = self._judged()
        result = OfflineResult(
            self.policy, self.update_count, seconds, self.losses, self.metrics,
            evaluation=self.evaluation, interrupted=interrupted,
        )  # fmt: skip
        self.record(self.update_count, int(self.samplers.training.epochs(self.update_count)))
        if self.output is not None:
            self.save()
        if self.output is not None and self.world.writes:
            result.artifact = self.output
            curves = {kind: ([u for u, _ in points], [x for _, x in points]) for kind, points in self.losses.items()}
            picture = self.output / "learning_curve.png"
            result.files["learning_curve"] = plot_losses(picture, curves, self._title)
        if self.average is not None:
            self.average.settle()
        self.strategy.release()
        return result

    def _judged(self) -> EvaluationResult | None:
        """How rank 0 plays, where there is an environment."""
        policy, environment, options = self.policy, self.experiment.environment, self.experiment.evaluation
        if environment is None:
            return None
        with self.judging(), self.strategy.whole():
            return self.world.by_writer(
                lambda: judge(policy, environment, options.episodes, options.deterministic, options.seed)
            )

    def _take_statistics(self) -> None:
        """Running normalisers see every observation that teaches, once, before the first update."""
        for batch in self.samplers.training:
            self.learner.take_statistics(batch)

    def _resume(self, stored: TrainingState) -> None:
        data, tensors = stored.data, dict(stored.tensors)
        if data["dataset"] != self.episodes.fingerprint:
            raise DatasetError(
                f"{self.episodes.place}: is not what the run began with (episodes, steps, order: {data['dataset']}; "
                f"found {self.episodes.fingerprint}); train anew, or give the data it began with"
            )
        torch.set_rng_state(tensors.pop("rng/torch"))
        self.optimizer.load_state(below("adam/", tensors))
        self.learner.extra.load_state_dict(below("objective/", tensors))
        if self.average is not None:
            learning, weights = below("learning/", tensors), dict(self.policy.named_parameters())
            known = {name: laid_out_as(weights[name], tensor) for name, tensor in learning.items()}
            self.average.resume(known or self.average.learning())
        self.update_count = data["step"]
        if "epochs" in data:  # batches may be of another size now, and as many updates another part of the data
            self.samplers.training.go_on(self.update_count, data["epochs"])
            self.total = self.algorithm.total(self.samplers)
        if self.recorder is not None:
            self.recorder.parent = data.get("record")
        self.losses = {kind: [(int(u), float(x)) for u, x in points] for kind, points in data["losses"].items()}
        self.metrics = {tag: float(value) for tag, value in data["metrics"].items()}
        if self.update_count >= self.total:
            path = "training.updates" if self.algorithm.updates else "training.epochs"
            message = f"{self.update_count:,} updates of {self.total:,} are done already; raise it to go on"
            raise ConfigError([Problem(path, message)])

    def _tensors(self) -> dict[str, Tensor]:
        adam = {f"adam/{name}": tensor for name, tensor in self.optimizer.state().items()}
        extra = {f"objective/{name}": tensor for name, tensor in self.learner.extra.state_dict().items()}
        learning = self.average.learning() if self.average is not None else {}
        extra |= {f"learning/{name}": tensor for name, tensor in learning.items()}
        return {**adam, **extra, "rng/torch": torch.get_rng_state()}

    def _data(self) -> Mapping[str, Any]:
        found = self.evaluation
        return {
            "step": self.update_count,
            "epochs": self.samplers.training.epochs(self.update_count),
            "seed": self.seed,
            "dataset": self.episodes.fingerprint,
            "losses": {kind: [list(point) for point in points] for kind, points in self.losses.items()},
            "metrics": self.metrics,
            "evaluation": {"mean": found.mean, "std": found.std, "episodes": found.episodes} if found else None,
            **({"record": self.recorder.parent} if self.recorder is not None else {}),
        }


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


def _store(policy: ActorCritic, output: Path, training: TrainingState) -> None:
    save(policy, output, training=training)
    remove_shards(output)
