"""The public verbs: each a few lines over the rooms below.

A configuration is a path, a preset's name, a mapping, or an OmegaConf DictConfig.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import policysmith.parts
import policysmith.skills.types
import policysmith.training.logging.json_lines
import policysmith.training.offline.offline
import policysmith.training.ppo.ppo  # noqa: F401 - importing registers the types
from policysmith.compile.model import build_model
from policysmith.config.experiment import Experiment, decode_experiment, in_text_order
from policysmith.config.load import Document
from policysmith.config.load import load as load_document
from policysmith.config.opening import open_document
from policysmith.config.recipes import preset_names, profile_names
from policysmith.config.schema import option_text, type_options
from policysmith.errors import CheckpointError, ConfigError, PolicysmithError, Problem
from policysmith.graph.spec import loose_keys
from policysmith.graph.wiring import wire
from policysmith.policy.actions import ActionDistribution
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.factory import Blueprint, make_blueprint
from policysmith.policy.observations import Observations
from policysmith.registry import SLOTS, Registry, default_registry
from policysmith.store import is_of_store, load, save
from policysmith.store.component_weights import load_components, missing_files
from policysmith.training.datasets import Episodes
from policysmith.training.environments.make import single_spaces
from policysmith.training.environments.two_player import is_game
from policysmith.training.games.match import RANDOM, MatchResult, play_match, record_match
from policysmith.training.offline.dataset_section import dataset_spaces, known_spaces, place_dataset, require_offline
from policysmith.training.rollout.dataset_recording import record_dataset
from policysmith.training.rollout.evaluation import EvaluationResult, evaluate_policy, record_video
from policysmith.training.run.offline_run import run_offline
from policysmith.training.run.online_run import run_training
from policysmith.training.run.results import OfflineResult, TrainingResult
from policysmith.training.run.run_folder import is_taken
from policysmith.training.run.stored_swap import swap_stored
from policysmith.transform.diagram import svg
from policysmith.transform.summarize import summarize

Place = str | Path | None
__all__ = [
    "TypeInfo",
    "build",
    "build_model",
    "check",
    "describe",
    "evaluate",
    "list_types",
    "load",
    "presets",
    "profiles",
    "record",
    "save",
    "swap",
    "train",
    "train_offline",
]


def build(
    config: Any,
    observation_space: Any = None,
    action_space: Any = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    registry: Registry | None = None,
    base_dir: Place = None,
) -> ActorCritic:
    """Build the policy that `config` describes; spaces default to those of its `environment`, else to its `spaces`.

    Raises `ConfigError` with every problem found, before a weight is allocated. `seed` overrides the configuration's.
    Paths in the model start at the directory of the file that has them, or at `base_dir`.
    """
    registry = registry or default_registry
    experiment = _experiment(config, overrides, registry, base_dir)
    return _build(experiment, observation_space, action_space, seed, registry)


def check(
    config: Any,
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
    observation_space: Any = None,
    action_space: Any = None,
    base_dir: Place = None,
) -> list[Problem]:
    """Every problem of a configuration, in the order of the text; an empty list when it can be built."""
    registry = registry or default_registry
    try:
        experiment = _experiment(config, overrides, registry, base_dir)
        blueprint = _plan(experiment, observation_space, action_space, registry)
    except ConfigError as error:
        return list(error.problems)
    except PolicysmithError as error:
        return [Problem("", str(error))]
    return in_text_order(experiment.document, missing_files(experiment.document, blueprint.plan))


def describe(
    config: Any, overrides: Sequence[str] = (), registry: Registry | None = None, batch: int = 1, base_dir: Place = None
) -> dict[str, Any]:
    """The plan as plain data: inputs, components with shapes, parameters, FLOPs and bytes, and totals.

    Takes a configuration, a policy, or what `load` takes; a configuration is planned, never built. Figures are
    for one row; `batch` says for how many rows those under `totals.batch` are.
    """
    registry = registry or default_registry
    if isinstance(config, ActorCritic):
        return summarize(config.plan, str(config.config.get("model", {}).get("type", "graph")), batch)
    if _is_artifact(config) or is_of_store(config):
        return describe(load(config, registry=registry), batch=batch)
    experiment = _experiment(config, overrides, registry, base_dir)
    return summarize(_plan(experiment, None, None, registry).plan, experiment.model.type, batch)


def train(
    config: Any = None,
    overrides: Sequence[str] = (),
    *,
    output: str | Path | None = None,
    seed: int | None = None,
    resume: str | Path | None = None,
    progress: bool = True,
    evaluate: bool = True,
    registry: Registry | None = None,
    base_dir: Place = None,
) -> TrainingResult:
    """Train what `config` describes and, given `output`, store it there with its learning curve and diagram.

    `resume` continues an artifact (of the same model; its own configuration where `config` is None), by default in
    place. Ctrl-C stops after the iteration and saves.
    """
    registry = registry or default_registry
    if resume is not None:
        policy = load(resume, registry=registry)
        experiment = _experiment(config if config is not None else policy.config, overrides, registry, base_dir)
        _take_up(policy, experiment)
        if experiment.environment is not None:
            _check_spaces(policy, experiment)
        output = output or resume
    else:
        experiment = _experiment(config, [*overrides, *([] if seed is None else [f"seed={seed}"])], registry, base_dir)
        policy = _build(experiment, None, None, None, registry)
    policy.config = experiment.resolved()
    place = _free_place(output, resume)
    result = run_training(
        experiment, policy, place, resume=Path(resume) if resume else None, progress=progress, evaluate=evaluate
    )
    if result.artifact is not None:
        result.files["diagram"] = _draw(policy, result.artifact)
    return result


def train_offline(
    config: Any = None,
    overrides: Sequence[str] = (),
    *,
    dataset: Episodes | None = None,
    output: str | Path | None = None,
    seed: int | None = None,
    resume: str | Path | None = None,
    progress: bool = True,
    evaluate: bool = True,
    registry: Registry | None = None,
    base_dir: Place = None,
) -> OfflineResult:
    """Train what `config` describes on recorded episodes, those of its `training.dataset` or `dataset` in memory.

    Spaces come from the environment or the section `spaces`, else from the dataset. The rest is as in `train`; where
    there is an environment, the policy is evaluated in it at the end.
    """
    registry = registry or default_registry
    policy = None if resume is None else load(resume, registry=registry)
    chosen = [] if seed is None or resume is not None else [f"seed={seed}"]
    given = policy.config if config is None and policy is not None else config
    experiment = place_dataset(_experiment(given, [*overrides, *chosen], registry, base_dir))
    episodes = require_offline(experiment, dataset)
    if policy is not None:
        _take_up(policy, experiment)
        output = output or resume
    else:
        policy = _build(experiment, *known_spaces(experiment, episodes), None, registry)
    policy.config = experiment.resolved()
    place = _free_place(output, resume)
    source = Path(resume) if resume else None
    result = run_offline(
        experiment, policy, episodes, place, resume=source, progress=progress, evaluate=evaluate, registry=registry
    )
    if result.artifact is not None:
        result.files["diagram"] = _draw(policy, result.artifact)
    return result


def record(
    policy: ActorCritic | str | Path,
    output: str | Path,
    episodes: int,
    *,
    random_share: float = 0.0,
    deterministic: bool | None = None,
    seed: int | None = None,
) -> Path:
    """Play whole episodes in the policy's own environment and store them as a dataset for offline training.

    `random_share` of the actions are drawn at random from the legal ones. What is not given comes from the section
    `evaluation`. Returns the directory.
    """
    actor = policy if isinstance(policy, ActorCritic) else load(policy)
    experiment = _experiment(actor.config, (), default_registry)
    if experiment.environment is None:
        raise ConfigError("the policy's configuration has no environment to record episodes in")
    options = experiment.evaluation
    greedy = options.deterministic if deterministic is None else deterministic
    chosen = options.seed if seed is None else seed
    return record_dataset(actor, experiment.environment, output, episodes, random_share, greedy, chosen)


def evaluate(
    policy: ActorCritic | str | Path,
    *,
    episodes: int | None = None,
    deterministic: bool | None = None,
    seed: int | None = None,
    video: str | Path | None = None,
    opponent: ActorCritic | str | Path | None = None,
    environment: Mapping[str, Any] | str | None = None,
) -> EvaluationResult | MatchResult:
    """Play whole episodes in the policy's own environment; what is not given comes from its configuration.

    `environment` is another one with the same spaces, by its id or as a section: what was imported has none of its own.
    In a game for two, `opponent` is another policy, an artifact's directory, or `random` (the default). Two policies
    draw their moves unless told to be `deterministic`: they would repeat the same two games.
    """
    actor = policy if isinstance(policy, ActorCritic) else load(policy)
    section = {"id": environment} if isinstance(environment, str) else environment
    config = actor.config if section is None else {**actor.config, "environment": dict(section)}
    experiment = _experiment(config, (), default_registry)
    if experiment.environment is None:
        raise ConfigError("the policy's configuration has no environment to evaluate it in: name one")
    if section is not None:
        _check_spaces(actor, experiment)
    options = experiment.evaluation
    greedy = options.deterministic if deterministic is None else deterministic
    chosen = options.seed if seed is None else seed
    if is_game(experiment.environment):
        return _match(actor, experiment, opponent, episodes or options.episodes, deterministic, chosen, video)
    if opponent is not None:
        raise ConfigError(f"{experiment.environment.id} is no game for two: it takes no opponent")
    if video is not None:
        record_video(actor, experiment.environment, video, greedy, chosen)
    return evaluate_policy(actor, experiment.environment, episodes or options.episodes, greedy, chosen)


def _check_spaces(policy: ActorCritic, experiment: Experiment) -> None:
    """Raise `ConfigError` unless the environment's observations and actions are the policy's; bounds may differ."""
    observation, action = _own_spaces(experiment)
    found, wanted = Observations(observation, **asdict(experiment.observation)).inputs, policy.plan.inputs
    if dict(found) != dict(wanted):
        told = [", ".join(f"{name} {spec.shape}" for name, spec in side.items()) for side in (found, wanted)]
        raise ConfigError(
            f"environment: gives {told[0] or 'nothing that the policy reads'}; the policy reads {told[1]}"
        )
    if ActionDistribution(action).layout != ActionDistribution(policy.actions.space).layout:
        raise ConfigError(f"environment: takes actions of {action}; the policy gives those of {policy.actions.space}")


def _match(
    policy: ActorCritic,
    experiment: Experiment,
    opponent: ActorCritic | str | Path | None,
    games: int,
    deterministic: bool | None,
    seed: int,
    video: str | Path | None,
) -> MatchResult:
    assert experiment.environment is not None
    name = None if opponent is None or isinstance(opponent, ActorCritic) else str(opponent)
    rival = opponent if isinstance(opponent, ActorCritic) else None if name in (None, RANDOM) else load(name)
    usual = experiment.evaluation.deterministic if rival is None else False
    greedy = usual if deterministic is None else deterministic
    if video is not None:
        record_match(policy, experiment.environment, video, rival, greedy, seed)
    return play_match(policy, experiment.environment, rival, games, greedy, seed, name)


def swap(
    artifact: str | Path,
    replacements: Mapping[str, Any] | Sequence[str],
    *,
    output: str | Path | None = None,
    keep_weights: bool = False,
    resize: bool = False,
    seed: int | None = None,
    registry: Registry | None = None,
) -> ActorCritic:
    """Replace components of a stored policy: name → type, `{type: …}` mapping or `other/artifact:component`.

    Replacements may be texts `name=new`. See `ActorCritic.replace_component` for the options; `output` leaves the
    artifact as it is and stores the result elsewhere.
    """
    _load_plugins()
    if not isinstance(replacements, Mapping):
        replacements = load_document({}, replacements).data
    if output is not None and _is_artifact(output):
        raise CheckpointError(f"{output} holds a policy already: choose another directory")
    return swap_stored(
        artifact, replacements, output=output, keep_weights=keep_weights, resize=resize, seed=seed, registry=registry
    )


@dataclass(frozen=True)
class TypeInfo:
    """One registered type: where it belongs, its name, its docstring's first line, and its options with their types."""

    slot: str
    name: str
    summary: str
    options: dict[str, str]


def list_types(pattern: str = "*", slot: str | None = None, registry: Registry | None = None) -> list[TypeInfo]:
    """Registered types whose name matches a shell pattern (`nn.*`), by slot and name."""
    _load_plugins()
    registry = registry or default_registry
    found = []
    for name_of_slot in SLOTS if slot is None else (slot,):
        for name in registry.names(name_of_slot, pattern):
            if not registry.is_offered(name_of_slot, name):
                continue
            entry = registry.entry(name_of_slot, name)
            options = {option: option_text(schema) for option, schema in type_options(entry).items()}
            found.append(TypeInfo(name_of_slot, name, entry.summary, options))
    return found


def presets() -> list[str]:
    """Names of the experiments that ship with the package."""
    return preset_names()


def profiles() -> list[str]:
    """Names of the sections that ship with the package, to be laid over a configuration with `+name`."""
    return profile_names()


def _experiment(config: Any, overrides: Sequence[str], registry: Registry, base_dir: Place = None) -> Experiment:
    _load_plugins()
    document = open_document(config, overrides)
    try:
        return decode_experiment(document, registry, base_dir)
    except ConfigError as error:
        raise ConfigError(in_text_order(document, [*error.problems, *_wiring_problems(document)])) from None


def _wiring_problems(document: Document) -> list[Problem]:
    """What is wrong with the keys of a graph whose options could not be decoded, so that all is told at once."""
    model = document.data.get("model")
    components = model.get("components") if isinstance(model, dict) else None
    if not isinstance(components, dict):
        return []
    try:
        rest = {key: value for key, value in document.data.items() if key in ("environment", "spaces", "observation")}
        experiment = decode_experiment(load_document({**rest, "model": "mlp"}), default_registry)
        blueprint = _plan(experiment, None, None, default_registry)
    except PolicysmithError:
        return []  # without the observation's names nothing can be said
    problems: list[Problem] = []
    wire(
        loose_keys(components),
        list(blueprint.observations.inputs),
        lambda path, message: problems.append(document.problem(("model", "components", *path), message)),
    )
    return problems


def _plan(experiment: Experiment, observation_space: Any, action_space: Any, registry: Registry) -> Blueprint:
    """The blueprint; every problem goes into one `ConfigError` with its place in the text."""
    document = experiment.document
    problems: list[Problem] = []

    def report(path: Sequence[str | int], message: str) -> None:
        problems.append(document.problem(tuple(path), message))

    if observation_space is None or action_space is None:
        own = _own_spaces(experiment)
        observation_space, action_space = observation_space or own[0], action_space or own[1]
    blueprint = make_blueprint(
        experiment.model, observation_space, action_space, report, registry, asdict(experiment.observation)
    )
    if blueprint is not None:
        problems += _training_problems(experiment, blueprint)
    if blueprint is None or problems:
        raise ConfigError(problems)
    return blueprint


def _training_problems(experiment: Experiment, blueprint: Blueprint) -> list[Problem]:
    """What the section `training` asks for that does not hold together, or that the model does not have."""
    if experiment.training is None:
        return []
    try:
        trainer = experiment.training.build()
        if hasattr(trainer, "check"):  # one of a user's own need not have it
            trainer.check(blueprint.plan)
    except ConfigError as error:
        return [experiment.document.problem(_path(problem.path), problem.message) for problem in error.problems]
    return []


def _own_spaces(experiment: Experiment) -> tuple[Any, Any]:
    """Observation and action space of the environment, else those of the section `spaces`, else the dataset's."""
    document = experiment.document
    if experiment.environment is not None:
        try:
            return single_spaces(experiment.environment)
        except ConfigError as error:
            raise ConfigError([document.problem(_path(p.path), p.message) for p in error.problems]) from error
    if experiment.spaces is None:
        if (recorded := dataset_spaces(experiment)) is not None:
            return recorded
        raise ConfigError([document.problem(("environment",), "required, unless spaces are given: {id: CartPole-v1}")])
    found, problems = [], []
    for name in ("observation", "action"):
        try:
            found.append(getattr(experiment.spaces, name).build())
        except ConfigError as error:
            problems.append(document.problem(("spaces", name), str(error)))
    if problems:
        raise ConfigError(problems)
    return found[0], found[1]


def _build(
    experiment: Experiment, observation_space: Any, action_space: Any, seed: int | None, registry: Registry
) -> ActorCritic:
    blueprint = _plan(experiment, observation_space, action_space, registry)
    policy = blueprint.build(experiment.seed if seed is None else seed, experiment.resolved())
    load_components(policy)
    return policy


def _take_up(policy: ActorCritic, experiment: Experiment) -> None:
    """Make a stored policy go on as the experiment says; raises where that describes another."""
    _same_model(policy, experiment)
    policy.configure_execution(**asdict(experiment.execution))


def _free_place(output: str | Path | None, resume: str | Path | None) -> Path | None:
    """Where a run is stored: never in place of another policy than the one it goes on with."""
    place = Path(output) if output is not None else None
    if place is not None and is_taken(place) and (resume is None or place.resolve() != Path(resume).resolve()):
        raise CheckpointError(f"{place} holds a policy already: continue it with resume, or choose another directory")
    return place


def _draw(policy: ActorCritic, place: Path) -> Path:
    diagram = place / "model.svg"
    diagram.write_text(svg(describe(policy)), encoding="utf-8")
    return diagram


def _same_model(policy: ActorCritic, experiment: Experiment) -> None:
    if policy.config.get("model") != experiment.resolved()["model"]:
        raise ConfigError(
            "the configuration describes another model than the artifact to resume; leave the model as it is"
        )


@cache
def _load_plugins() -> None:
    """Types of installed packages, once a process."""
    default_registry.load_plugins()


def _is_artifact(config: Any) -> bool:
    return isinstance(config, str | Path) and (Path(config) / "manifest.json").is_file()


def _path(text: str) -> tuple[str | int, ...]:
    return tuple(int(key) if key.isdigit() else key for key in text.split("."))
