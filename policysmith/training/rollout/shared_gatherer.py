"""Experience of several processes: each plays in environments of its own, and all count what all have played."""

from __future__ import annotations

from policysmith.training.distribution.world import World
from policysmith.training.rollout.rollout import Gatherer, Rollout

__all__ = ["SharedGatherer", "environment_seed"]


class SharedGatherer:
    """One rank's gatherer whose `count` and `step` are those of all ranks, as are the episodes it tells of.

    Ranks play in step, so none has to ask the others how far they are.
    """

    def __init__(self, inner: Gatherer, world: World) -> None:
        self._inner, self._world, self._first = inner, world, inner.step
        self.count, self.step = inner.count * world.size, inner.step

    def collect(self, steps: int) -> Rollout:
        """This rank's experience, and the episodes of all ranks by the step at which they ended.

        So are numbers that were left out: whether to stop is then decided alike. Environments are numbered over ranks.
        """
        rollout = self._inner.collect(steps)
        self.step = self._of_all(self._inner.step)
        own = [episode._replace(step=self._of_all(episode.step)) for episode in rollout.episodes]
        first = self._world.rank * self._inner.count
        left_out = [e._replace(step=self._of_all(e.step), environment=first + e.environment) for e in rollout.nonfinite]
        told = self._world.gathered((own, left_out))
        rollout.episodes = sorted((e for episodes, _ in told for e in episodes), key=lambda episode: episode.step)
        rollout.nonfinite = sorted(event for _, events in told for event in events)
        return rollout

    def _of_all(self, step: int) -> int:
        return self._first + (step - self._first) * self._world.size


def environment_seed(seed: int | None, world: World, num_envs: int) -> int | None:
    """The seed of a rank's first environment; those after it have the next ones, over all ranks."""
    return None if seed is None else seed + world.rank * num_envs
