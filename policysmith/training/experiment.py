"""From a configuration to a policy: read, planned for its spaces, built; every problem with its place in the text.

In: whatever stands for a configuration, and overrides. Out: a checked experiment, its blueprint, a live policy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import gymnasium

from policysmith.config.experiment import Experiment, decode_experiment, in_text_order
from policysmith.config.limits import Limits
from policysmith.config.load import Document
from policysmith.config.load import load as load_document
from policysmith.config.open_document import open_document
from policysmith.errors import ConfigError, PolicysmithError, Problem
from policysmith.graph.spec import loose_keys
from policysmith.graph.wiring import wire
from policysmith.policy.actions import ActionDistribution
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.factory import Blueprint, make_blueprint
from policysmith.policy.observations import Observations
from policysmith.policy.readings import Known
from policysmith.policy.sections import Execution, ObservationOptions, Spaces
from policysmith.registry import Registry, default_registry, load_plugins
from policysmith.store.component_weights import load_components, missing_files
from policysmith.training.environments.gate import check_sound
from policysmith.training.environments.make import described_spaces
from policysmith.training.offline.dataset_section import dataset_spaces
from policysmith.training.rollout.rollout_size import check_room
from policysmith.training.sections import Environment

__all__ = [
    "build_experiment",
    "check_environment",
    "plan_experiment",
    "problems_of",
    "read_experiment",
    "take_up",
]

Directory = str | os.PathLike[str]


def read_experiment(
    config: Any,
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
    base_dir: Directory | None = None,
) -> Experiment:
    """The checked experiment that a path, a preset's name, a mapping or a DictConfig stands for.

    Raises `ConfigError` with every problem of its options, and of the wiring of a graph.
    """
    load_plugins()
    document = open_document(config, overrides)
    try:
        experiment = decode_experiment(document, registry or default_registry, base_dir)
    except ConfigError as error:
        raise ConfigError(in_text_order(document, [*error.problems, *_wiring_problems(document)])) from None
    environment, limits = experiment.find(Environment), experiment.find(Limits) or Limits()
    if environment is not None and (problem := limits.environments_problem(environment.num_envs)):
        raise ConfigError([document.problem(("environment", "num_envs"), problem)])
    return experiment


def plan_experiment(
    experiment: Experiment,
    observation_space: gymnasium.Space[Any] | None = None,
    action_space: gymnasium.Space[Any] | None = None,
    registry: Registry | None = None,
) -> Blueprint:
    """The policy as planned for two spaces, by default its own; raises `ConfigError` with every problem."""
    document = experiment.document
    problems: list[Problem] = []

    def report(path: Sequence[str | int], message: str) -> None:
        problems.append(document.problem(tuple(path), message))

    known: Mapping[str, Known] = {}
    if observation_space is None or action_space is None:
        own = _own_spaces(experiment)
        known = own[2] if observation_space is None else {}
        observation_space, action_space = observation_space or own[0], action_space or own[1]
    blueprint = make_blueprint(
        experiment["model"],
        observation_space,
        action_space,
        report,
        registry or default_registry,
        {**asdict(experiment.of(ObservationOptions)), "known": known},
        experiment.find(Limits),
    )
    if blueprint is not None:
        problems += _training_problems(experiment, blueprint)
    if blueprint is None or problems:
        raise ConfigError(problems)
    return blueprint


def build_experiment(
    experiment: Experiment,
    observation_space: gymnasium.Space[Any] | None = None,
    action_space: gymnasium.Space[Any] | None = None,
    seed: int | None = None,
    registry: Registry | None = None,
) -> ActorCritic:
    """The policy with its first weights; `seed` is taken in place of the experiment's."""
    blueprint = plan_experiment(experiment, observation_space, action_space, registry)
    policy = blueprint.build(experiment.seed if seed is None else seed, experiment.resolved())
    load_components(policy)
    return policy


def problems_of(
    config: Any,
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
    observation_space: gymnasium.Space[Any] | None = None,
    action_space: gymnasium.Space[Any] | None = None,
    base_dir: Directory | None = None,
    environment: bool = False,
) -> list[Problem]:
    """Every problem of a configuration, in the order of the text; none when it can be built.

    With `environment` one is made and judged, too.
    """
    try:
        experiment = read_experiment(config, overrides, registry, base_dir)
        blueprint = plan_experiment(experiment, observation_space, action_space, registry)
        if environment:
            check_sound(experiment)
    except ConfigError as error:
        return list(error.problems)
    except PolicysmithError as error:
        return [Problem("", str(error))]
    return in_text_order(experiment.document, missing_files(experiment.document, blueprint.plan))


def take_up(policy: ActorCritic, experiment: Experiment) -> None:
    """Make a stored policy go on as the experiment says; raises `ConfigError` where that describes another model, or
    other readings of the observation: both are the stored policy's, whose weights would not fit what is then stored.
    """
    if policy.config.get("model") != experiment.resolved()["model"]:
        raise ConfigError(
            "the configuration describes another model than the artifact to resume; leave the model as it is"
        )
    read = {**asdict(ObservationOptions()), **policy.config.get("observation", {})}
    if asdict(experiment.of(ObservationOptions)) != read:
        message = "the artifact to resume reads its observations otherwise; leave the section as it is"
        raise ConfigError([experiment.document.problem(("observation",), message)])
    policy.configure_execution(**asdict(experiment.of(Execution)))


def check_environment(policy: ActorCritic, experiment: Experiment) -> None:
    """Raise `ConfigError` unless the environment's observations and actions are the policy's; bounds may differ."""
    observation, action, _ = _own_spaces(experiment)
    found, wanted = Observations(observation, **asdict(experiment.of(ObservationOptions))).inputs, policy.plan.inputs
    if dict(found) != dict(wanted):
        told = [", ".join(f"{name} {spec.shape}" for name, spec in side.items()) for side in (found, wanted)]
        raise ConfigError(
            f"environment: gives {told[0] or 'nothing that the policy reads'}; the policy reads {told[1]}"
        )
    if ActionDistribution(action).layout != ActionDistribution(policy.actions.space).layout:
        raise ConfigError(f"environment: takes actions of {action}; the policy gives those of {policy.actions.space}")


def _wiring_problems(document: Document) -> list[Problem]:
    """What is wrong with the keys of a graph whose options could not be decoded, so that all is told at once."""
    model = document.data.get("model")
    components = model.get("components") if isinstance(model, dict) else None
    if not isinstance(components, dict):
        return []
    try:
        rest = {key: value for key, value in document.data.items() if key in ("environment", "spaces", "observation")}
        experiment = decode_experiment(load_document({**rest, "model": "mlp"}), default_registry)
        inputs = Observations(_own_spaces(experiment)[0], **asdict(experiment.of(ObservationOptions))).inputs
    except PolicysmithError:
        return []  # without the observation's names nothing can be said
    problems: list[Problem] = []
    wire(
        loose_keys(components),
        list(inputs),
        lambda path, message: problems.append(document.problem(("model", "components", *path), message)),
    )
    return problems


def _training_problems(experiment: Experiment, blueprint: Blueprint) -> list[Problem]:
    """What the section `training` asks for that does not hold together, or that the model does not have."""
    if experiment["training"] is None:
        return []
    try:
        trainer = experiment.built("training")
        if hasattr(trainer, "check"):  # one of a user's own need not have it
            trainer.check(blueprint.plan)
        if (environment := experiment.find(Environment)) is not None:
            check_room(trainer, environment, blueprint.plan, experiment.find(Limits) or Limits())
    except ConfigError as error:
        return _placed(experiment, error)
    return []


def _own_spaces(
    experiment: Experiment,
) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any], Mapping[str, Known]]:
    """Observation and action space of the environment, else those of the section `spaces`, else the dataset's.

    With them what the environment tells of the observation's leaves.
    """
    document = experiment.document
    environment, spaces = experiment.find(Environment), experiment.find(Spaces)
    if environment is not None:
        try:
            return described_spaces(environment)
        except ConfigError as error:
            raise ConfigError(_placed(experiment, error)) from error
    if spaces is None:
        if (recorded := dataset_spaces(experiment)) is not None:
            return *recorded, {}
        raise ConfigError([document.problem(("environment",), "required, unless spaces are given: {id: CartPole-v1}")])
    found, problems = [], []
    for name in ("observation", "action"):
        try:
            found.append(getattr(spaces, name).build())
        except ConfigError as error:
            problems.append(document.problem(("spaces", name), str(error)))
    if problems:
        raise ConfigError(problems)
    return found[0], found[1], {}


def _placed(experiment: Experiment, error: ConfigError) -> list[Problem]:
    """Problems that know their path alone, with their places in the text."""
    return [experiment.document.problem(_path(problem.path), problem.message) for problem in error.problems]


def _path(text: str) -> tuple[str | int, ...]:
    return tuple(int(key) if key.isdigit() else key for key in text.split("."))
