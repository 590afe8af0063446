"""How a run begins: with a policy that a configuration describes, or with a stored one that learns on.

In: what a caller says of a run. Out: the checked experiment, the policy, and a place that holds no other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium

from policysmith.config.experiment import Experiment
from policysmith.errors import CheckpointError
from policysmith.policy.actor_critic import ActorCritic
from policysmith.registry import Registry, default_registry
from policysmith.store import load
from policysmith.training.experiment import build_experiment, check_environment, read_experiment, take_up
from policysmith.training.offline.dataset_section import place_dataset
from policysmith.training.run.run_folder import is_taken
from policysmith.training.sections import Environment

__all__ = ["Start", "read_start"]


@dataclass(frozen=True, eq=False)
class Start:
    """What a run begins with: `stored` is the policy to go on with, and `resume` where it lies; None for a new one."""

    experiment: Experiment
    registry: Registry
    output: Path | None = None
    stored: ActorCritic | None = None
    resume: Path | None = None

    def policy(
        self, observation_space: gymnasium.Space[Any] | None = None, action_space: gymnasium.Space[Any] | None = None
    ) -> ActorCritic:
        """The stored policy, as the experiment says, or a new one for two spaces; it knows its configuration."""
        if self.stored is None:
            policy = build_experiment(self.experiment, observation_space, action_space, registry=self.registry)
        else:
            policy = self.stored
            take_up(policy, self.experiment)
        policy.config = self.experiment.resolved()
        return policy

    def check_environment(self) -> None:
        """A stored policy must fit the environment that it is to go on in."""
        if self.stored is not None and self.experiment.find(Environment) is not None:
            check_environment(self.stored, self.experiment)

    def place(self) -> Path | None:
        """Where the run is stored: never in place of another policy than the one it goes on with."""
        place, own = self.output or self.resume, self.resume
        if place is not None and is_taken(place) and (own is None or place.resolve() != own.resolve()):
            raise CheckpointError(
                f"{place} holds a policy already: continue it with resume, or choose another directory"
            )
        return place

    def offline(self) -> Start:
        """The same, with the paths of its dataset made absolute."""
        return replace(self, experiment=place_dataset(self.experiment))


def read_start(
    config: Any,
    overrides: Sequence[str] = (),
    *,
    output: str | Path | None = None,
    seed: int | None = None,
    resume: str | Path | None = None,
    registry: Registry | None = None,
    base_dir: str | Path | None = None,
) -> Start:
    """Read what a run is to do; without a `config`, `resume` goes on as its artifact says. It keeps its own seed."""
    registry = registry or default_registry
    place = None if output is None else Path(output)
    if resume is None:
        seeded = [*overrides, *([] if seed is None else [f"seed={seed}"])]
        return Start(read_experiment(config, seeded, registry, base_dir), registry, place)
    stored = load(resume, registry=registry)
    experiment = read_experiment(stored.config if config is None else config, overrides, registry, base_dir)
    return Start(experiment, registry, place, stored, Path(resume))
