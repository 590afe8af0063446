"""Reading attributes and methods: by kind of value, from a closed table.

In: a name, once, when a skill is bound. Out: a function that reads it. What a value's kind does not list is not there,
whatever the object really has.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from policysmith.errors import SkillError
from policysmith.skills.sandbox.array_functions import check_array, checked, is_array
from policysmith.skills.sandbox.bounds import Budget
from policysmith.skills.sandbox.vocabulary import ARRAY_ATTRIBUTES, ARRAY_METHODS, PLAIN_METHODS

__all__ = ["attribute", "method"]

Read = Callable[[Any], Any]
SIZED_METHODS = frozenset(["tolist"])  # they make lists


def attribute(name: str) -> Read:
    """A function that reads the attribute `name` of a value. It raises `SkillError` for a kind that has none."""
    known: dict[type, Read] = {}

    def read(value: Any) -> Any:
        kind = type(value)
        found = known.get(kind)
        if found is None:
            found = known[kind] = _attribute_of(kind, value, name)
        return found(value)

    return read


def method(name: str, budget: Budget, safe: bool) -> Read:
    """A function that gives the method `name` of a value; `safe` if the text can't have made its arguments."""
    known: dict[type, Read] = {}

    def read(value: Any) -> Any:
        kind = type(value)
        found = known.get(kind)
        if found is None:
            found = known[kind] = _method_of(kind, value, name, budget, safe)
        return found(value)

    return read


def _attribute_of(kind: type, value: Any, name: str) -> Read:
    if name in _fields(kind):
        return operator.attrgetter(name)
    if kind is SimpleNamespace:
        return lambda record: _of_namespace(record, name)
    if issubclass(kind, bool | int | float | complex) and name in ("real", "imag"):
        return operator.attrgetter(name)
    if name in ARRAY_ATTRIBUTES and is_array(value):
        return lambda array: check_array(getattr(array, name))
    raise SkillError(f"{_named(kind)} has no attribute {name!r}{_hint(kind, name)}")


def _method_of(kind: type, value: Any, name: str, budget: Budget, safe: bool) -> Read:
    for plain, methods in PLAIN_METHODS.items():
        if issubclass(kind, plain) and name in methods:
            return operator.attrgetter(name)
    if name not in ARRAY_METHODS or not is_array(value) or not hasattr(value, name):
        raise SkillError(f"{_named(kind)} has no method {name!r}")
    if name in SIZED_METHODS:
        return lambda array: lambda *given: _listed(array, given, budget)
    found = operator.attrgetter(name)
    return found if safe else lambda array: checked(found(array))


def _listed(array: Any, given: tuple[Any, ...], budget: Budget) -> Any:
    size = array.size if isinstance(array.size, int) else array.numel()
    budget.spend(size)
    return array.tolist(*given)


def _fields(kind: type) -> frozenset[str]:
    """The declared fields of a feature object: a named tuple's, or a dataclass's."""
    if dataclasses.is_dataclass(kind):
        return frozenset(field.name for field in dataclasses.fields(kind) if not field.name.startswith("_"))
    names = getattr(kind, "_fields", ()) if issubclass(kind, tuple) else ()
    return frozenset(name for name in names if isinstance(name, str) and not name.startswith("_"))


def _of_namespace(record: SimpleNamespace, name: str) -> Any:
    if name not in vars(record):
        raise SkillError(f"a record has no attribute {name!r}; it has {', '.join(sorted(vars(record)))}")
    return vars(record)[name]


def _named(kind: type) -> str:
    return f"a value of the kind {kind.__name__!r}"


def _hint(kind: type, name: str) -> str:
    if issubclass(kind, dict):
        return f"; a dict is read by [{name!r}]"
    return f"; a method is called: .{name}()" if name in ARRAY_METHODS else ""
