"""The experiment file's sections, checked together: every problem of every section at once.

In: a loaded document and a registry, whose slot `section` says which sections there are. Out: an `Experiment` whose
parts can be built, or one `ConfigError`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property, lru_cache
from typing import Annotated, Any, Protocol, TypeVar

from annotated_types import Ge, MinLen
from pydantic import ValidationError

from policysmith.config.inline_files import inline_files
from policysmith.config.load import Document
from policysmith.config.migrate import CURRENT_FORMAT, migrate
from policysmith.config.options import OptionSchema, Section, Slot, failures
from policysmith.config.search_spaces import refuse_spaces
from policysmith.errors import ConfigError, Problem, did_you_mean

__all__ = ["Experiment", "SectionType", "decode_experiment", "experiment_options", "in_text_order", "section_failures"]

S = TypeVar("S")


class SectionType(Protocol):
    """A registered type of the slot `section`.

    Its target is a dataclass, whose fields are the section's options, or, with the trait `part`, it stands for a part
    of that slot. With `always` a file that leaves it out has it with its defaults; `required` and `short` (the option
    that a text in its place is) are traits too, and `after` or `before` name the section beside which it is written.
    """

    @property
    def name(self) -> str:
        """The key of the section in the file."""
        ...

    @property
    def target(self) -> Any:
        """What its fields are taken from."""
        ...

    @property
    def traits(self) -> Mapping[str, Any]:
        """What is said of it beside its fields."""
        ...


def _head(
    format: Annotated[int, Ge(1)] = CURRENT_FORMAT,
    name: Annotated[str, MinLen(1)] | None = None,
    seed: Annotated[int, Ge(0)] | None = 0,
) -> None:
    """What stands at the top of every experiment file, before its sections."""


@dataclass(frozen=True)
class Experiment:
    """A checked experiment: its sections by name, parts as specs that can be built; `data` is what was decoded."""

    data: Mapping[str, Any]
    sections: Mapping[str, Any]
    seed: int | None
    name: str | None
    document: Document

    def __getitem__(self, name: str) -> Any:
        """The section of that name; None where the file has none."""
        return self.sections[name]

    def find(self, kind: type[S]) -> S | None:
        """The section of that type; None where the file has none."""
        return next((section for section in self.sections.values() if isinstance(section, kind)), None)

    def of(self, kind: type[S]) -> S:
        """The section of a type that every experiment has."""
        found = self.find(kind)
        if found is None:
            raise KeyError(f"the experiment has no section of type {kind.__name__}")
        return found

    def with_section(self, name: str, section: Any) -> Experiment:
        """The same experiment with another section in place of that one."""
        return replace(self, sections={**self.sections, name: section})

    def built(self, name: str) -> Any:
        """What a section that is a part describes, made once: what was checked is what runs. None without it."""
        if name not in self._built:
            self._built[name] = None if self.sections[name] is None else self.sections[name].build()
        return self._built[name]

    @cached_property
    def _built(self) -> dict[str, Any]:
        return {}

    def resolved(self) -> dict[str, Any]:
        """The whole experiment with every default written out; decoding it gives the same experiment."""
        head = {"format": CURRENT_FORMAT, **({} if self.name is None else {"name": self.name}), "seed": self.seed}
        return {**head, **{name: _encoded(value) for name, value in self.sections.items() if value is not None}}


def experiment_options(sections: Iterable[SectionType]) -> OptionSchema:
    """The top level of an experiment file as options: their schema is derived like that of any type."""
    return _options(tuple(sections))


def decode_experiment(document: Document, registry: Any, base_dir: str | os.PathLike[str] | None = None) -> Experiment:
    """Check every section; raises one `ConfigError` with all problems, each with its place.

    Paths in the model start at `base_dir`, where it is given (see `inline_files`). Search spaces are refused.
    """
    document = inline_files(document, registry, base_dir)
    data = migrate(document.data)
    refuse_spaces(document, lambda tried: section_failures(tried, registry))
    sections = registry.sections()
    try:
        values = experiment_options(sections).decode(data, {"registry": registry})
    except ValidationError as error:
        known = list(experiment_options(sections).parameters)
        found = [_problem(document, path, message, known) for path, message in failures(error)]
        raise ConfigError(in_text_order(document, found)) from None
    made = {entry.name: _usual(entry) if values[entry.name] is None else values[entry.name] for entry in sections}
    return Experiment(data, made, values["seed"], values["name"], document)


def section_failures(data: Mapping[str, Any], registry: Any) -> list[tuple[tuple[str | int, ...], str]]:
    """(path, message) of every problem that the sections' schemas have with plain data."""
    try:
        experiment_options(registry.sections()).decode(migrate(dict(data)), {"registry": registry})
    except ValidationError as error:
        return failures(error)
    except ConfigError as error:
        return [((), str(error))]
    return []


def in_text_order(document: Document, problems: list[Problem]) -> list[Problem]:
    """Problems in the order of the text, those without a place last."""
    places = {str(place): (place.file, place.line, place.column) for place in document.places.values()}
    places |= {str(place): (place.file, place.line, place.column) for place in document.key_places.values()}
    return sorted(problems, key=lambda problem: places.get(problem.place or "", ("\uffff", 0, 0)))


@lru_cache(maxsize=16)  # a model of pydantic's takes a millisecond to make, and every file has the same sections
def _options(sections: tuple[SectionType, ...]) -> OptionSchema:
    def experiment(**sections: Any) -> None:
        """The top level of an experiment file."""

    head = inspect.signature(_head, eval_str=True).parameters.values()
    listed = [inspect.Parameter(e.name, inspect.Parameter.KEYWORD_ONLY, **_declared(e)) for e in sections]
    needed, rest = [p for p in listed if p.default is p.empty], [p for p in listed if p.default is not p.empty]
    whole = [*needed, *(p.replace(kind=p.KEYWORD_ONLY) for p in head), *rest]
    experiment.__signature__ = inspect.Signature(whole)  # type: ignore[attr-defined]
    experiment.__annotations__ = {p.name: p.annotation for p in whole}
    return OptionSchema(experiment, "experiment")


def _declared(section: SectionType) -> dict[str, Any]:
    """A section as a parameter of the whole file: its annotation and its default."""
    part, kind, traits = section.traits.get("part"), section.target, section.traits
    mark = Section(kind, section.name, traits.get("short")) if part is None else Slot(part)
    annotation: Any = Annotated[kind if part is None else Any, mark]
    if traits.get("required"):
        return {"annotation": annotation}
    return {"annotation": annotation | None, "default": None}


def _usual(section: SectionType) -> Any:
    """What a section is that the file leaves out."""
    return section.target() if section.traits.get("always") else None


def _encoded(value: Any) -> Any:
    """A section, and what is in it, as plain data."""
    if hasattr(value, "encode") and not isinstance(value, str | bytes):
        return value.encode()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _encoded(getattr(value, field.name)) for field in fields(value)}
    return value


def _problem(document: Document, path: tuple[str | int, ...], message: str, known: Sequence[str]) -> Problem:
    unknown = message.startswith("unknown option of ")
    if unknown and message.startswith("unknown option of 'experiment'"):
        _, elsewhere, advice = message.partition(f"; {path[-1]} of ")
        near = did_you_mean(path[-1], ("defaults", "templates", *known))
        message = f"unknown section{elsewhere + advice or f'{near}; there are: ' + ', '.join(known)}"
    if message.startswith("required option of 'experiment'"):
        message = "this section is required"
    return document.problem(path, message, at_key=unknown)
