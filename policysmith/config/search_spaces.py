"""Search spaces in a configuration: `{tune: […]}` or `{tune: {low: …, high: …}}` in the place of a value.

In: a loaded document. Out: its spaces, and documents in which each has become one value. A mapping with the key `tune`
that its place declares, such as an optimiser of a component of that name, is no space.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from policysmith.config.load import Document, Path, Place, dotted
from policysmith.errors import ConfigError, Problem, did_you_mean

__all__ = ["Failures", "Range", "Space", "fill", "find_spaces", "refuse_spaces"]

TUNE = "tune"
SECTIONS = ("model", "training", "environment")
KEYS = ("low", "high", "log", "step")
FORM = "a list of choices, or {low: …, high: …} with log: true or a step"

Failures = Callable[[Mapping[str, Any]], Sequence[tuple[Path, str]]]
"""What is wrong with plain data: (path, message) of every problem."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both of them among the choices; integers where both ends and the step are."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether its numbers are integers."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))


@dataclass(frozen=True)
class Space:
    """What one value may be; `paths` are the places that take it, several where references or templates repeat it.

    `choices` are plain data; `range` is there in their stead.
    """

    paths: tuple[Path, ...]
    choices: tuple[Any, ...] = ()
    range: Range | None = None

    @property
    def name(self) -> str:
        """The dotted path of the first place."""
        return dotted(self.paths[0])

    def options(self) -> list[tuple[str | int, Any]]:
        """What is to be tried before the search: (key below `tune`, value) of each choice, or of both ends."""
        if self.range is None:
            return list(enumerate(self.choices))
        return [("low", self.range.low), ("high", self.range.high)]


def find_spaces(document: Document, failures: Failures) -> list[Space]:
    """The spaces in the sections model, training and environment, in their order; raises for all malformed ones.

    `failures` tells what the configuration's schema says of data. A space that is written once, in a template or where
    references lead, is one space.
    """
    found = {path: _value(document.data, path) for path in _candidates(document.data)}
    if not found:
        return []
    firsts = {path: _first(value[TUNE]) for path, value in found.items() if _is_formed(value[TUNE])}
    spaces: dict[Any, Space] = {}
    problems: list[Problem] = []
    for path, value in found.items():
        others = _with(document.data, {p: first for p, first in firsts.items() if p != path})
        if not _is_space(others, path, value, failures):
            continue
        try:
            choices, numbers = _parsed(value[TUNE])
        except _Malformed as error:
            problems.append(document.problem((*path, TUNE, *error.below), str(error)))
            continue
        origin = document.key_places.get((*path, TUNE))
        key = origin if origin is not None and origin.line else path
        paths = (*(spaces[key].paths if key in spaces else ()), path)
        spaces[key] = Space(paths, choices, numbers)
    if problems:
        raise ConfigError(problems)
    return list(spaces.values())


def refuse_spaces(document: Document, failures: Failures) -> None:
    """Raise `ConfigError`, in a sentence, where a configuration to be used as it is holds a search space."""
    try:
        spaces = find_spaces(document, failures)
    except ConfigError:
        return  # the schema says what is wrong there
    if not spaces:
        return
    more = f", and at {', '.join(space.name for space in spaces[1:])}" if spaces[1:] else ""
    message = f"a search space stands here{more}: look for the best values with `policysmith tune`, or write one value"
    raise ConfigError([document.problem(spaces[0].paths[0], message)])


def fill(document: Document, chosen: Sequence[tuple[Space, str | int | None, Any]]) -> Document:
    """The document with values in the place of spaces: (space, key below `tune` or None, value).

    Each value's place is that of the choice as it was written.
    """
    values, places = {}, dict(document.places)
    for space, key, value in chosen:
        for path in space.paths:
            values[path] = value
            if key is not None:
                places.update(_moved(document.places, (*path, TUNE, key), path))
    return replace(document, data=_with(document.data, values), places=places)


def _moved(places: Mapping[Path, Place], old: Path, new: Path) -> dict[Path, Place]:
    return {(*new, *path[len(old) :]): place for path, place in places.items() if path[: len(old)] == old}


def _candidates(data: Mapping[str, Any]) -> Iterator[Path]:
    """Mappings whose one key is `tune`, outermost first; what a choice holds is taken as it is."""

    def walk(value: Any, path: Path) -> Iterator[Path]:
        if isinstance(value, dict):
            if list(value) == [TUNE] and (_is_formed(value[TUNE]) or not isinstance(value[TUNE], dict)):
                yield path
                return
            for key, inner in value.items():
                yield from walk(inner, (*path, key))
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                yield from walk(inner, (*path, index))

    for section in SECTIONS:
        if section in data:
            yield from walk(data[section], (section,))


def _is_formed(value: Any) -> bool:
    """Whether it has the form of a space, be it right or wrong."""
    return isinstance(value, list) or (isinstance(value, dict) and (not value or bool(set(value) & set(KEYS))))


def _is_space(others: Mapping[str, Any], path: Path, value: Any, failures: Failures) -> bool:
    """Whether the place does not declare the mapping: it refuses it, or takes just anything, then in a space's form."""
    if _refuses(failures(_with(others, {path: value})), path):
        return True
    return _is_formed(value[TUNE]) and not _refuses(failures(_with(others, {path: object()})), path)


def _refuses(failures: Sequence[tuple[Path, str]], path: Path) -> bool:
    unknown = (*path, TUNE)
    return any(at == path or (at == unknown and message.startswith("unknown ")) for at, message in failures)


class _Malformed(Exception):
    """What is wrong with a space, at a place below `tune`."""

    def __init__(self, message: str, *below: str | int) -> None:
        super().__init__(message)
        self.below = below


def _parsed(value: Any) -> tuple[tuple[Any, ...], Range | None]:
    """Choices, or a range."""
    if isinstance(value, list):
        return _choices(value), None
    if not isinstance(value, dict):
        raise _Malformed(f"a search space is {FORM}; found {value!r}")
    for key in value:
        if key not in KEYS:
            hint = did_you_mean(key, KEYS) or f"; it has: {', '.join(KEYS)}"
            raise _Malformed(f"a range has no {key!r}{hint}", key)
    for key in ("low", "high"):
        if key not in value:
            raise _Malformed(f"{key!r} is missing: a search space is {FORM}")
    return (), _range(**value)


def _choices(value: list[Any]) -> tuple[Any, ...]:
    texts: list[str] = []
    for index, choice in enumerate(value):
        text = json.dumps(choice)
        if text in texts:
            raise _Malformed(f"the choice {text} stands twice", index)
        texts.append(text)
    if not texts:
        raise _Malformed("a search space needs at least one choice, found none")
    return tuple(value)


def _range(low: Any, high: Any, log: Any = False, step: Any = None) -> Range:
    for key, number in (("low", low), ("high", high), *([("step", step)] if step is not None else [])):
        if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) < float("inf"):
            raise _Malformed(f"expected a finite number, found {number!r}", key)
    if not isinstance(log, bool):
        raise _Malformed(f"expected true or false, found {log!r}", "log")
    if not low < high:
        raise _Malformed(f"must be more than low={low:g}, found {high:g}", "high")
    if log and low <= 0:
        raise _Malformed(f"must be more than 0 on a logarithmic scale, found {low:g}", "low")
    if log and step is not None:
        raise _Malformed("a logarithmic scale takes no step: leave one of the two out", "step")
    if step is not None and step <= 0:
        raise _Malformed(f"must be more than 0, found {step:g}", "step")
    if step is not None and (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)):
        raise _Malformed(f"does not lead from {low:g} to {high:g} in whole steps, found {step:g}", "step")
    return Range(low, high, log, step)


def _first(value: Any) -> Any:
    return value.get("low", value.get("high")) if isinstance(value, dict) else value[0] if value else None


def _value(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data


def _with(data: Mapping[str, Any], values: Mapping[Path, Any]) -> dict[str, Any]:
    """A copy of plain data with other values at some paths."""
    result: dict[str, Any] = copy.deepcopy(dict(data))
    for path, value in values.items():
        _value(result, path[:-1])[path[-1]] = value if type(value) is object else copy.deepcopy(value)
    return result
