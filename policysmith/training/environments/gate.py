"""The gate: what is wrong with an environment is said before anything is trained, judged or recorded in it.

In: an experiment. Out: nothing, notes, or an error: a sentence each with the environment's class, its file and line,
what came, and what the space says. The run's own environments and all generators are left as they are.
"""

from __future__ import annotations

import warnings

import torch

from policysmith.config.experiment import Experiment
from policysmith.errors import ConfigError, EnvironmentFailure
from policysmith.training.environments.make import make_environment
from policysmith.training.environments.probe import SEED, Judged, Probe
from policysmith.training.environments.two_player import is_game
from policysmith.training.process.generators import own_generators
from policysmith.training.sections import Environment

__all__ = ["check_sound", "judge_environment", "require_sound", "warn_of_unsound"]


def require_sound(experiment: Experiment) -> list[str]:
    """Raise where nothing can be trained in the experiment's environment; else what should be known of it.

    `ConfigError` has the place of `environment.id`; `EnvironmentFailure` is of what the environment itself raised.
    """
    section = experiment.find(Environment)
    if section is None or not section.check:
        return []
    judged = judge_environment(section)
    if judged.faults:
        document = experiment.document
        raise ConfigError([document.problem(("environment", "id"), fault) for fault in judged.faults])
    return judged.notes


def warn_of_unsound(experiment: Experiment) -> None:
    """`require_sound` for who has no other way to tell: what should be known is warned of."""
    for note in require_sound(experiment):
        warnings.warn(note, stacklevel=3)


def check_sound(experiment: Experiment) -> None:
    """Judge the environment, whatever the file says of that; raises `ConfigError`, also of what training leaves out."""
    document, place = experiment.document, ("environment", "id")
    section = experiment.find(Environment)
    if section is None:
        raise ConfigError([document.problem(("environment",), "required to check it: {id: CartPole-v1}")])
    try:
        judged = judge_environment(section)
    except EnvironmentFailure as error:
        raise ConfigError([document.problem(place, str(error))]) from error
    for warning in judged.warnings:
        warnings.warn(warning, stacklevel=3)
    if judged.faults or judged.left_out:
        raise ConfigError([document.problem(place, told) for told in (*judged.faults, *judged.left_out)])


def judge_environment(section: Environment) -> Judged:
    """Make one environment and take a few steps in it. Games and envpool's own environments are not judged.

    Raises `ConfigError` where it can't be made, and `EnvironmentFailure` for what it raises.
    """
    if is_game(section) or section.vectorization == "envpool":
        return Judged()
    with own_generators(SEED, torch.device("cpu")):
        environment = make_environment(section)
        try:
            return Probe(environment).run()
        finally:
            environment.close()
