"""The experiment file's sections, checked together: every problem of every section at once.

In: a loaded document and a registry. Out: an `Experiment` whose parts can be built, or one `ConfigError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, MinLen
from pydantic import ValidationError

from policysmith.config.load import Document
from policysmith.config.migrate import CURRENT_FORMAT, migrate
from policysmith.config.options import OptionSchema, Section, Slot, failures
from policysmith.errors import ConfigError, Problem, did_you_mean

__all__ = ["Environment", "Evaluation", "Experiment", "ObservationOptions", "decode_experiment"]

Name = Annotated[str, MinLen(1)]
Count = Annotated[int, Gt(0)]


@dataclass(frozen=True)
class Environment:
    """Which environment, how many copies, and how they run.

    `options` go to `gymnasium.make`, `wrappers` are names or `{type: …}` from the allow-list, in the order applied.
    """

    id: Name
    num_envs: Count = 8
    vectorization: Literal["sync", "async", "envpool"] = "sync"
    autoreset: Literal["same_step", "next_step"] = "same_step"
    options: dict[str, Any] = field(default_factory=dict)
    wrappers: list[dict[str, Any] | str] = field(default_factory=list)


@dataclass(frozen=True)
class ObservationOptions:
    """What of the observation the policy reads, and how it is scaled (`scale`: leaf → divisor)."""

    exclude: list[Name] = field(default_factory=list)
    scale: dict[str, Annotated[float, Gt(0)]] = field(default_factory=dict)
    normalize: bool | list[Name] = False


@dataclass(frozen=True)
class Evaluation:
    """How a trained policy is judged."""

    episodes: Count = 100
    deterministic: bool = True
    seed: Annotated[int, Ge(0)] = 10_000


@dataclass(frozen=True)
class Experiment:
    """A checked experiment; `model` and `training` are specs that can be built, `data` what was decoded."""

    data: Mapping[str, Any]
    model: Any
    training: Any
    environment: Environment | None
    observation: ObservationOptions
    evaluation: Evaluation
    seed: int | None
    name: str | None
    document: Document

    def resolved(self) -> dict[str, Any]:
        """The whole experiment with every default written out; decoding it gives the same experiment."""
        sections = {
            "format": CURRENT_FORMAT,
            "name": self.name,
            "seed": self.seed,
            "environment": asdict(self.environment) if self.environment else None,
            "observation": asdict(self.observation),
            "model": self.model.encode(),
            "training": self.training.encode() if self.training else None,
            "evaluation": asdict(self.evaluation),
        }
        return {key: value for key, value in sections.items() if value is not None or key == "seed"}


def sections(
    model: Annotated[Any, Slot("model")],
    format: Annotated[int, Ge(1)] = CURRENT_FORMAT,
    name: Name | None = None,
    seed: Annotated[int, Ge(0)] | None = 0,
    environment: Annotated[Environment, Section(Environment, "environment")] | None = None,
    observation: Annotated[ObservationOptions, Section(ObservationOptions, "observation")] | None = None,
    training: Annotated[Any, Slot("algorithm")] | None = None,
    evaluation: Annotated[Evaluation, Section(Evaluation, "evaluation")] | None = None,
) -> None:
    """The top level of an experiment file, as a signature: its schema is derived like any type's."""


EXPERIMENT = OptionSchema(sections, "experiment")


def decode_experiment(document: Document, registry: Any) -> Experiment:
    """Check every section; raises one `ConfigError` with all problems, each with its place."""
    data = migrate(document.data)
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
        values["observation"] or ObservationOptions(),
        values["evaluation"] or Evaluation(),
        values["seed"],
        values["name"],
        document,
    )


def in_text_order(document: Document, problems: list[Problem]) -> list[Problem]:
    """Problems in the order of the text, those without a place last."""
    places = {str(place): (place.file, place.line, place.column) for place in document.places.values()}
    places |= {str(place): (place.file, place.line, place.column) for place in document.key_places.values()}
    return sorted(problems, key=lambda problem: places.get(problem.place or "", ("\uffff", 0, 0)))


def _problem(document: Document, path: tuple[str | int, ...], message: str) -> Problem:
    unknown = message.startswith("unknown option of ")
    if unknown and message.startswith("unknown option of 'experiment'"):
        known = ("defaults", "templates", *EXPERIMENT.parameters)
        message = f"unknown section{did_you_mean(path[-1], known)}; there are: {', '.join(EXPERIMENT.parameters)}"
    if message.startswith("required option of 'experiment'"):
        message = "this section is required"
    return document.problem(path, message, at_key=unknown)
