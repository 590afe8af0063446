"""The public verbs: each a few lines over the rooms below, which it imports when it is called.

A configuration is a path, a preset's name, a mapping, or an OmegaConf DictConfig. The options of a verb on the command
line follow from its signature and from what is said of its arguments here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, TypeVar, Unpack

from policysmith.config.signatures import options_of
from policysmith.config.spelling import Named
from policysmith.lazy_names import lazy_names
from policysmith.types import Count, NonNegativeInt, Share

if TYPE_CHECKING:
    from policysmith.compile.model import build_model
    from policysmith.config.json_schema import TypeInfo
    from policysmith.errors import Problem
    from policysmith.policy.actor_critic import ActorCritic
    from policysmith.policy.factory import Blueprint
    from policysmith.registry import Registry
    from policysmith.store import load, save
    from policysmith.training.datasets import Episodes
    from policysmith.training.games.match import MatchResult
    from policysmith.training.rollout.evaluation import EvaluationResult
    from policysmith.training.run.results import OfflineResult, TrainingResult

    class _Run(TypedDict, total=False):
        """The options of `train`, which `train_offline` takes over, for type checkers."""

        output: Place | None
        seed: NonNegativeInt | None
        resume: Place | None
        registry: Registry | None
        base_dir: Place | None


Place = Annotated[str | Path, Named(metavar="DIR")]
Film = Annotated[str | Path, Named(metavar="FILE")]
Greedy = Annotated[bool | None, Named(("--deterministic/--sampled",))]
Result = TypeVar("Result", "TrainingResult", "OfflineResult")
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

_HOMES = {
    "TypeInfo": "policysmith.config.json_schema",
    "build_model": "policysmith.compile.model",
    "load": "policysmith.store",
    "save": "policysmith.store",
}
__getattr__ = lazy_names(__name__, _HOMES)


def build(
    config: Any,
    observation_space: Any = None,
    action_space: Any = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    registry: Registry | None = None,
    base_dir: Place | None = None,
) -> ActorCritic:
    """Build the policy that `config` describes; spaces default to those of its `environment`, else to its `spaces`.

    Raises `ConfigError` with every problem found, before a weight is allocated. `seed` overrides the configuration's.
    Paths in the model start at the directory of the file that has them, or at `base_dir`.
    """
    from policysmith.training.experiment import build_experiment, read_experiment

    experiment = read_experiment(config, overrides, registry, base_dir)
    return build_experiment(experiment, observation_space, action_space, seed, registry)


def check(
    config: Any,
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
    observation_space: Any = None,
    action_space: Any = None,
    base_dir: Place | None = None,
    environment: Annotated[bool, Named(("--env",))] = False,
) -> list[Problem]:
    """Every problem of a configuration, in the order of the text; an empty list when it can be built.

    With `environment`, what would not stop a run is warned of.

    Args:
        config: an experiment file, or a preset.
        overrides: changes of it.
        registry: where its types are looked up.
        observation_space: in place of its own.
        action_space: in place of its own.
        environment: take a few steps in the environment, and judge it too.
        base_dir: where paths in the model start; by default, beside the file that has them.
    """
    from policysmith.training.experiment import problems_of

    return problems_of(config, overrides, registry, observation_space, action_space, base_dir, environment)


def describe(
    config: Any,
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
    batch: Count = 1,
    base_dir: Place | None = None,
) -> dict[str, Any]:
    """The plan as plain data: inputs, components with shapes, parameters, FLOPs and bytes, and totals.

    Under `observation` a sentence for each leaf says how it is read. Takes a configuration, a policy, or what `load`
    takes; a configuration is planned, never built. Figures are for one row, under `totals.batch` for `batch` rows.

    Args:
        batch: say also what a batch of N observations takes.
        base_dir: where paths in the model start; by default, beside the file that has them.
    """
    from policysmith.policy.actor_critic import ActorCritic
    from policysmith.store import is_stored, load
    from policysmith.training.experiment import plan_experiment, read_experiment
    from policysmith.transform.summarize import summarize

    if is_stored(config):
        config = load(config, registry=registry)
    if isinstance(config, ActorCritic):
        planned: ActorCritic | Blueprint = config
        name = str(config.config.get("model", {}).get("type", "graph"))
    else:
        experiment = read_experiment(config, overrides, registry, base_dir)
        planned, name = plan_experiment(experiment, registry=registry), experiment["model"].type
    return {**summarize(planned.plan, name, batch), "observation": planned.observations.told()}


def train(
    config: Any = None,
    overrides: Sequence[str] = (),
    *,
    output: Place | None = None,
    seed: NonNegativeInt | None = None,
    resume: Place | None = None,
    progress: bool = True,
    evaluate: bool = True,
    registry: Registry | None = None,
    base_dir: Place | None = None,
) -> TrainingResult:
    """Train what `config` describes and, given `output`, store it there with its learning curve and diagram.

    `resume` continues an artifact of the same model, by its own configuration where `config` is None. Ctrl-C stops
    after the iteration and saves.

    Args:
        output: where the policy is stored.
        seed: in place of the configuration's seed.
        resume: train a stored policy further, in place unless output is given.
        progress: show a bar.
        evaluate: judge the policy at the end.
        registry: where types are looked up.
        base_dir: where paths in the model start; by default, beside the file that has them.
    """
    from policysmith.training.run.online_run import run_training
    from policysmith.training.run.start import read_start

    start = read_start(config, overrides, output=output, seed=seed, resume=resume, registry=registry, base_dir=base_dir)
    policy = start.policy()
    start.check_environment()
    result = run_training(
        start.experiment, policy, start.place(), resume=start.resume, progress=progress, evaluate=evaluate
    )
    return _with_diagram(result)


@options_of(train)
def train_offline(
    config: Any = None,
    overrides: Sequence[str] = (),
    *,
    dataset: Episodes | None = None,
    progress: bool = True,
    evaluate: bool = True,
    **options: Unpack[_Run],
) -> OfflineResult:
    """Train what `config` describes on recorded episodes, those of its `training.dataset` or `dataset` in memory.

    Spaces come from the environment or the section `spaces`, else from the dataset. The rest is as in `train`; where
    there is an environment, the policy is evaluated in it at the end.
    """
    from policysmith.training.offline.dataset_section import known_spaces, require_offline
    from policysmith.training.run.offline_run import run_offline
    from policysmith.training.run.start import read_start

    start = read_start(config, overrides, **options).offline()
    episodes = require_offline(start.experiment, dataset)
    policy = start.policy(*known_spaces(start.experiment, episodes))
    place, types = start.place(), start.registry
    result = run_offline(
        start.experiment, policy, episodes, place,
        resume=start.resume, progress=progress, evaluate=evaluate, registry=types,
    )  # fmt: skip
    return _with_diagram(result)


def record(
    policy: ActorCritic | Place,
    output: Place,
    episodes: Count = 100,
    *,
    random_share: Share = 0.0,
    deterministic: Greedy = None,
    seed: NonNegativeInt | None = None,
) -> Path:
    """Play whole episodes in the policy's own environment and store them as a dataset for offline training.

    What is not given comes from the section `evaluation`. Returns the directory.

    Args:
        output: where the dataset is stored: a new directory.
        episodes: how many whole episodes.
        random_share: of the actions, drawn at random from the legal ones.
        deterministic: take the likeliest action, or draw one; by default what the configuration says.
        seed: in place of the configuration's seed.
    """
    from policysmith.training.experiment import read_experiment
    from policysmith.training.rollout.dataset_recording import record_as_told

    actor = _loaded(policy)
    told = read_experiment(actor.config)
    return record_as_told(actor, told, output, episodes, random_share, deterministic, seed)


def evaluate(
    policy: ActorCritic | Place,
    *,
    episodes: Annotated[Count, Named(("--episodes", "--games"))] | None = None,
    deterministic: Greedy = None,
    seed: NonNegativeInt | None = None,
    video: Film | None = None,
    opponent: Annotated[ActorCritic | str | Path, Named(metavar="WHO", kind=str)] | None = None,
    environment: Annotated[Mapping[str, Any] | str, Named(metavar="ID")] | None = None,
) -> EvaluationResult | MatchResult:
    """Play whole episodes in the policy's own environment; what is not given comes from its configuration.

    `environment` is another one with the same spaces, by its id or as a section. Two policies draw their moves unless
    told to be `deterministic`: they would repeat the same two games.

    Args:
        episodes: how many; by default what the configuration says.
        deterministic: take the likeliest action, or draw one; by default what the configuration says.
        seed: in place of the configuration's seed.
        video: film one episode (.mp4 or .gif).
        opponent: in a game for two: 'random' (the default), or another stored policy.
        environment: in place of the configuration's; imported policies have none.
    """
    from policysmith.training.experiment import check_environment, read_experiment
    from policysmith.training.games.match import judge_as_told

    actor = _loaded(policy)
    section = {"id": environment} if isinstance(environment, str) else environment
    experiment = read_experiment(actor.config if section is None else {**actor.config, "environment": dict(section)})
    if section is not None:
        check_environment(actor, experiment)
    return judge_as_told(
        actor, experiment,
        episodes=episodes, deterministic=deterministic, seed=seed, video=video, opponent=opponent,
    )  # fmt: skip


def swap(
    artifact: Place,
    replacements: Mapping[str, Any] | Sequence[str],
    *,
    output: Place | None = None,
    keep_weights: bool = False,
    resize: bool = False,
    seed: NonNegativeInt | None = None,
    registry: Registry | None = None,
) -> ActorCritic:
    """Replace components of a stored policy: name → type, `{type: …}` mapping or `other/artifact:component`.

    Replacements may be texts `name=new`. See `ActorCritic.replace_component` for the options.

    Args:
        output: store the result there; by default in place.
        keep_weights: start from the overlapping weights of the component before.
        resize: rebuild, in the same way, what reads an output that changes its shape.
        seed: of the new weights.
    """
    from policysmith.config.load import load as load_document
    from policysmith.training.run.stored_swap import swap_stored

    if not isinstance(replacements, Mapping):
        replacements = load_document({}, replacements).data
    return swap_stored(
        artifact, replacements, output=output, keep_weights=keep_weights, resize=resize, seed=seed, registry=registry
    )


def list_types(pattern: str = "*", slot: str | None = None, registry: Registry | None = None) -> list[TypeInfo]:
    """Registered types whose name matches a shell pattern (`nn.*`), by slot and name."""
    from policysmith.config.json_schema import type_info
    from policysmith.registry import SLOTS, default_registry, load_plugins

    load_plugins()
    types = registry or default_registry
    slots = SLOTS if slot is None else (slot,)
    found = [(place, name) for place in slots for name in types.names(place, pattern) if types.is_offered(place, name)]
    return [type_info(types.entry(place, name)) for place, name in found]


def presets() -> list[str]:
    """Names of the experiments that ship with the package."""
    from policysmith.config.preset_files import preset_names

    return preset_names()


def profiles() -> list[str]:
    """Names of the sections that ship with the package, to be laid over a configuration with `+name`."""
    from policysmith.config.preset_files import profile_names

    return profile_names()


def _loaded(policy: ActorCritic | Place) -> ActorCritic:
    from policysmith.store import load

    return load(policy) if isinstance(policy, str | Path) else policy


def _with_diagram(result: Result) -> Result:
    """A run's result, with a picture of the policy beside what it stored."""
    if result.artifact is not None:
        from policysmith.transform.diagram import svg

        picture = result.artifact / "model.svg"
        picture.write_text(svg(describe(result.policy)), encoding="utf-8")
        result.files["diagram"] = picture
    return result
