"""Judging a policy: whole episodes in fresh environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from policysmith.errors import missing_extra
from policysmith.policy.actor_critic import ActorCritic
from policysmith.training.environments.make import close_vector, make_vector
from policysmith.training.process.generators import own_generators
from policysmith.training.process.threads import few_threads
from policysmith.training.rollout.stepping import EndedEpisode, Playing
from policysmith.training.sections import Environment

__all__ = ["MAX_ENVS", "EvaluationResult", "evaluate_policy", "film_writer", "record_video"]

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
    environment raise `NonFiniteError`. The policy's training mode and the global generators are left as they were;
    sampled actions follow from `seed`, whatever other threads draw meanwhile.
    """
    was_training = policy.training
    with own_generators(seed, policy.device), few_threads(policy):
        policy.eval()
        try:
            return _play(policy, environment, episodes, deterministic, seed)
        finally:
            policy.train(was_training)


def _play(policy: ActorCritic, section: Environment, episodes: int, deterministic: bool, seed: int) -> EvaluationResult:
    count = min(episodes, MAX_ENVS)
    quota = np.full(count, episodes // count) + (np.arange(count) < episodes % count)
    ended: list[list[EndedEpisode]] = [[] for _ in range(count)]
    environments = make_vector(section, count)
    try:
        playing = Playing(policy, environments, deterministic, seed)
        while any(len(found) < share for found, share in zip(ended, quota, strict=True)):
            for episode in playing.move().stepped.ended:
                if len(ended[episode.row]) < quota[episode.row]:
                    ended[episode.row].append(episode)
    finally:
        close_vector(environments)
    found = [episode for of_one in ended for episode in of_one]
    return EvaluationResult(tuple(e.episode_return for e in found), tuple(e.length for e in found))


def record_video(
    policy: ActorCritic, section: Environment, path: str | Path, deterministic: bool = True, seed: int = 0
) -> Path:
    """One episode as a film (`.mp4` or `.gif`), which follows from `seed`; needs the extra `video`."""
    write = film_writer()
    alone = replace(section, vectorization="sync")
    environments = make_vector(alone, 1, render_mode="rgb_array")
    frames: list[Any] = []
    try:
        with own_generators(seed, policy.device):
            playing, over = Playing(policy, environments, deterministic, seed), False
            while not over:
                frames += environments.render() or ()
                over = bool(playing.move().stepped.done[0])
        fps = environments.metadata.get("render_fps", 30)
    finally:
        environments.close()
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
