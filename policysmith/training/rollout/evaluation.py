"""Judging a policy: whole episodes in fresh environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from policysmith.config.experiment import Environment
from policysmith.errors import missing_extra
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.observations import MASK
from policysmith.policy.stateful import StatefulActorCritic
from policysmith.training.environments.make import make_environment, make_vector
from policysmith.training.nonfinite.events import NonFiniteOptions, check_events
from policysmith.training.nonfinite.finite_steps import FiniteSteps, VectorStep
from policysmith.training.process.generators import generators_kept
from policysmith.training.process.threads import few_threads
from policysmith.training.rollout.conversion import preparer

__all__ = ["EvaluationResult", "actor_of", "evaluate_policy", "film_writer", "record_video", "MAX_ENVS"]

MAX_ENVS = 16


@dataclass(frozen=True)
class EvaluationResult:
    """Returns (undiscounted) and lengths (steps) of `episodes` whole episodes; `std` is the population's."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns."""
        return float(np.std(self.returns))

    @property
    def episodes(self) -> int:
        """How many episodes were played."""
        return len(self.returns)


def evaluate_policy(
    policy: ActorCritic, environment: Environment, episodes: int = 100, deterministic: bool = True, seed: int = 10_000
) -> EvaluationResult:
    """Play `episodes` episodes, each environment its share, so that short episodes are not favoured.

    An episode with a number that is not finite does not count, and another is played for it; ten in a row of one
    environment raise `NonFiniteError`. The policy's training mode and the global generators are left as they were.
    """
    was_training = policy.training
    with generators_kept(), few_threads(policy):
        torch.manual_seed(seed)
        policy.eval()
        try:
            return _play(policy, environment, episodes, deterministic, seed)
        finally:
            policy.train(was_training)


def _play(policy: ActorCritic, section: Environment, episodes: int, deterministic: bool, seed: int) -> EvaluationResult:
    count = min(episodes, MAX_ENVS)
    environments = make_vector(section, count)
    next_step = environments.metadata.get("autoreset_mode") == AutoresetMode.NEXT_STEP
    quota = np.full(count, episodes // count) + (np.arange(count) < episodes % count)
    returns: list[list[float]] = [[] for _ in range(count)]
    lengths: list[list[int]] = [[] for _ in range(count)]
    totals, steps, ended = np.zeros(count), np.zeros(count, dtype=int), np.zeros(count, dtype=bool)
    act, prepare, begins = actor_of(policy, count, deterministic), preparer(policy), np.ones(count, dtype=bool)
    finite, played = FiniteSteps(policy, environments, next_step), 0
    try:
        observation, info = finite.begin(*environments.reset(seed=seed))
        while any(len(r) < q for r, q in zip(returns, quota, strict=True)):
            action = act(prepare(observation), info.get(MASK), begins)
            played += count
            seen = VectorStep(*environments.step(policy.actions.to_environment(action)))
            seen = finite.look(seen, ended, played)
            check_events(finite.events, NonFiniteOptions.max)
            finite.events.clear()
            observation, info = seen.observation, seen.info
            live = ~ended if next_step else np.ones(count, dtype=bool)
            totals, steps = totals + np.where(live, seen.reward, 0.0), steps + live
            begins, ended = ended, seen.done
            begins = begins if next_step else ended
            told = ended if seen.out is None else ended & ~seen.out
            finite.regular(told)
            for i in np.flatnonzero(told):
                if len(returns[i]) < quota[i]:
                    returns[i].append(float(totals[i]))
                    lengths[i].append(int(steps[i]))
            anew = ended if seen.begun is None else ended | seen.begun
            begins = begins if seen.begun is None else begins | seen.begun
            totals, steps = np.where(anew, 0.0, totals), np.where(anew, 0, steps)
    finally:
        environments.close()
    return EvaluationResult(
        tuple(r for of_one in returns for r in of_one), tuple(n for of_one in lengths for n in of_one)
    )


def actor_of(policy: ActorCritic, count: int, deterministic: bool) -> Callable[[Any, Any, np.ndarray], Any]:
    """(observation, mask, rows whose episode begins) → action; a policy's memory is carried from call to call."""
    act: Callable[..., Any] = policy.acting(deterministic)
    if not isinstance(policy, StatefulActorCritic):
        return lambda observation, mask, begins: act(observation, mask)[0]
    state = policy.init_state(count)

    def remember_and_act(observation: Any, mask: Any, begins: np.ndarray) -> Any:
        nonlocal state
        action, _, _, state = act(observation, state, torch.as_tensor(begins, device=policy.device), mask)
        return action

    return remember_and_act


def record_video(
    policy: ActorCritic, section: Environment, path: str | Path, deterministic: bool = True, seed: int = 0
) -> Path:
    """One episode as a film (`.mp4` or `.gif`); needs the extra `video`."""
    write = film_writer()
    environment = make_environment(section, render_mode="rgb_array")
    frames: list[Any] = []
    observation, _ = environment.reset(seed=seed)
    done, state = False, None
    while not done:
        frames.append(environment.render())
        action, state = policy.predict(observation, state, deterministic)
        observation, _, terminated, truncated, _ = environment.step(action)
        done = terminated or truncated
    fps = environment.metadata.get("render_fps", 30)
    environment.close()
    return write(frames, fps, Path(path))


def film_writer() -> Callable[[list[Any], float, Path], Path]:
    """What writes (frames, frames a second, path) as a film; raises where the extra `video` is missing."""
    try:
        from moviepy import ImageSequenceClip
    except ImportError as error:
        raise missing_extra("moviepy", "video") from error

    def write(frames: list[Any], fps: float, path: Path) -> Path:
        clip = ImageSequenceClip(frames, fps=fps)
        if path.suffix == ".gif":
            clip.write_gif(str(path), logger=None)
        else:
            clip.write_videofile(str(path), logger=None)
        return path

    return write
