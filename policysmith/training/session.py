"""One training run from start to finish: seeds, environments, checkpoints, resuming, Ctrl-C, and the last evaluation.

In: a checked experiment and a policy. Out: a `TrainingResult`, and an artifact where a place for it was given.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from policysmith.config.experiment import Environment, Experiment, SelfPlay
from policysmith.errors import CheckpointError, ConfigError, NonFiniteError, Problem
from policysmith.policy.actor_critic import ActorCritic
from policysmith.store import TrainingState, save
from policysmith.training.averaging import WeightAverage
from policysmith.training.curve import plot_learning_curve
from policysmith.training.distribution import Strategy, joined
from policysmith.training.distribution.checkpoint import Stored, below, newest, remove_shards, write_shards
from policysmith.training.distribution.choice import strategy_of
from policysmith.training.distribution.gatherer import SharedGatherer, environment_seed
from policysmith.training.environments import make_vector
from policysmith.training.evaluation import EvaluationResult
from policysmith.training.games import GAMES, Games, is_game
from policysmith.training.holding import offline_held
from policysmith.training.logging import Logger, Progress, Window
from policysmith.training.match import judge
from policysmith.training.nonfinite import LeftOut
from policysmith.training.online import PPO, Report
from policysmith.training.opponents import Pool
from policysmith.training.optimizer import Adam, laid_out_as
from policysmith.training.optimizers import Optimizers
from policysmith.training.recorder import Recorder
from policysmith.training.rollout import Gatherer
from policysmith.training.self_play import SelfPlayCollector
from policysmith.training.stopping import graceful_stop
from policysmith.training.threads import few_threads

__all__ = ["TrainingResult", "run_training", "seed_everything"]

PATIENCE = 5  # iterations between two evaluations that ask whether the task is solved


@dataclass
class TrainingResult:
    """What a run gives back. `returns` holds (step, episode return) of every episode, `files` what was written.

    `left_out` says what was not learned from because it was not finite. Of several processes only rank 0 writes, so
    `artifact` is None elsewhere.
    """

    policy: ActorCritic
    steps: int
    seconds: float
    returns: list[tuple[int, float]]
    artifact: Path | None = None
    evaluation: EvaluationResult | None = None
    interrupted: bool = False
    files: dict[str, Path] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)


def seed_everything(seed: int | None) -> None:
    """Seed Python's, NumPy's and torch's global generators."""
    if seed is not None:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # environments may still use the global generator
        torch.manual_seed(seed)


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
    with joined() as world, offline_held(policy):
        algorithm, environment = _parts(experiment)
        stored = None if resume is None else _stored(resume)
        if stored is not None and stored.weights is not None:
            policy.load_state_dict(stored.weights)
        strategy = strategy_of(algorithm, world, policy)
        if strategy.shards and is_game(environment):
            message = "'fsdp' shards the weights, and self-play keeps whole copies of past ones; choose ddp"
            raise ConfigError([Problem("training.strategy", message)])
        seed_everything(experiment.seed)
        run = _Run(experiment, policy, algorithm, environment, world.told(output), strategy)
        if stored is not None:
            run.resume(stored.training, resume)
        return _train(run, progress and world.writes, evaluate)


def _train(run: _Run, progress: bool, evaluate: bool) -> TrainingResult:
    experiment, algorithm, policy, world = run.experiment, run.algorithm, run.policy, run.world
    if run.output is not None:
        run.save()  # finds out now, not after the training, whether the place can be written
    world.reseed(run.seed, run.step)
    environments = run.environments()
    started, first_step = time.perf_counter(), run.step
    try:
        with ExitStack() as stack, graceful_stop() as stop:
            stack.enter_context(few_threads(policy))
            title = experiment.name or run.environment.id
            display = stack.enter_context(Progress(algorithm.total_steps, title, run.step, progress))
            loggers: list[Logger] = [display, *run.loggers()]
            callbacks = [spec.build() for spec in algorithm.callbacks] if world.writes else []
            for logger in loggers:
                stack.callback(logger.close)
            seed = None if experiment.seed is None else experiment.seed + run.step
            with run.strategy.whole():
                collector = run.gatherer(environments, environment_seed(seed, world, run.environment.num_envs))

            def watch(report: Report) -> bool:
                speed = (report.step - first_step) / (time.perf_counter() - started)
                for logger in loggers:
                    logger.report(report, speed)
                wanted = [callback(report) for callback in callbacks]  # each is told, whoever wants to stop
                return world.any(run.take(report) or any(wanted) or stop.is_set())

            shared = {} if world.size == 1 else {"strategy": run.strategy}
            with run.kept_when_not_finite():
                algorithm.learn(policy, collector, run.optimizer, watch, run.iterations(collector.count), **shared)
    finally:
        environments.close()
    seconds = time.perf_counter() - started
    return run.finish(seconds, interrupted=world.any(stop.is_set()), evaluate=evaluate)


class _Run:
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
        self.experiment, self.policy, self.algorithm = experiment, policy, algorithm
        self.environment, self.output = environment, output
        self.strategy, self.world = strategy, strategy.world
        self.seed = self.world.told(secrets.randbits(31) if experiment.seed is None else experiment.seed)
        self.optimizer: Adam | Optimizers = algorithm.optimizer(policy)
        strategy.follow(self.optimizer)
        self.average = None if algorithm.ema is None else WeightAverage(policy, algorithm.ema)
        if self.average is not None:
            self.average.follow(self.optimizer)
        self.step = self.iteration = self.saved_at = 0
        self.returns: list[tuple[int, float]] = []
        self.window, self.left_out = Window(), LeftOut()
        self.pool = Pool(policy, experiment.self_play or SelfPlay()) if is_game(environment) else None
        self.evaluation: EvaluationResult | None = None
        name = experiment.name or environment.id
        self.recorder = Recorder(experiment.store, policy, name) if experiment.store else None
        self._ask_again = 0

    def environments(self) -> VectorEnv | Games:
        """What is played in: copies of the environment, or tables of a game for two."""
        if self.pool is not None:
            return Games(self.environment, self.environment.num_envs)
        return make_vector(self.environment)

    def loggers(self) -> list[Logger]:
        """Who writes reports down, where there is a place for it."""
        if self.output is None or not self.world.writes:
            return []
        return [spec.build(directory=self.output / "logs", step=self.step) for spec in self.algorithm.loggers]

    def gatherer(self, environments: VectorEnv | Games, seed: int | None) -> Gatherer:
        """What plays in them."""
        if self.pool is not None:
            own: Gatherer = SelfPlayCollector(self.policy, environments, self.pool, seed, self.step)
        else:
            own = self.algorithm.collector(self.policy, environments, seed, self.step)
        return own if self.world.size == 1 else SharedGatherer(own, self.world)

    def iterations(self, count: int) -> int:
        """How many iterations the steps so far are, with so many episodes side by side: a run may go on with others."""
        rollout = getattr(self.algorithm, "rollout_steps", None)
        if rollout is None or self.pool is not None:  # in a game a step is not a move of every table
            return self.iteration
        return self.step // (rollout * count)

    @contextmanager
    def kept_when_not_finite(self) -> Iterator[None]:
        """Where training gave up, the last finite policy is stored: that is what it has gone back to."""
        try:
            yield
        except NonFiniteError as error:
            if self.output is None:
                raise
            self.save()
            raise NonFiniteError(f"{error}, and so it is stored in {self.output}") from error

    def take(self, report: Report) -> bool:
        """Note an iteration, save if it is time; True when the task is solved."""
        self.left_out.add(report.nonfinite, report.scalars)
        self.step, self.iteration = report.step, report.iteration
        self.returns += [(e.step, e.episode_return) for e in report.episodes]
        self.window.returns.extend(e.episode_return for e in report.episodes)
        if self.pool is not None:
            self.pool.take(self.iteration)
        every = self.algorithm.checkpoint_every
        if self.recorder is not None and self.recorder.is_due(self.iteration):
            self.record()
        if every and self.output and self.step - self.saved_at >= every:
            self.save(whole=False)
        return self._solved()

    def _solved(self) -> bool:
        goal = self.algorithm.solved_at
        recent = list(self.window.returns)[-20:]
        if goal is None or len(recent) < 20 or self.iteration < self._ask_again or np.mean(recent) < goal:
            return False
        self.evaluation = self.evaluate()
        self._ask_again = self.iteration + PATIENCE
        return self.evaluation.mean >= goal

    def evaluate(self) -> EvaluationResult:
        """Rank 0 plays, and tells the others."""
        policy, environment, options = self.policy, self.environment, self.experiment.evaluation
        with self.averaged(), self.strategy.whole():
            return self.world.by_writer(
                lambda: judge(policy, environment, options.episodes, options.deterministic, options.seed)
            )

    def averaged(self) -> AbstractContextManager[None]:
        """With the average of the weights in their place, where one is kept."""
        return nullcontext() if self.average is None else self.average.applied()

    def record(self, **metrics: float) -> None:
        """Keep the policy in the store, if there is one."""
        recorder = self.recorder
        if recorder is not None:
            told = {"return": self.window.mean, "episodes": len(self.returns), **metrics}
            with self.averaged(), self.strategy.whole():
                self.world.by_writer(lambda: recorder.record(self.step, self.iteration, told).id)

    def save(self, whole: bool = True) -> None:
        """Store the artifact; between, a strategy that shards weights stores shards (`whole=False`)."""
        output, policy = self.output, self.policy
        assert output is not None
        self.saved_at = self.step
        self.world.reseed(self.seed, self.step)
        tensors, data = self._tensors(), self._data()
        if self.strategy.shards and not whole:
            with self.averaged():
                write_shards(output, policy, TrainingState(tensors, data), self.world)
            return
        training = TrainingState(self.strategy.gathered(tensors), data)
        with self.averaged(), self.strategy.whole():
            self.world.by_writer(lambda: _store(policy, output, training))

    def finish(self, seconds: float, interrupted: bool, evaluate: bool) -> TrainingResult:
        goal = self.algorithm.solved_at
        known = self.evaluation is not None and goal is not None and self.evaluation.mean >= goal
        if evaluate and not interrupted and not known:
            with self.kept_when_not_finite():
                self.evaluation = self.evaluate()
        result = TrainingResult(
            self.policy, self.step, seconds, self.returns, evaluation=self.evaluation, interrupted=interrupted,
            left_out=self.left_out,
        )  # fmt: skip
        self.record(**({"evaluation": self.evaluation.mean} if self.evaluation else {}))
        if self.output is not None:
            self.save()
        if self.output is not None and self.world.writes:
            result.artifact = self.output
            name = self.experiment.name or self.environment.id
            steps, returns = [s for s, _ in self.returns], [r for _, r in self.returns]
            picture = self.output / "learning_curve.png"
            result.files["learning_curve"] = plot_learning_curve(picture, steps, returns, name, goal)
        if self.average is not None:
            self.average.settle()
        self.strategy.release()
        return result

    def resume(self, state: TrainingState, directory: Path | None) -> None:
        """Go on where another run, of however many processes, stood."""
        tensors = dict(state.tensors)
        torch.set_rng_state(tensors.pop("rng/torch"))
        self.optimizer.load_state(below("adam/", tensors))
        if self.average is not None:
            learning, weights = below("learning/", tensors), dict(self.policy.named_parameters())
            known = {name: laid_out_as(weights[name], tensor) for name, tensor in learning.items()}
            self.average.resume(known or self.average.learning())
        if self.pool is not None:
            self.pool.load_state(below("pool/", tensors))
        data = state.data
        self.step, self.iteration, self.saved_at = data["step"], data["iteration"], data["step"]
        self.returns = [(int(s), float(r)) for s, r in data["returns"]]
        self.window = Window([r for _, r in self.returns])
        if self.recorder is not None:
            self.recorder.parent = data.get("record")
        if self.step >= self.algorithm.total_steps:
            raise ConfigError(
                [
                    Problem(
                        "training.total_steps", f"{directory} has already trained {self.step} steps; raise total_steps"
                    )
                ]
            )

    def _tensors(self) -> dict[str, Tensor]:
        state = {f"adam/{name}": tensor for name, tensor in self.optimizer.state().items()}
        past = {f"pool/{name}": tensor for name, tensor in self.pool.state().items()} if self.pool else {}
        learning = self.average.learning() if self.average is not None else {}
        past |= {f"learning/{name}": tensor for name, tensor in learning.items()}
        return {**state, **past, "rng/torch": torch.get_rng_state()}

    def _data(self) -> Mapping[str, Any]:
        evaluation = self.evaluation
        return {
            "step": self.step,
            "iteration": self.iteration,
            "returns": [list(pair) for pair in self.returns],
            "evaluation": {"mean": evaluation.mean, "std": evaluation.std, "episodes": evaluation.episodes}
            if evaluation
            else None,
            **({"record": self.recorder.parent} if self.recorder is not None else {}),
        }


def _parts(experiment: Experiment) -> tuple[PPO, Environment]:
    problems = []
    if experiment.training is None:
        problems.append(Problem("training", "this section is required to train: {type: ppo, total_steps: …}"))
    elif experiment.training.entry.traits.get("offline"):
        message = f"{experiment.training.type!r} learns from recorded data: run policysmith train-offline"
        problems.append(Problem("training.type", message))
    elif experiment.training.entry.traits.get("skills"):
        problems.append(Problem("training.type", "'skill_ppo' trains skills: run policysmith skills train"))
    if experiment.environment is None:
        problems.append(Problem("environment", "this section is required to train: {id: CartPole-v1}"))
    if experiment.self_play is not None and experiment.environment is not None and not is_game(experiment.environment):
        known = ", ".join(GAMES)
        problems.append(Problem("self_play", f"{experiment.environment.id} is no game for two; there are: {known}"))
    if problems:
        raise ConfigError(problems)
    assert experiment.environment is not None
    return experiment.training.build(), experiment.environment


def _stored(directory: Path) -> Stored:
    stored = newest(directory)
    if stored is None:
        raise CheckpointError(
            f"{directory} holds a policy but no training state: it can't be resumed, only trained anew"
        )
    return stored


def _store(policy: ActorCritic, output: Path, training: TrainingState) -> None:
    save(policy, output, training=training)
    remove_shards(output)
