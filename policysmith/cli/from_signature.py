"""A command whose options follow from a function's signature and docstring, so that nothing is listed twice.

In: a typed function whose docstring describes its arguments. Out: parameters as typer takes them.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import typer
from annotated_types import Ge, Gt, Le

from policysmith.config.docstrings import option_notes
from policysmith.config.spelling import Named, Spelled

__all__ = ["options_from", "values_from", "with_options_of"]

M = TypeVar("M")
Parameters = dict[str, inspect.Parameter]
PLAIN = (bool, int, float, str)


def options_from(function: Callable[..., Any], notes: Mapping[str, str], *, every: bool = False) -> Parameters:
    """The keyword-only parameters of a function that a command line can say, each as an option with its help.

    With `every`, the others too. A type that no text stands for, such as a registry, is left out.
    """
    hints = _hints(function)
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if not every and parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        option = _Option.of(hints.get(name, Any), parameter.default)
        if option is not None:
            found[name] = option.parameter(name, notes.get(name, ""))
    return found


def with_options_of(
    verb: Callable[..., Any],
    *,
    without: Collection[str] = (),
    own_first: bool = False,
    notes: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: a command that takes `**options` has those of a verb, which reach it as the verb takes them.

    They stand behind the command's own arguments and before its own options, or behind those too with `own_first`. What
    is said of each is in the docstring of the verb; `notes` say it in other words.
    """
    said = {**option_notes(verb), **(notes or {})}

    def extend(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
        taken = {*without, *(p.name for p in own)}
        theirs = {n: p for n, p in options_from(verb, said, every=True).items() if n not in taken}

        @functools.wraps(command)
        def run(**given: Any) -> None:
            read = values_from(verb, {name: given.pop(name) for name in theirs}, every=True)
            command(**given, **read)

        flags = [p for p in own if p.kind is p.KEYWORD_ONLY]
        first = [p for p in own if p.kind is not p.KEYWORD_ONLY]
        listed = [*flags, *theirs.values()] if own_first else [*theirs.values(), *flags]
        run.__signature__ = inspect.Signature([*(p.replace(kind=p.KEYWORD_ONLY) for p in first), *listed])  # type: ignore[attr-defined]
        return run

    return extend


def values_from(function: Callable[..., Any], given: Mapping[str, Any], *, every: bool = False) -> dict[str, Any]:
    """What was given of a function's options, as the function takes it; what was not is left to its defaults."""
    hints, parameters = _hints(function), inspect.signature(function).parameters.values()
    names = {p.name for p in parameters if every or p.kind is p.KEYWORD_ONLY}
    stated = {name: value for name, value in given.items() if name in names and value not in (None, [])}
    spelled = {name: _mark(hints.get(name, Any), Spelled) for name in stated}
    return {name: value if (kind := spelled[name]) is None else kind.read(value) for name, value in stated.items()}


@dataclass(frozen=True)
class _Option:
    """What a command line reads an option as: how its value is spelled, or a plain type with its bounds."""

    kind: Any
    default: Any
    named: Named
    bounds: Mapping[str, float]

    @classmethod
    def of(cls, annotation: Any, default: Any) -> _Option | None:
        """The option that a parameter can be; None where no text stands for its type."""
        branches = list(_branches(annotation))
        named = next((b for b in branches if isinstance(b, Named)), Named())
        plain = [named.kind, *(b for b in branches if isinstance(b, Spelled)), *(b for b in branches if b is Path)]
        kind = next((b for b in (*plain, *(b for b in branches if b in PLAIN)) if b is not None), None)
        return None if kind is None else cls(kind, default, named, _bounds(branches))

    def parameter(self, name: str, note: str) -> inspect.Parameter:
        """The same for typer, under its name and with its help."""
        flags, help_text = self.named.flags or (f"--{name.replace('_', '-')}",), note[:1].upper() + note[1:]
        default = self.default
        if isinstance(self.kind, Spelled):
            annotation: Any = list[str] | None if self.kind.repeated else str | None
            spelled = self.kind.flag or flags[0]
            mark = typer.Option(spelled, metavar=self.kind.metavar, help=help_text, callback=_checker(self.kind))
            default = None
        elif self.kind is bool:
            annotation = bool | None if default is None else bool
            mark = typer.Option(*flags, help=help_text, show_default=default is not None)
        else:
            needed = default is inspect.Parameter.empty
            annotation = self.kind if needed else self.kind | None
            bounds = self.bounds or ({"min": 1} if self.kind is int and default is None else {})  # a count
            low, high = bounds.get("min"), bounds.get("max")
            mark = typer.Option(*flags, metavar=self.metavar, help=help_text, min=low, max=high)
        return inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, mark]
        )

    @property
    def metavar(self) -> str:
        """What stands for the value in help."""
        is_share = self.kind is float and dict(self.bounds) == {"min": 0, "max": 1}
        return self.named.metavar or ("SHARE" if is_share else _METAVARS[self.kind])


_METAVARS = {int: "N", float: "X", str: "NAME", Path: "FILE"}


def _bounds(marks: Sequence[Any]) -> dict[str, float]:
    """What typer checks of the bounds of an annotation; the open end of a whole number is the next one."""
    found: dict[str, float] = {}
    for mark in marks:
        if isinstance(mark, Ge | Le):
            found["min" if isinstance(mark, Ge) else "max"] = mark.ge if isinstance(mark, Ge) else mark.le  # type: ignore[assignment]
        elif isinstance(mark, Gt) and int in marks:
            found["min"] = int(mark.gt) + 1  # type: ignore[call-overload]
    return found


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function; names that only type checkers import stand for nothing a text could say."""
    names = _Names(getattr(inspect.unwrap(function), "__globals__", {}))
    return inspect.get_annotations(function, globals={}, locals=names, eval_str=True)


class _Names(dict[str, Any]):
    """The names of a module, and for those it has not a type of that name."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, None) or type(name, (), {})


def _mark(annotation: Any, kind: type[M]) -> M | None:
    return next((b for b in _branches(annotation) if isinstance(b, kind)), None)


def _checker(kind: Spelled) -> Callable[[Any], Any]:
    """The text as it is; a usage error where no value can be made of it.

    The value is made later: typer would make a list of a mapping.
    """

    def check(text: Any) -> Any:
        try:
            if text:
                kind.read(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        return text

    return check


def _branches(annotation: Any) -> Iterator[Any]:
    """The types of a union and the marks of an annotation, inside each other too."""
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
        yield from _branches(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for branch in get_args(annotation):
            yield from _branches(branch)
    else:
        yield annotation
