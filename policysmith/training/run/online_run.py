"""One training run from start to finish: seeds, environments, checkpoints, resuming, Ctrl-C, and the last evaluation.

In: a checked experiment and a policy. Out: a `TrainingResult`, and an artifact where a place for it was given.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from gymnasium.vector import VectorEnv
from torch import Tensor

from policysmith.config.experiment import Experiment
from policysmith.errors import CheckpointError, ConfigError, PolicysmithError, Problem
from policysmith.policy.actor_critic import ActorCritic
from policysmith.store import TrainingState
from policysmith.training.distribution import Strategy, joined
from policysmith.training.distribution.choice import strategy_of
from policysmith.training.distribution.shards import Stored, below, newest
from policysmith.training.environments.gate import require_sound
from policysmith.training.environments.make import close_vector, make_vector
from policysmith.training.environments.two_player import GAMES, Games, is_game
from policysmith.training.games.opponents import OpponentPool
from policysmith.training.games.self_play import SelfPlayCollector
from policysmith.training.logging.history import History
from policysmith.training.logging.loggers import WINDOW, ProgressBar, ReturnWindow
from policysmith.training.logging.plots import plot_learning_curve
from policysmith.training.logging.report import Report
from policysmith.training.nonfinite.events import LeftOut
from policysmith.training.optim.snapshot import Snapshot
from policysmith.training.ppo.ppo import PPO
from policysmith.training.process.generators import generators_kept, seed_everything
from policysmith.training.process.threads import few_threads
from policysmith.training.rollout.environment_state import EnvironmentState, State
from policysmith.training.rollout.rollout import Gatherer
from policysmith.training.rollout.shared_gatherer import SharedGatherer, environment_seed
from policysmith.training.run.freezing import offline_components_frozen
from policysmith.training.run.results import TrainingResult
from policysmith.training.run.run import PLACE, Run
from policysmith.training.sections import Environment, Evaluation, SelfPlay

__all__ = ["OnlineRun", "run_training"]

SCHEDULES = ("learning_rate", "clip", "entropy_coef")
CONSTANT = "constant"
PATIENCE = 5  # iterations between two evaluations that ask whether the task is solved


def run_training(
    experiment: Experiment,
    policy: ActorCritic,
    output: Path | None = None,
    *,
    resume: Path | None = None,
    progress: bool = True,
    evaluate: bool = True,
) -> TrainingResult:
    """Train `policy` as `experiment` says; with `resume` from that artifact's step and optimiser state.

    Under torchrun every process calls this, and they train one policy together (docs/distribution.md).
    """
    with joined() as world, offline_components_frozen(policy):
        algorithm, environment = _parts(experiment)
        told = require_sound(experiment)
        stored = None if resume is None else _stored(resume)
        if stored is not None and stored.weights is not None:
            policy.load_state_dict(stored.weights)
        strategy = strategy_of(algorithm, world, policy)
        if strategy.shards and is_game(environment):
            message = "'fsdp' shards the weights, and self-play keeps whole copies of past ones; choose ddp"
            raise ConfigError([Problem("training.strategy", message)])
        seed_everything(experiment.seed)
        run = OnlineRun(experiment, policy, algorithm, environment, world.told(output), strategy)
        run.notes += told
        with run.claimed(), run.guarded() as stop:
            if stored is not None:
                assert resume is not None
                run.resume(stored.training, resume)
            return _train(run, stored and stored.training, stop, progress and world.writes, evaluate)


def _train(
    run: OnlineRun, stored: TrainingState | None, stop: threading.Event, progress: bool, evaluate: bool
) -> TrainingResult:
    algorithm, policy, world = run.algorithm, run.policy, run.world
    environments = run.environments()
    started, first_step = time.perf_counter(), run.step
    with ExitStack() as stack:
        stack.enter_context(_open(environments))
        stack.enter_context(few_threads(policy))
        world.reseed(run.seed, run.step)
        with run.strategy.whole():
            collector = run.gatherer(environments, stored)
        if run.output is not None and not (stored and run.in_place):
            run.capture()
            run.save()  # finds out now, not after the training, whether the place can be written
        with generators_kept():  # rich draws when it is imported
            run.show(stack.enter_context(ProgressBar(algorithm.total_steps, run.title, run.step, progress)))

        def watch(report: Report) -> bool:
            solved = run.take(report)
            speed = (report.step - first_step) / (time.perf_counter() - started)
            return world.any(run.tell(report, speed) or solved or stop.is_set())

        shared = {} if world.size == 1 else {"strategy": run.strategy}
        algorithm.learn(policy, collector, run.optimizer, watch, run.iterations(collector.count), **shared)
    seconds = time.perf_counter() - started
    return run.finish(seconds, interrupted=world.any(stop.is_set()), evaluate=evaluate)


@contextmanager
def _open(environments: VectorEnv | Games) -> Iterator[None]:
    """Close them at the end; an error that follows from a worker that was killed says so."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        if (told := close_vector(environments, patience=2.0)) is not None:
            raise PolicysmithError(told) from error
        raise
    except BaseException:
        with suppress(Exception):  # the error counts, not that they can't be closed after it
            close_vector(environments)
        raise
    else:
        close_vector(environments)


class OnlineRun(Run):
    """The state of one run between iterations."""

    def __init__(
        self,
        experiment: Experiment,
        policy: ActorCritic,
        algorithm: PPO,
        environment: Environment,
        output: Path | None,
        strategy: Strategy,
    ) -> None:
        title = experiment.name or environment.id
        super().__init__(experiment, policy, algorithm, output, strategy, algorithm.optimizer(policy), title)
        self.environment = environment
        self.seed = self.world.told(secrets.randbits(31) if experiment.seed is None else experiment.seed)
        self.iteration = 0
        self.returns: list[tuple[int, float]] = []
        self.episodes = History(self.watchers.directory, "returns.csv", ("step", "return", "length"))
        self.window, self.left_out = ReturnWindow(), LeftOut()
        self.pool = OpponentPool(policy, experiment.find(SelfPlay) or SelfPlay()) if is_game(environment) else None
        self.in_place = False
        self._place: EnvironmentState | SelfPlayCollector | None = None
        self._ask_again = 0

    def environments(self) -> VectorEnv | Games:
        """What is played in: copies of the environment, or tables of a game for two."""
        if self.pool is not None:
            return Games(self.environment, self.environment.num_envs)
        return make_vector(self.environment, replayable=self.output is not None and self.world.size == 1)

    def gatherer(self, environments: VectorEnv | Games, stored: TrainingState | None) -> Gatherer:
        """What plays in them, and goes on in the midst of episodes where a run is resumed."""
        seed = None if self.experiment.seed is None else self.experiment.seed + self.step
        seed = environment_seed(seed, self.world, self.environment.num_envs)
        if self.pool is not None:
            own: Gatherer = SelfPlayCollector(self.policy, environments, self.pool, seed, self.step)
        else:
            own = self.algorithm.collector(self.policy, environments, seed, self.step)
        self._check_total(own.count * self.world.size, resumed=stored is not None)
        if self.world.size > 1:
            return SharedGatherer(own, self.world)
        if self.output is not None:
            self._place = own if isinstance(own, SelfPlayCollector) else EnvironmentState(self.environment, own)
        if stored is not None:
            self._go_on(stored)
        return own

    def _go_on(self, stored: TrainingState) -> None:
        if self._place is not None:
            seed = None if self.experiment.seed is None else self.experiment.seed + self.step
            tensors, data = below(PLACE, stored.tensors), stored.data.get("environments", {})
            if (problem := self._place.restore(tensors, data, seed)) is not None:
                self.say(f"resumed with new episodes, and not as the run would have gone on: {problem}")
        self.resume_generators(stored)

    def capture_place(self) -> Callable[[], State]:
        """Of games and environments of this process."""
        return super().capture_place() if self._place is None else self._place.capture()

    def iterations(self, count: int) -> int:
        """How many iterations the steps so far are, with so many episodes side by side: a run may go on with others."""
        rollout = getattr(self.algorithm, "rollout_steps", None)
        if rollout is None or self.pool is not None:  # in a game a step is not a move of every table
            return self.iteration
        return self.step // (rollout * count)

    def take(self, report: Report) -> bool:
        """Note an iteration, and judge the policy if it is time; True when the task is solved."""
        self.left_out.add(report.nonfinite, report.scalars)
        self.step, self.iteration = report.step, report.iteration
        self.returns += [(e.step, e.episode_return) for e in report.episodes]
        self.window.returns.extend(e.episode_return for e in report.episodes)
        if self.pool is not None:
            self.pool.take(self.iteration)
        self.world.reseed(self.seed, self.step)
        self.note_rows(self.episodes, [(e.step, e.episode_return, e.length) for e in report.episodes])
        try:
            return self._solved(self.judge_if_due(report))
        except BaseException:
            self.capture()  # an error while the policy is judged loses nothing
            raise

    def tell(self, report: Report, speed: float) -> bool:
        """Tell watchers of an iteration, and save if it is time; True when a callback wants to stop."""
        try:
            wanted = self.watchers.tell(report, speed)
            if self.recorder is not None and self.recorder.is_due(self.iteration):
                self.keep_in_store()
        finally:  # callbacks may have changed the policy, or drawn
            self.capture()
        if self.is_due():
            self.checkpoint()
        return wanted

    def _solved(self, judged: bool) -> bool:
        """By the judgements on the way, where there are any; else returns in training say when to ask."""
        goal = self.algorithm.solved_at
        if goal is None:
            return False
        if self.experiment.of(Evaluation).every is None:
            recent = list(self.window.returns)[-20:]
            if len(recent) < 20 or self.iteration < self._ask_again or np.mean(recent) < goal:
                return False
            self.evaluation, judged = self.evaluate(), True
            self._ask_again = self.iteration + PATIENCE
        return judged and self.evaluation is not None and self.evaluation.mean >= goal

    def keep_in_store(self, **metrics: float) -> None:
        """Keep the policy in the store with what is known of it, if there is one."""
        self.record(self.step, self.iteration, {"return": self.window.mean, "episodes": len(self.returns), **metrics})

    def finish(self, seconds: float, interrupted: bool, evaluate: bool) -> TrainingResult:
        """The last judgement and save, and what the run gives back."""
        goal = self.algorithm.solved_at
        known = self.evaluation is not None and goal is not None and self.evaluation.mean >= goal
        if evaluate and not interrupted and not known:
            if self.output is not None and self.step != self.saved_at:
                self.save()  # the judgement may take long
            self.judge_at_end()
        elif not known:
            self.evaluation = None  # an earlier one is none of this policy
        result = TrainingResult(
            self.policy, self.step, seconds, self.returns, evaluation=self.evaluation, interrupted=interrupted,
            left_out=self.left_out,
        )  # fmt: skip
        self.keep_in_store(**({"evaluation": self.evaluation.mean} if self.evaluation else {}))
        if self.output is not None:
            self.capture_judgement()
            self.save()
        if self.output is not None and self.world.writes:
            result.artifact = self.output
            result.files |= self.best_file() | {"learning_curve": self._plot(self.output)}
        result.notes = self.notes
        self.settle()
        return result

    def _plot(self, output: Path) -> Path:
        steps, returns = [s for s, _ in self.returns], [r for _, r in self.returns]
        picture, goal = output / "learning_curve.png", self.algorithm.solved_at
        return plot_learning_curve(picture, steps, returns, self.title, goal, self.judgements)

    def resume(self, state: TrainingState, directory: Path) -> None:
        """Go on where another run, of however many processes, stood; nothing is written yet."""
        self.resume_shared(state, directory)
        data = state.data
        self.in_place = self.output is not None and self.output.resolve() == directory.resolve()
        if self.pool is not None:
            self.pool.load_state(below("pool/", state.tensors))
        self.iteration = data["iteration"]
        window = [(int(s), float(r)) for s, r in data["returns"]]
        self.returns = self._earlier(directory, window, data.get("episodes"))
        self.window = ReturnWindow([r for _, r in window])
        if self.step >= self.algorithm.total_steps:
            self._refuse(f"{directory} has already trained {self.step} steps; raise total_steps")
        self._note_horizon(data.get("total_steps"))

    def _earlier(self, directory: Path, window: list[tuple[int, float]], count: int | None) -> list[tuple[int, float]]:
        """All returns before: of the history, as far as it goes, or of a checkpoint that holds them all."""
        if count is None:
            self.note_rows(self.episodes, [(step, value, float("nan")) for step, value in window], later=True)
            return window
        rows = self.episodes.take_up(directory, count)
        if len(rows) < count:
            self.say(f"{directory / self.episodes.name} has {len(rows):,} of {count:,} episodes: the curve lacks some")
        return [(int(step), value) for step, value, _ in rows]

    def _check_total(self, count: int, resumed: bool) -> None:
        """Refuse to resume what has no iteration left, and say so where not all of `total_steps` can be trained."""
        rollout, total = getattr(self.algorithm, "rollout_steps", None), self.algorithm.total_steps
        if rollout is None:  # an algorithm of one's own, which may count otherwise
            return
        size = rollout * count
        if resumed and self.iterations(count) >= max(1, total // size):
            self._refuse(
                f"{self.step:,} of {total:,} steps are trained, and an iteration has {size:,}: raise total_steps to "
                f"{(self.step // size + 1) * size:,} or more"
            )
        if total % size:
            trained = max(1, total // size) * size
            self.say(f"total_steps={total:,} is no multiple of an iteration's {size:,} steps: {trained:,} are trained")

    def _refuse(self, message: str) -> NoReturn:
        raise ConfigError([Problem("training.total_steps", message)])

    def _note_horizon(self, before: int | None) -> None:
        """A schedule is a function of the share of `total_steps` that is done."""
        options = self.experiment["training"].options
        moving = [name for name in SCHEDULES if getattr(options.get(name), "type", CONSTANT) != CONSTANT]
        if before is not None and before != self.algorithm.total_steps and moving:
            self.say(
                f"{', '.join(moving)} follow{'s' if len(moving) == 1 else ''} the share of total_steps that is done, "
                f"which is {self.step / self.algorithm.total_steps:.0%} now and was {self.step / before:.0%}"
            )

    def logs(self) -> list[History]:
        """With the episodes."""
        return [*super().logs(), self.episodes]

    def own_tensors(self, snapshot: Snapshot) -> dict[str, Tensor]:
        """Copies of past opponents, which never change."""
        return {f"pool/{name}": tensor for name, tensor in self.pool.state().items()} if self.pool else {}

    def own_data(self) -> dict[str, Any]:
        """The latest returns; all are in the history, which does not grow with every save."""
        return {
            "iteration": self.iteration,
            "returns": [list(pair) for pair in self.returns[-WINDOW:]],
            "episodes": self.episodes.count,
            "total_steps": self.algorithm.total_steps,
        }


def _parts(experiment: Experiment) -> tuple[PPO, Environment]:
    problems = []
    if experiment["training"] is None:
        problems.append(Problem("training", "this section is required to train: {type: ppo, total_steps: …}"))
    elif experiment["training"].entry.traits.get("offline"):
        message = f"{experiment['training'].type!r} learns from recorded data: run policysmith train-offline"
        problems.append(Problem("training.type", message))
    elif experiment["training"].entry.traits.get("skills"):
        problems.append(Problem("training.type", "'skill_ppo' trains skills: run policysmith skills train"))
    environment = experiment.find(Environment)
    if environment is None:
        problems.append(Problem("environment", "this section is required to train: {id: CartPole-v1}"))
    if experiment.find(SelfPlay) is not None and environment is not None and not is_game(environment):
        known = ", ".join(GAMES)
        problems.append(Problem("self_play", f"{environment.id} is no game for two; there are: {known}"))
    if problems:
        raise ConfigError(problems)
    assert environment is not None
    return experiment.built("training"), environment


def _stored(directory: Path) -> Stored:
    stored = newest(directory)
    if stored is None:
        raise CheckpointError(
            f"{directory} holds a policy but no training state: it can't be resumed, only trained anew"
        )
    return stored
