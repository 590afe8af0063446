"""What signatures say besides types: marks for what is inferred or repeats, and options taken over from another one.

In: a function that takes `**options`, and the callable that has them. Out: the function with the whole signature, so
that no list of options is written twice.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

__all__ = ["Infer", "Repeated", "options_of"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Infer:
    """Marks an argument that follows from the inputs (`features`, `channels`, …) or from the caller's context."""

    kind: str


@dataclass(frozen=True)
class Repeated:
    """Marks a whole number that says how often one and the same thing is built: layers, blocks, experts.

    A plan measures few of them and multiplies, so that a large number costs nothing to check. What one of them adds
    must not depend on how many there are from the second on; where they differ in turn (every third attends), `step`
    is the length of the turn. An argument that is inferred may be marked as well.
    """

    step: int = 1


def options_of(base: Callable[..., Any], without: Collection[str] = (), **defaults: Any) -> Callable[[F], F]:
    """Decorator: a function that takes `**options` has the options of `base`, typed, with their defaults.

    Its own positional parameters come first, then those of `base` (but for `without` and those it has itself), then its
    own keyword-only ones; what is keyword-only in `base` stays so. `defaults` replaces defaults of `base`. At a call
    every option arrives in `**options`, the defaults too, and positional arguments are allowed as if the signature were
    written out.
    """

    def extend(function: F) -> F:
        own = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        taken = {"self", *without, *(p.name for p in own)}
        theirs = [
            p.replace(default=defaults.get(p.name, p.default))
            for p in inspect.signature(base).parameters.values()
            if p.name not in taken and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        first = [p for p in own if p.kind is not p.KEYWORD_ONLY]
        ordered = sorted([*first, *theirs, *(p for p in own if p.kind is p.KEYWORD_ONLY)], key=lambda p: p.kind)
        signature = inspect.Signature(ordered)

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            arguments = dict(bound.arguments)
            positional = [arguments.pop(p.name) for p in first]
            return function(*positional, **arguments)

        call.__signature__ = signature  # type: ignore[attr-defined]
        call.__options_base__ = base  # type: ignore[attr-defined]
        hints = _annotations(base, function.__module__)
        call.__annotations__ = {
            **{p.name: hints[p.name] for p in theirs if p.name in hints},
            **_annotations(function, function.__module__),
        }
        return typing.cast(F, call)

    return extend


def _annotations(target: Callable[..., Any], module: str) -> dict[str, Any]:
    """Annotations as types; as they are written where they are read in the same module, or cannot be read elsewhere.

    They may name what only type checkers import.
    """
    origin = target.__init__ if inspect.isclass(target) else target
    written: dict[str, Any] = dict(origin.__annotations__)
    same = origin.__module__ == module and all(isinstance(a, str) for a in written.values())
    if same:
        return written
    try:
        return typing.get_type_hints(origin, include_extras=True)
    except NameError:
        return written
