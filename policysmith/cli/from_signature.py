"""A command whose options follow from a function's signature and docstring, so that nothing is listed twice.

In: a typed function whose docstring describes its arguments. Out: parameters as typer takes them.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import typer

from policysmith.config.spelling import Spelled

__all__ = ["options_from", "values_from"]

Parameters = dict[str, inspect.Parameter]
PLAIN = (bool, int, float, str)


def options_from(function: Callable[..., Any], notes: Mapping[str, str]) -> Parameters:
    """The keyword-only parameters of a function that a command line can say, each as an option with its help.

    A type that no text stands for, such as a registry, is left out.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        kind = _kind(hints.get(name, Any))
        if kind is not None:
            found[name] = _option(name, kind, parameter.default, notes.get(name, ""))
    return found


def values_from(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given of a function's options, as the function takes it; what was not is left to its defaults."""
    hints = typing.get_type_hints(function, include_extras=True)
    names = {n for n, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY}
    stated = {name: value for name, value in given.items() if name in names and value not in (None, [])}
    kinds = {name: _kind(hints.get(name, Any)) for name in stated}
    return {n: kinds[n].read(value) if isinstance(kinds[n], Spelled) else value for n, value in stated.items()}


def _option(name: str, kind: Any, default: Any, note: str) -> inspect.Parameter:
    flag, help_text = f"--{name.replace('_', '-')}", note[:1].upper() + note[1:]
    if isinstance(kind, Spelled):
        annotation: Any = list[str] | None if kind.repeated else str | None
        mark = typer.Option(kind.flag or flag, metavar=kind.metavar, help=help_text, callback=_checker(kind))
        default = None
    elif kind is bool:
        annotation, mark = bool, typer.Option(flag, help=help_text)
    else:
        lowest = 1 if kind is int and default is None else None  # a count; a number with a default may be 0, as a seed
        annotation, mark = kind | None, typer.Option(flag, metavar=_METAVARS[kind], help=help_text, min=lowest)
    whole = Annotated[annotation, mark]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=whole)


_METAVARS = {int: "N", float: "X", str: "NAME", Path: "FILE"}


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


def _kind(annotation: Any) -> Any:
    """What a command line reads an option as: a mark of its spelling, a path, or a plain type; None for neither."""
    branches = list(_branches(annotation))
    spelled = next((b for b in branches if isinstance(b, Spelled)), None)
    if spelled is not None:
        return spelled
    if Path in branches:
        return Path
    return next((b for b in branches if b in PLAIN), None)


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
