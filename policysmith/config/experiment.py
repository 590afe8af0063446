"""The experiment file's sections, checked together: every problem of every section at once.

In: a loaded document and a registry. Out: an `Experiment` whose parts can be built, or one `ConfigError`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import ValidationError

from policysmith.config.inline_files import inline_files
from policysmith.config.load import Document
from policysmith.config.migrate import CURRENT_FORMAT, migrate
from policysmith.config.options import OptionSchema, Section, Slot, error_at, failures, located
from policysmith.config.search_spaces import refuse_spaces
from policysmith.errors import ConfigError, Problem, did_you_mean

__all__ = [
    "Environment",
    "Evaluation",
    "Execution",
    "Experiment",
    "ObservationOptions",
    "SelfPlay",
    "Spaces",
    "Store",
    "decode_execution",
    "decode_experiment",
    "section_failures",
    "EXPERIMENT",
    "in_text_order",
]

Name = Annotated[str, MinLen(1)]
Count = Annotated[int, Gt(0)]


@dataclass(frozen=True)
class Environment:
    """Which environment, how many copies, and how they run.

    `options` go to `gymnasium.make`, `wrappers` are names or `{type: …}` from the allow-list, in the order applied.
    With `check` one more environment takes a few steps before a run begins, and what is wrong with it is told.
    """

    id: Name
    num_envs: Count = 8
    vectorization: Literal["sync", "async", "envpool"] = "sync"
    autoreset: Literal["same_step", "next_step", "disabled"] = "same_step"
    options: dict[str, Any] = field(default_factory=dict)
    wrappers: list[dict[str, Any] | str] = field(default_factory=list)
    check: bool = True


@dataclass(frozen=True)
class Spaces:
    """The spaces of a policy without an environment: where there is one, or spaces are passed, those hold instead."""

    observation: Annotated[Any, Slot("space")]
    action: Annotated[Any, Slot("space")]

    def encode(self) -> dict[str, Any]:
        """The section as plain data."""
        return {"observation": self.observation.encode(), "action": self.action.encode()}


@dataclass(frozen=True)
class ObservationOptions:
    """What of the observation the policy reads, and how; `policysmith check` says what was decided for each leaf.

    `scale` is the divisor of a leaf's numbers, `layout` the axes of an image or a stack of them (t time, h height, w
    width, c channels), `codes` how many codes each channel of a grid has, which are then read one-hot.
    """

    exclude: list[Name] = field(default_factory=list)
    scale: dict[str, Annotated[float, Gt(0)]] = field(default_factory=dict)
    normalize: bool | list[Name] = False
    layout: dict[str, Literal["hw", "hwc", "chw", "thw", "thwc", "tchw"]] = field(default_factory=dict)
    codes: dict[str, list[Count]] = field(default_factory=dict)


@dataclass(frozen=True)
class Execution:
    """How the policy's calls run: precision, compilation and memory layout. No setting changes what is stored.

    `amp` computes the network in bfloat16 and gives float32; `compile` hands each call to `torch.compile`; `auto`
    measures at the first use on a device and takes what is faster. `channels_last` lays out convolutions as N, H, W, C.
    The executor `parallel` runs components that do not need each other side by side, where it measures faster. A text
    in place of the section names the executor: `execution: parallel`. With `strict_masks` a row without a legal action
    is an error.
    """

    amp: bool | Literal["auto"] = False
    compile: bool | Literal["auto"] = False
    compile_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default"
    compile_dynamic: bool | None = None
    compile_backend: Literal["inductor", "aot_eager", "eager"] = "inductor"
    channels_last: bool = False
    executor: Literal["sequential", "parallel"] = "sequential"
    strict_masks: bool = False

    def __post_init__(self) -> None:
        if self.compile_mode != "default" and self.compile_backend != "inductor":
            message = f"the backend {self.compile_backend!r} has no modes: leave it out, or take the backend 'inductor'"
            raise located("execution", [error_at(("compile_mode",), message, self.compile_mode)])


@dataclass(frozen=True)
class Evaluation:
    """How a trained policy is judged, and `every` how many steps of training it is (null: at the end alone).

    Judged on the way, it plays in environments of its own; the best one is kept in `best/`.
    """

    episodes: Count = 100
    deterministic: bool = True
    seed: Annotated[int, Ge(0)] = 10_000
    every: Count | None = None


@dataclass(frozen=True)
class Store:
    """The store that training saves policies into, every so many iterations and at the end.

    `uri` is a directory (from the working directory, as `--output` is) or `s3://…`, `gs://…`, `hf://…`; `name` is by
    default that of the experiment, or else of the environment.
    """

    uri: Name = "policies"
    every: Count = 10
    name: Name | None = None


@dataclass(frozen=True)
class SelfPlay:
    """Whom a policy meets while it learns a game for two: copies of its past, a random player, otherwise itself.

    Against itself it learns from both seats. `pool` copies are kept, one taken every `snapshot_every` iterations.
    """

    pool: Count = 8
    snapshot_every: Count = 10
    past_share: Annotated[float, Ge(0), Le(1)] = 0.2
    random_share: Annotated[float, Ge(0), Le(1)] = 0.1

    def __post_init__(self) -> None:
        if self.past_share + self.random_share > 1:
            message = f"together with random_share={self.random_share:g} more than all games, found {self.past_share:g}"
            raise located("self_play", [error_at(("past_share",), message, self.past_share)])


@dataclass(frozen=True)
class Experiment:
    """A checked experiment; `model` and `training` are specs that can be built, `data` what was decoded."""

    data: Mapping[str, Any]
    model: Any
    training: Any
    environment: Environment | None
    spaces: Spaces | None
    observation: ObservationOptions
    execution: Execution
    evaluation: Evaluation
    self_play: SelfPlay | None
    store: Store | None
    seed: int | None
    name: str | None
    document: Document

    @cached_property
    def algorithm(self) -> Any:
        """What `training` describes, made once: what was checked is what runs. None without that section."""
        return None if self.training is None else self.training.build()

    def resolved(self) -> dict[str, Any]:
        """The whole experiment with every default written out; decoding it gives the same experiment."""
        sections = {
            "format": CURRENT_FORMAT,
            "name": self.name,
            "seed": self.seed,
            "environment": asdict(self.environment) if self.environment else None,
            "spaces": self.spaces.encode() if self.spaces else None,
            "observation": asdict(self.observation),
            "model": self.model.encode(),
            "execution": asdict(self.execution),
            "training": self.training.encode() if self.training else None,
            "self_play": asdict(self.self_play) if self.self_play else None,
            "evaluation": asdict(self.evaluation),
            "store": asdict(self.store) if self.store else None,
        }
        return {key: value for key, value in sections.items() if value is not None or key == "seed"}


def sections(
    model: Annotated[Any, Slot("model")],
    format: Annotated[int, Ge(1)] = CURRENT_FORMAT,
    name: Name | None = None,
    seed: Annotated[int, Ge(0)] | None = 0,
    environment: Annotated[Environment, Section(Environment, "environment")] | None = None,
    spaces: Annotated[Spaces, Section(Spaces, "spaces")] | None = None,
    observation: Annotated[ObservationOptions, Section(ObservationOptions, "observation")] | None = None,
    execution: Annotated[Execution, Section(Execution, "execution", short="executor")] | None = None,
    training: Annotated[Any, Slot("algorithm")] | None = None,
    self_play: Annotated[SelfPlay, Section(SelfPlay, "self_play")] | None = None,
    evaluation: Annotated[Evaluation, Section(Evaluation, "evaluation")] | None = None,
    store: Annotated[Store, Section(Store, "store")] | None = None,
) -> None:
    """The top level of an experiment file, as a signature: its schema is derived like any type's."""


EXPERIMENT = OptionSchema(sections, "experiment")
EXECUTION = OptionSchema(Execution, "execution")


def decode_experiment(document: Document, registry: Any, base_dir: str | os.PathLike[str] | None = None) -> Experiment:
    """Check every section; raises one `ConfigError` with all problems, each with its place.

    Paths in the model start at `base_dir`, where it is given (see `inline_files`). Search spaces are refused.
    """
    document = inline_files(document, registry, base_dir)
    data = migrate(document.data)
    refuse_spaces(document, lambda tried: section_failures(tried, registry))
    try:
        values = EXPERIMENT.decode(data, {"registry": registry})
    except ValidationError as error:
        raise ConfigError(
            in_text_order(document, [_problem(document, *failure) for failure in failures(error)])
        ) from None
    return Experiment(
        data,
        values["model"],
        values["training"],
        values["environment"],
        values["spaces"],
        values["observation"] or ObservationOptions(),
        values["execution"] or Execution(),
        values["evaluation"] or Evaluation(),
        values["self_play"],
        values["store"],
        values["seed"],
        values["name"],
        document,
    )


def section_failures(data: Mapping[str, Any], registry: Any) -> list[tuple[tuple[str | int, ...], str]]:
    """(path, message) of every problem that the sections' schemas have with plain data."""
    try:
        EXPERIMENT.decode(migrate(dict(data)), {"registry": registry})
    except ValidationError as error:
        return failures(error)
    except ConfigError as error:
        return [((), str(error))]
    return []


def decode_execution(settings: Mapping[str, Any]) -> Execution:
    """The section `execution` alone; raises `ConfigError` with every problem."""
    try:
        return Execution(**EXECUTION.decode(settings, {}))
    except ValidationError as error:
        raise ConfigError([Problem(".".join(map(str, path)), message) for path, message in failures(error)]) from None


def in_text_order(document: Document, problems: list[Problem]) -> list[Problem]:
    """Problems in the order of the text, those without a place last."""
    places = {str(place): (place.file, place.line, place.column) for place in document.places.values()}
    places |= {str(place): (place.file, place.line, place.column) for place in document.key_places.values()}
    return sorted(problems, key=lambda problem: places.get(problem.place or "", ("\uffff", 0, 0)))


def _problem(document: Document, path: tuple[str | int, ...], message: str) -> Problem:
    unknown = message.startswith("unknown option of ")
    if unknown and message.startswith("unknown option of 'experiment'"):
        known = ("defaults", "templates", *EXPERIMENT.parameters)
        _, elsewhere, advice = message.partition(f"; {path[-1]} of ")
        hint = elsewhere + advice or f"{did_you_mean(path[-1], known)}; there are: {', '.join(EXPERIMENT.parameters)}"
        message = f"unknown section{hint}"
    if message.startswith("required option of 'experiment'"):
        message = "this section is required"
    return document.problem(path, message, at_key=unknown)
