"""A skills file (`skills.yaml`) is read and checked: which skills, their code and plans, and how they are trained.

In: a path and overrides. Out: a `SkillsFile`, or one `ConfigError` with every problem and its place. The skills' code
is parsed, never executed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen
from pydantic import ValidationError

from policysmith.config.experiment import in_text_order
from policysmith.config.load import Document, load
from policysmith.config.options import OptionSchema, Section, Slot, failures
from policysmith.errors import ConfigError, Problem, did_you_mean
from policysmith.registry import PartSpec, Registry, default_registry
from policysmith.skills.scheduling.code_files import check_code
from policysmith.skills.scheduling.references import plan_names, reference_problems
from policysmith.skills.scheduling.settings import Resources, SchedulerSettings, SkillSettings
from policysmith.types import Count, Name, NonNegativeInt

__all__ = ["SkillsFile", "read_skills_file"]

FORMAT = 1
MODEL, TRAINING = "moe", "skill_ppo"  # the types where none is named
FOLLOWING = ("num_tasks", "experts")  # options of the model that a file does not state


@dataclass(frozen=True, eq=False)
class SkillsFile:
    """A checked skills file; everything by skill is in the order of the file.

    `environment` and `training` (by skill) have their defaults written out; `model` is as it stands in the file.
    `codes` are the texts of the code files, `plans` the skills of each plan, in its order.
    """

    seed: int
    library: Path
    environment: Mapping[str, Any]
    model: Mapping[str, Any]
    training: Mapping[str, Mapping[str, Any]]
    scheduler: SchedulerSettings
    skills: Mapping[str, SkillSettings]
    codes: Mapping[str, str]
    plans: Mapping[str, tuple[str, ...]]

    @property
    def needs(self) -> dict[str, list[str]]:
        """For each skill those that must be trained before: the others of its plan, and those it comes after."""
        return {
            skill: list(dict.fromkeys(n for n in (*self.plans[skill], *said.after) if n != skill))
            for skill, said in self.skills.items()
        }

    def steps(self, skill: str) -> list[dict[str, Any]]:
        """A skill's plan as `prepare_training_run` takes it."""
        plan = self.skills[skill].plan or [skill]
        return [{"skill": step} if isinstance(step, str) else dict(step) for step in plan]

    def worker_config(self, skill: str) -> dict[str, Any]:
        """What the worker is told of a skill, beside its name and the number of its experts."""
        said = self.skills[skill]
        return {
            "seed": self.seed,
            "environment": dict(self.environment),
            "model": dict(self.model),
            "training": dict(self.training[skill]),
            "success": said.success,
            "seconds": said.seconds,
        }

    def resources(self, skill: str) -> Resources:
        """What a skill's worker may use; the scheduler's `memory` holds where the skill states none."""
        own = self.skills[skill].resources or Resources()
        return Resources(own.cpus, own.gpus, own.memory if own.memory is not None else self.scheduler.memory)


def _sections(
    environment: Annotated[Any, Slot("skill_environment")],
    skills: Annotated[dict[Name, Annotated[Any, Section(SkillSettings, "skill")]], MinLen(1)],
    format: Count = FORMAT,
    seed: NonNegativeInt = 0,
    library: Name = "library",
    model: Any = None,
    training: Any = None,
    scheduler: Annotated[SchedulerSettings, Section(SchedulerSettings, "scheduler")] | None = None,
) -> None:
    """The top level of a skills file, as a signature: its schema is derived like any type's."""


SCHEMA = OptionSchema(_sections, "skills file")


def read_skills_file(
    path: str | os.PathLike[str] | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    library: str | os.PathLike[str] | None = None,
    registry: Registry | None = None,
) -> SkillsFile:
    """Read and check a skills file. Paths in it start at its directory; `library` is in place of its own.

    Raises `ConfigError` with every problem, each with its place in the file, or in a skill's code.
    """
    document = load(path, overrides)
    registry = registry or _registry()
    problems: list[Problem] = []
    values = _decoded(document, registry, problems)
    problems += reference_problems(document)
    codes = check_code(document, _features(document, values, problems), problems)
    if problems or values is None:
        raise ConfigError(in_text_order(document, list(dict.fromkeys(problems))))
    skills: dict[str, SkillSettings] = values["skills"]
    data = document.data
    return SkillsFile(
        values["seed"],
        Path(library).absolute() if library is not None else document.directory / values["library"],
        values["environment"].encode(),
        data.get("model") or {},
        {name: registry.decode("algorithm", _training(data, name)).encode() for name in skills},
        values["scheduler"] or SchedulerSettings(**_defaults(registry)),
        skills,
        codes,
        {skill: tuple(plan_names(skill, data["skills"][skill])) for skill in skills},
    )


def _registry() -> Registry:
    """The default registry with the types that a skills file may name."""
    import policysmith.skills.registered_types  # noqa: F401

    return default_registry


def _defaults(registry: Registry) -> dict[str, Any]:
    return {"launcher": registry.decode("launcher", SchedulerSettings.launcher)}


def _decoded(document: Document, registry: Registry, problems: list[Problem]) -> dict[str, Any] | None:
    """The sections by their schema, None if one is wrong; and what is laid over defaults: model and trainings."""
    data, values = document.data, None
    if type(written := data.get("format")) is int and written > FORMAT:
        message = f"format {written} is newer than this policysmith understands ({FORMAT}); update it"
        problems.append(document.problem(("format",), message))
    try:
        values = SCHEMA.decode(data, {"registry": registry})
    except ValidationError as error:
        problems += [_problem(document, *failure) for failure in failures(error)]
    model, shared = data.get("model") or {}, data.get("training") or {}
    for name in FOLLOWING if isinstance(model, dict) else ():
        if name in model:
            message = "which experts there are follows from each skill's plan; leave it out"
            problems.append(document.problem(("model", name), message, at_key=True))
    if isinstance(model, dict) and model.get("type", MODEL) == MODEL:
        problems += _wrong(document, registry, "model", {**model, "type": MODEL}, ("model",))
    else:
        problems.append(document.problem(("model",), f"expected options of the model {MODEL!r}, found {model!r}"))
    if not isinstance(shared, dict | str):
        problems.append(document.problem(("training",), f"expected a mapping, found {shared!r}"))
        return None
    wrong = _wrong(document, registry, "algorithm", _mapping(shared, TRAINING), ("training",))
    problems += wrong
    for name in values["skills"] if values and not wrong else ():
        problems += _wrong(document, registry, "algorithm", _training(data, name), ("skills", name, "training"))
    return values


def _wrong(
    document: Document, registry: Registry, slot: str, value: Mapping[str, Any], place: tuple[str | int, ...]
) -> list[Problem]:
    """What is wrong with a part that is written at a place."""
    kind, known = value["type"], registry.names(slot)
    if slot == "algorithm" and kind in known and not registry.entry(slot, kind).traits.get("skills"):
        fitting = [name for name in known if registry.entry(slot, name).traits.get("skills")]
        return [document.problem((*place, "type"), f"{kind!r} trains no skills; types that do: {', '.join(fitting)}")]
    try:
        registry.decode(slot, value)
    except ValidationError as error:
        return [_problem(document, (*place, *path), text) for path, text in failures(error)]
    return []


def _training(data: Mapping[str, Any], skill: str) -> dict[str, Any]:
    """The training of the file with the skill's own laid over it."""
    said = data["skills"][skill]
    steps = {} if said.get("steps") is None else {"total_steps": said["steps"]}
    return {**_mapping(data.get("training") or {}, TRAINING), **(said.get("training") or {}), **steps}


def _mapping(value: Any, default: str) -> dict[str, Any]:
    """A part as a mapping: its name alone is one, and so are options of the default type."""
    return {"type": value} if isinstance(value, str) else {"type": default, **value}


def _features(document: Document, values: Mapping[str, Any] | None, problems: list[Problem]) -> frozenset[str] | None:
    """What the environment offers to the skills' functions, where that is known."""
    environment = values["environment"] if values else None
    if not isinstance(environment, PartSpec):
        return None
    try:
        return frozenset(environment.build().features)
    except ValueError as error:
        problems.append(document.problem(("environment",), str(error)))
    return None


def _problem(document: Document, path: tuple[str | int, ...], message: str) -> Problem:
    if message.startswith("unknown option of 'skills file'"):
        known = ("defaults", "templates", *SCHEMA.parameters)
        message = f"unknown section{did_you_mean(path[-1], known)}; there are: {', '.join(SCHEMA.parameters)}"
    if message.startswith("required option of 'skills file'"):
        message = "this section is required"
    return document.problem(path, message, at_key=message.startswith("unknown "))
