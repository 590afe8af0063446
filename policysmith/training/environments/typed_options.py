"""Options of other people's constructors, as their signatures type them: YAML knows no tuple and no array.

In: a class or function of a library, and options as a file has them. Out: the options as the signature wants them, or
problems with their places. What a signature does not type is handed on as it is.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Union, get_args, get_origin

import numpy as np
from pydantic import ValidationError

from policysmith.config.options import OptionSchema, failures
from policysmith.errors import ConfigError, Problem

__all__ = ["typed_options"]

_PLAIN = (int, float, str, bool, type(None))
_LISTS = (list, Sequence, Iterable, Collection)


def typed_options(
    target: Callable[..., Any],
    options: Mapping[str, Any],
    title: str,
    path: str,
    without: Collection[str] = (),
    of_make: Collection[str] | None = None,
) -> dict[str, Any]:
    """The options of `target` as its signature types them. Raises `ConfigError` with each problem's place below `path`.

    `without` names parameters that are no options. A target that takes any keyword is typed, and not refused. With
    `of_make`, names of what is taken or given on the way to `target`, names alone are judged: people write signatures
    of environments that are not meant so.
    """
    hints = _hints(target)
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(target).parameters.items()
        if name not in {"self", *without} and parameter.kind is not parameter.VAR_POSITIONAL
    }
    loose = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = {name: p for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    judged = {name: value for name, value in options.items() if name in known or not (loose or name in (of_make or ()))}
    if of_make is not None:
        had = {name for name, p in known.items() if p.default is not p.empty or name in of_make}
        known = {name: p.replace(default=None) if name in had else p for name, p in known.items()}
    try:
        _schema(title, known, {} if of_make is not None else hints).decode(judged, {})
    except ValidationError as error:
        raise ConfigError([Problem(".".join(map(str, (path, *at))), said) for at, said in failures(error)]) from None
    return {name: _typed(hints.get(name, Any), value) for name, value in options.items()}


def _schema(title: str, parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any]) -> OptionSchema:
    """The schema of a stand-in with the same options, typed as far as a file can be wrong about them."""

    def stand_in() -> None: ...

    keyword = inspect.Parameter.KEYWORD_ONLY
    stand_in.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=keyword, annotation=p.empty) for p in parameters.values()]
    )
    stand_in.__annotations__ = {name: _judged(hints.get(name, Any)) for name in parameters}
    return OptionSchema(stand_in, title)


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """The annotations that can be resolved: libraries have names in them that only type checkers see."""
    function = target.__init__ if inspect.isclass(target) else target
    found: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        holder = types.FunctionType((lambda: None).__code__, getattr(function, "__globals__", {}))
        holder.__annotations__ = {name: annotation}
        try:
            found |= typing.get_type_hints(holder)
        except Exception:  # whatever resolving other people's annotations raises
            continue
    return found


def _judged(annotation: Any) -> Any:
    """What a file may give for it: lists for tuples; anything for what is no plain value."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in _PLAIN or origin is typing.Literal:
        return annotation
    if origin in (Union, types.UnionType):
        branches = [_judged(branch) for branch in inner]
        return Any if Any in branches else Union[tuple(branches)]  # noqa: UP007 - made of what is known only here
    if annotation is tuple or annotation is list:
        return list[Any]
    if origin is tuple or origin in _LISTS:
        kinds = {_judged(kind) for kind in inner if kind is not Ellipsis}
        return list[kinds.pop()] if len(kinds) == 1 else list[Any]  # type: ignore[misc]
    return Any


def _typed(annotation: Any, value: Any) -> Any:
    """A list as the tuple or the array that the annotation wants; everything else as it is."""
    if not isinstance(value, list):
        return value
    origin, inner = get_origin(annotation), get_args(annotation)
    branches = inner if origin in (Union, types.UnionType) else (annotation,)
    kinds = [get_origin(branch) or branch for branch in branches]
    if tuple in kinds:
        wanted = get_args(branches[kinds.index(tuple)])
        fixed = len(wanted) == len(value) and Ellipsis not in wanted
        each = wanted if fixed else [wanted[0] if wanted else Any] * len(value)
        return tuple(_typed(kind, item) for kind, item in zip(each, value, strict=True))
    if any(kind in _LISTS for kind in kinds):
        return value
    return np.asarray(value) if np.ndarray in kinds else value
