"""Module specs, `{_type_: …, option: …}`: read and checked first, all of them, and built after.

In: a spec as written. Out: a `ModuleSpec`, whose `build()` calls the type; or problems, each at its place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from torch import nn

from policysmith.config.load import Path
from policysmith.config.located_data import quote
from policysmith.config.options import Unset, failures
from policysmith.dialects.policy_constructor.document_problems import DocumentProblems
from policysmith.dialects.policy_constructor.signature import mismatches, positional_names
from policysmith.dialects.policy_constructor.targets import Allowed
from policysmith.dialects.policy_constructor.type_names import find_type, type_names
from policysmith.errors import did_you_mean
from policysmith.registry import Entry, PartSpec, Registry

__all__ = ["BuildError", "ModuleSpec", "SpecReader"]

TYPE, TARGET, ARGS, KWARGS, NAME = RESERVED = ("_type_", "_target_", "_args_", "_kwargs_", "_name_")


class BuildError(Exception):
    """A type that was called with checked options and failed; `path` is that of its spec."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True)
class ModuleSpec:
    """A type to call: `make(*args, **options)`, in which there may be other specs. Nothing is allocated yet.

    `entry` is its registered type, None for a `_target_`.
    """

    title: str
    path: Path
    entry: Entry | None
    make: Callable[..., Any]
    args: tuple[Any, ...]
    options: Mapping[str, Any]

    def build(self) -> Any:
        """Call it; raises `BuildError` with the reason, and the place of the spec that failed."""
        args, options = built(self.args), built(self.options)
        try:
            return self.make(*args, **options)
        except BuildError:
            raise
        except Exception as error:
            reason = str(error).strip().split("\n", 1)[0] or type(error).__name__
            raise BuildError(self.path, f"{self.title!r} could not be built: {reason}") from error

    def module(self) -> nn.Module:
        """As `build`, where a module must come out."""
        found = self.build()
        if not isinstance(found, nn.Module):
            message = f"{self.title!r} gave a {type(found).__name__}; a module (torch.nn.Module) is needed here"
            raise BuildError(self.path, message)
        return found


def built(value: Any) -> Any:
    """A value with the specs in it built; containers are new each time."""
    if isinstance(value, ModuleSpec):
        return value.build()
    if isinstance(value, list | tuple):
        return type(value)(built(item) for item in value)
    return {key: built(item) for key, item in value.items()} if isinstance(value, Mapping) else value


class SpecReader:
    """Reads specs; what is wrong goes to `report`."""

    def __init__(self, registry: Registry, allowed: Allowed, report: DocumentProblems) -> None:
        self._registry, self._allowed, self._report = registry, allowed, report

    def read(self, value: Any, path: Path) -> ModuleSpec | None:
        """A module's spec."""
        if isinstance(value, Mapping) and (TYPE in value or TARGET in value):
            return self._spec(value, path)
        found = quote(value)
        if isinstance(value, Mapping):
            found = "a mapping without them" + next(filter(None, (did_you_mean(k, RESERVED[:2]) for k in value)), "")
        self._report(path, f"expected a module, a mapping with {TYPE} or {TARGET}, found {found}")
        return None

    def _spec(self, value: Mapping[str, Any], path: Path) -> ModuleSpec | None:
        args, options = self._arguments(value, path)
        if TYPE in value and TARGET in value:
            self._report((*path, TARGET), f"a spec has {TYPE} or {TARGET}, not both: leave one out", at_key=True)
            return None
        if TARGET in value:
            return self._target(value[TARGET], args, options, path)
        return self._type(value[TYPE], args, options, path)

    def _arguments(self, value: Mapping[str, Any], path: Path) -> tuple[list[Any], dict[str, tuple[Any, Path]]]:
        """Positional arguments, and named ones with their paths; specs in them are read."""
        for key in value:
            if key.startswith("_") and key not in RESERVED:
                hint = did_you_mean(key, RESERVED) or f"; there are: {', '.join(RESERVED)}"
                self._report((*path, key), f"unknown reserved key{hint}", at_key=True)
        name, args, kwargs = (value.get(key) for key in (NAME, ARGS, KWARGS))
        if name is not None and not isinstance(name, str):
            self._report((*path, NAME), f"expected a text, found {quote(name)}")
        if args is not None and not isinstance(args, list):
            self._report((*path, ARGS), f"expected a list of positional arguments, found {quote(args)}")
            args = None
        if kwargs is not None and not isinstance(kwargs, Mapping):
            self._report((*path, KWARGS), f"expected a mapping of arguments by name, found {quote(kwargs)}")
            kwargs = None
        inline = {key: ((*path, key), item) for key, item in value.items() if not key.startswith("_")}
        named = {key: ((*path, KWARGS, key), item) for key, item in (kwargs or {}).items()}
        for key in (key for key in named if key in inline):
            self._report(named[key][0], f"{key!r} is given twice, here and beside {KWARGS}: leave one out", at_key=True)
        options = {key: (self._value(item, at), at) for key, (at, item) in {**named, **inline}.items()}
        return [self._value(item, (*path, ARGS, i)) for i, item in enumerate(args or [])], options

    def _value(self, value: Any, path: Path) -> Any:
        """A value in which specs are read; one that is wrong becomes None."""
        if isinstance(value, Mapping):
            if TYPE in value or TARGET in value:
                return self._spec(value, path)
            return {key: self._value(item, (*path, key)) for key, item in value.items()}
        return [self._value(item, (*path, i)) for i, item in enumerate(value)] if isinstance(value, list) else value

    def _target(self, name: Any, args: list[Any], options: dict[str, Any], path: Path) -> ModuleSpec | None:
        wrong = f"expected package.module.Name, found {quote(name)}"
        found = self._allowed.target(name) if isinstance(name, str) else wrong
        if isinstance(found, str):
            self._report((*path, TARGET), found)
            return None
        return self._by_names(str(name), None, found, args, options, path)

    def _type(self, name: Any, args: list[Any], options: dict[str, Any], path: Path) -> ModuleSpec | None:
        entry = find_type(name, self._registry)
        if entry is None:
            names = type_names(self._registry)
            hint = did_you_mean(name, names) or "; policysmith list tells what there is"
            self._report((*path, TYPE), f"unknown module type {quote(name)}{hint}")
            return None
        if entry.traits.get("names_only"):
            return self._by_names(entry.name, entry, entry.target, args, options, path)
        return self._by_schema(entry, args, options, path)

    def _by_names(
        self, title: str, entry: Entry | None, make: Any, args: list[Any], options: dict[str, Any], path: Path
    ) -> ModuleSpec | None:
        """A callable of someone else's: its signature says which arguments there are, and no more."""
        found = mismatches(make, len(args), options)
        for name, message in found:
            at = options[name][1] if name else path
            self._report(at, f"{message} ({title!r})", at_key=bool(name))
        plain = {name: value for name, (value, _) in options.items()}
        return None if found else ModuleSpec(title, path, entry, make, tuple(args), plain)

    def _by_schema(
        self, entry: Entry, args: list[Any], options: dict[str, tuple[Any, Path]], path: Path
    ) -> ModuleSpec | None:
        """A type with a schema: every option is checked now, but for those that are modules."""
        names = positional_names(entry.target) or []
        given = {n: ((*path, ARGS, index), value) for index, (n, value) in enumerate(zip(names, args, strict=False))}
        problems: list[tuple[Path, str]] = []
        if len(args) > len(names):
            takes = f"{len(names)}: {', '.join(names)}" if names else "none"
            problems.append(((*path, ARGS), f"{len(args)} positional arguments, and {entry.name!r} takes {takes}"))
        problems += [(options[n][1], "given twice, by position and by name") for n in given if n in options]
        given |= {name: (at, value) for name, (value, at) in options.items()}
        later = {n: v for n, (_, v) in given.items() if n in entry.schema.parameters and _has_spec(v)}
        now = {name: value for name, (_, value) in given.items() if name not in later}
        checked, wrong = _decoded(entry, now, later, self._registry)
        problems += [
            ((*(given[str(at[0])][0] if at[0] in given else (*path, at[0])), *at[1:]) if at else path, message)
            for at, message in wrong
        ]
        problems += [
            (path, f"{entry.name!r} needs {name!r}: schema version 1 infers nothing")
            for name in entry.schema.inferred
            if name not in given and name not in entry.schema.optional_inferred
        ]
        for at, message in problems:
            self._report(at, message)
        return None if problems else ModuleSpec(entry.name, path, entry, _Maker(PartSpec(entry, checked)), (), later)


@dataclass(frozen=True)
class _Maker:
    """Calls a registered type with its checked options, and with what was built for it."""

    part: PartSpec

    def __call__(self, **made: Any) -> Any:
        return PartSpec(self.part.entry, {**self.part.options, **made}).build()


def _decoded(
    entry: Entry, given: Mapping[str, Any], later: Collection[str], registry: Registry
) -> tuple[dict[str, Any], list[tuple[tuple[str | int, ...], str]]]:
    """Checked options with defaults, and what is wrong; that an option which comes later is missing is not."""
    try:
        return entry.schema.decode(given, {"registry": registry}), []
    except ValidationError as error:
        wrong = [(place, m) for place, m in failures(error) if not (place and place[0] in later and "is missing" in m)]
    defaults = {n: d for n, (_, d) in entry.schema.parameters.items() if n not in entry.schema.inferred}
    return {**dict.fromkeys(entry.schema.inferred, Unset()), **defaults, **given}, wrong


def _has_spec(value: Any) -> bool:
    if isinstance(value, Mapping | list):
        return any(map(_has_spec, value.values() if isinstance(value, Mapping) else value))
    return isinstance(value, ModuleSpec)
