"""What runs of every kind share: one run a folder, checkpoints, judging on the way, and an end that loses nothing.

In: a policy, an algorithm and a place. Out: an artifact from which the run goes on as if it had never been stopped.
After each iteration a run is captured, as copies; what ends it later stores that, be it an error or a second Ctrl-C.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from policysmith.config.experiment import Experiment
from policysmith.errors import CheckpointError, NonFiniteError
from policysmith.policy.actor_critic import ActorCritic
from policysmith.store import TrainingState
from policysmith.training.distribution import Strategy
from policysmith.training.distribution.shards import below, write_shards
from policysmith.training.games.match import judge
from policysmith.training.logging.history import History
from policysmith.training.logging.loggers import ProgressBar
from policysmith.training.logging.report import Report
from policysmith.training.logging.watchers import Watchers
from policysmith.training.optim.averaging import WeightAverage
from policysmith.training.optim.optimizers import STORED, Optimizers, laid_out_as, stored_state
from policysmith.training.optim.snapshot import Snapshot
from policysmith.training.process.generators import generators_state, load_generators
from policysmith.training.process.signals import graceful_stop, interrupts_ignored
from policysmith.training.rollout.environment_state import State
from policysmith.training.rollout.evaluation import EvaluationResult
from policysmith.training.run.checkpoint_schedule import CheckpointSchedule
from policysmith.training.run.run_folder import RunFolder
from policysmith.training.run.store_recorder import StoreRecorder
from policysmith.training.sections import Environment, Evaluation, Store

__all__ = ["Best", "Captured", "Run", "PLACE"]

SAID = "finishing the iteration; press Ctrl-C again to stop now"
RANDOM, PLACE = "rng/", "environments/"


@dataclass(frozen=True)
class Best:
    """The judgement of the policy that was best, and the step it was trained to."""

    step: int
    mean: float


@dataclass(frozen=True, eq=False)
class Captured:
    """A run between two iterations, as copies; `place` tells where its episodes stood."""

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor] | None
    tensors: dict[str, Tensor]
    data: dict[str, Any]
    place: Callable[[], State]


class Run(ABC):
    """The state of one run between iterations; `step` counts `unit`."""

    unit: ClassVar[str] = "steps"
    command: ClassVar[str] = "train"

    def __init__(
        self,
        experiment: Experiment,
        policy: ActorCritic,
        algorithm: Any,
        output: Path | None,
        strategy: Strategy,
        optimizer: Optimizers,
        title: str,
    ) -> None:
        self.experiment, self.policy, self.algorithm = experiment, policy, algorithm
        self.output, self.title = output, title
        self.strategy, self.world, self.optimizer = strategy, strategy.world, optimizer
        strategy.follow(optimizer)
        self.average = None if algorithm.ema is None else WeightAverage(policy, algorithm.ema)
        if self.average is not None:
            self.average.follow(optimizer)
        self.step = self.saved_at = self.began_at = 0
        self.notes: list[str] = []
        self.checkpoints = CheckpointSchedule(algorithm)
        self.folder = None if output is None else RunFolder(output, self.checkpoints.keep)
        writes = self.world.writes
        directory = output if writes else None
        self.watchers = Watchers(algorithm.loggers, algorithm.callbacks if writes else [], directory, self.say)
        self.evaluation: EvaluationResult | None = None
        self.judgements: list[tuple[int, float, float]] = []
        self.judgement_log = History(directory, "evaluations.csv", ("step", "mean", "std", "episodes"))
        self.best: Best | None = None
        kept = experiment.find(Store)
        self.recorder = StoreRecorder(kept, policy, title) if kept else None
        self.captured: Captured | None = None

    # What differs

    @abstractmethod
    def own_tensors(self, snapshot: Snapshot) -> dict[str, Tensor]:
        """Copies of what a run of this kind needs beside weights and moments; `snapshot` has all that learns."""

    def modules(self) -> list[nn.Module]:
        """What learns."""
        return [self.policy]

    @abstractmethod
    def own_data(self) -> dict[str, Any]:
        """Plain data that it needs."""

    def capture_place(self) -> Callable[[], State]:
        """Where its episodes stand; what is returned puts it into tensors and data."""
        return lambda: ({}, {})

    # Beginning

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """The folder for this run alone."""
        with self.folder.claim() if self.folder is not None and self.world.writes else nullcontext():
            yield

    @contextmanager
    def guarded(self, said: str = SAID) -> Iterator[Any]:
        """Until the run has ended: the first Ctrl-C asks it to stop, and whatever else ends it, nothing is lost."""
        with graceful_stop(said=said if self.world.writes else None) as stop:
            try:
                yield stop
            except BaseException as error:
                with interrupts_ignored():
                    self._rescue(error)
                raise
            finally:
                self.watchers.close()

    def resume_shared(self, state: TrainingState, directory: Path) -> None:
        """Take up what runs of every kind keep; nothing is written."""
        tensors, data = dict(state.tensors), state.data
        self.optimizer.load_state(stored_state(tensors))
        if self.average is not None:
            learning, weights = below("learning/", tensors), dict(self.policy.named_parameters())
            known = {name: laid_out_as(weights[name], tensor) for name, tensor in learning.items()}
            self.average.resume(known or self.average.learning())
        self.step = self.saved_at = self.began_at = self.watchers.step = data["step"]
        rows = self.judgement_log.take_up(directory, data.get("evaluations", 0))
        self.judgements = [(int(step), mean, std) for step, mean, std, _ in rows]
        self.best = Best(**data["best"]) if data.get("best") else None
        self.watchers.restore(data.get("callbacks", []))
        if self.recorder is not None:
            self.recorder.parent = data.get("record")

    def resume_generators(self, state: TrainingState) -> None:
        """Last of all, for whatever begins may draw."""
        load_generators(below(RANDOM, state.tensors), state.data.get("generators", {}))

    # On the way

    def show(self, display: ProgressBar) -> None:
        """Have the run shown, with what it has said before."""
        self.watchers.display = display
        for note in self.notes:
            display.say(note)

    def say(self, text: str) -> None:
        """Tell the user of something that the result should be read with."""
        if text not in self.notes:
            self.notes.append(text)
            if self.watchers.display is not None:
                self.watchers.display.say(text)

    def judge_if_due(self, report: Report) -> bool:
        """Every `evaluation.every` steps: how the policy does, into the report; whether it was asked."""
        every = self.experiment.of(Evaluation).every
        before = self.judgements[-1][0] if self.judgements else self.began_at
        if every is None or report.step // every <= before // every:
            return False
        found = self.evaluate()
        if found is not None:
            self.note_judgement(found)
            report.scalars["evaluation/mean_return"] = found.mean
            report.scalars["evaluation/std_return"] = found.std
        return found is not None

    def note_judgement(self, found: EvaluationResult) -> None:
        """Keep a judgement, and the policy if it is the best so far."""
        self.evaluation = found
        if self.judgements and self.judgements[-1][0] == self.step:
            return
        self.judgements.append((self.step, found.mean, found.std))
        self._logging(lambda: self.judgement_log.add([(self.step, found.mean, found.std, found.episodes)]))
        if self.best is None or found.mean > self.best.mean:
            self.best = Best(self.step, found.mean)
            folder, policy = self.folder, self.policy
            if folder is not None:
                with self.averaged(), self.strategy.whole():
                    self.world.by_writer(lambda: folder.write_best(policy))

    def evaluate(self) -> EvaluationResult | None:
        """Rank 0 plays, where there is an environment, and tells the others."""
        environment, options = self.experiment.find(Environment), self.experiment.of(Evaluation)
        policy = self.policy
        if environment is None:
            return None
        with self.averaged(), self.strategy.whole():
            return self.world.by_writer(
                lambda: judge(policy, environment, options.episodes, options.deterministic, options.seed)
            )

    def averaged(self) -> AbstractContextManager[None]:
        """With the average of the weights in their place, where one is kept."""
        return nullcontext() if self.average is None else self.average.applied()

    def record(self, step: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Keep the policy in the store, if there is one."""
        recorder = self.recorder
        if recorder is not None:
            with self.averaged(), self.strategy.whole():
                self.world.by_writer(lambda: recorder.record(step, epoch, metrics).id)

    def capture(self) -> None:
        """Copy all that a resumed run needs, as it is now. Whoever keeps a finite state takes over the same copies."""
        if self.output is None:
            return
        snapshot, average = Snapshot.of(self.modules(), self.optimizer), self.average
        random, generators = generators_state()
        tensors = snapshot.copies(self.optimizer.moments(), STORED)
        tensors |= {} if average is None else snapshot.copies(average.weights, "learning/")
        tensors |= {RANDOM + name: tensor for name, tensor in random.items()}
        self.captured = Captured(
            self.step,
            snapshot.copies(self.policy.state_dict(keep_vars=True)),
            None if average is None else snapshot.copies(average.average),
            {**tensors, **self.own_tensors(snapshot)},
            {"step": self.step, **self.own_data(), **self._shared_data(), "generators": generators},
            self.capture_place(),
        )
        self.optimizer.snapshot = snapshot

    def capture_judgement(self) -> None:
        """Add what is known by the end; what was played, drawn and learned is as it was captured."""
        if self.captured is not None:
            self.captured = replace(self.captured, data={**self.captured.data, **self._shared_data()})

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint: by the step, or by the clock of the one who writes."""
        if self.output is None:
            return False
        due = self.checkpoints.is_due(self.step, self.saved_at)
        if self.checkpoints.every is not None or self.world.size == 1:
            return due
        return self.world.any(due and self.world.writes)

    def checkpoint(self) -> None:
        """Save on the way; alone, a disk that is full for now does not end the run."""
        try:
            self.save(whole=False)
        except CheckpointError as error:
            if self.world.size > 1:
                raise
            self.checkpoints.saved(0.0)
            self.say(f"a checkpoint could not be written: {error}")

    def save(self, whole: bool = True) -> None:
        """Store what was captured; between, a strategy that shards weights stores shards (`whole=False`)."""
        output, captured = self.output, self.captured
        assert output is not None and captured is not None
        began = time.perf_counter()
        self.saved_at = captured.step
        if self.strategy.shards and not whole:
            with self.averaged():
                write_shards(output, self.policy, TrainingState(captured.tensors, captured.data), self.world)
        else:
            tensors = self.strategy.gathered(captured.tensors)
            with self.averaged(), self.strategy.whole():
                self.world.by_writer(lambda: self._write(captured, tensors, keep=not whole))
        self.checkpoints.saved(time.perf_counter() - began)

    # Ending

    def judge_at_end(self) -> None:
        """How the policy does; where it is judged on the way too, the end may be the best."""
        if self.judgements and self.judgements[-1][0] == self.step and self.evaluation is not None:
            return
        self.evaluation = found = self.evaluate()
        if found is not None and self.experiment.of(Evaluation).every is not None:
            self.note_judgement(found)

    def best_file(self) -> dict[str, Path]:
        """Where the best policy lies, if one is kept apart."""
        return {"best": self.folder.best} if self.folder is not None and self.folder.best.is_dir() else {}

    def settle(self) -> None:
        """Leave the policy as it is stored, with whole weights of its own."""
        if self.average is not None:
            self.average.settle()
        self.strategy.release()

    def _write(self, captured: Captured, tensors: Mapping[str, Tensor], keep: bool, **extra: Any) -> None:
        assert self.folder is not None
        for log in self.logs():
            self._logging(log.sync)
        placed, place = captured.place()
        state = {**tensors, **{PLACE + name: tensor for name, tensor in placed.items()}}
        self.folder.write(self.policy, TrainingState(state, {**captured.data, "environments": place, **extra}))
        if keep:
            self.folder.keep_copy(captured.step)

    def logs(self) -> list[History]:
        """What grows beside the artifact."""
        return [self.judgement_log]

    def _shared_data(self) -> dict[str, Any]:
        found = self.evaluation
        judged = {"mean": found.mean, "std": found.std, "episodes": found.episodes} if found else None
        return {
            "evaluation": judged,
            "evaluations": self.judgement_log.count,
            "best": None if self.best is None else {"step": self.best.step, "mean": self.best.mean},
            "callbacks": self.watchers.state(),
            **({"record": self.recorder.parent} if self.recorder is not None else {}),
        }

    def note_rows(self, log: History, rows: Sequence[Sequence[float]], later: bool = False) -> None:
        """Append to a history; `later` with the next rows, so that nothing is written yet."""
        if later:
            log.take_over(rows)
        else:
            self._logging(lambda: log.add(rows))

    def _logging(self, act: Callable[[], None]) -> None:
        """What is written beside must not end a run."""
        try:
            act()
        except OSError as error:
            self.say(f"the history could not be written: {error}; training goes on")

    def _rescue(self, error: BaseException) -> None:
        """Store what the last finished iteration gave, and say so with the error; of no iteration leave nothing.

        Where training itself gave up, it has gone back to that state, on all processes alike: so they can store shards
        together, and what was there at the beginning stays.
        """
        gave_up = isinstance(error, NonFiniteError) and error.step is not None
        if self.folder is None or not (gave_up if self.strategy.shards else self.world.writes):
            return
        captured = self.captured
        if captured is None or captured.step == self.began_at:
            if not gave_up:
                with suppress(OSError):
                    self.folder.discard()
            return
        try:
            self._store_captured(captured, error)
        except Exception as failure:  # the error itself may come from a full disk
            error.add_note(f"what was learned after {self.saved_at:,} {self.unit} could not be saved: {failure}")
        else:
            error.add_note(
                f"what {captured.step:,} {self.unit} taught is saved in {self.output}; "
                f"policysmith {self.command} --resume {self.output} goes on from there"
            )

    def _store_captured(self, captured: Captured, error: BaseException) -> None:
        if self.strategy.shards:
            self.save()
            return
        self.policy.load_state_dict(captured.weights)
        if self.average is not None:
            assert captured.average is not None
            self.average.load_state(captured.average)
        with self.averaged():
            self._write(captured, captured.tensors, keep=False, ended=_told(error))


def _told(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
