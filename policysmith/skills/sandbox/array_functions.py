"""Functions of NumPy, torch and JAX as a skill may call them: on numbers, and never on arrays of objects.

In: a function of the table. Out: one that refuses what would make an array of Python objects (whole numbers without a
bound, texts), or of more elements than a skill may make. An array of objects computes with Python's own operators,
beyond every bound.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from policysmith.errors import SkillError
from policysmith.skills.sandbox.bounds import LARGEST_ARRAY
from policysmith.skills.sandbox.vocabulary import TEXT_ARGUMENTS

__all__ = ["check_array", "check_number_or_array", "checked", "is_array"]

LIBRARIES = {"numpy": ("ndarray", "generic"), "torch": ("Tensor",), "jax": ("Array",)}
MACHINE_BITS = 64  # of the whole numbers in an array
DEEPEST_LIST = 16


def is_array(value: Any) -> bool:
    """Whether it is an array or a scalar of a library that is loaded; JAX's tracers are arrays."""
    for library, names in LIBRARIES.items():
        module = sys.modules.get(library)
        if module is not None and any(isinstance(value, getattr(module, name, ())) for name in names):
            return True
    return False


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of an array library whose arguments the skill's text has made."""

    def call(*values: Any, **named: Any) -> Any:
        for value in values:
            check_number_or_array(value)
        for name, value in named.items():
            if not (isinstance(value, str) and value in TEXT_ARGUMENTS.get(name, ())):
                check_number_or_array(value)
        return check_array(function(*values, **named))

    return call


def check_array(value: Any) -> Any:
    """A result, if it holds numbers, and not too many."""
    if getattr(getattr(value, "dtype", None), "kind", "f") in "OUSV":
        raise SkillError("an array of texts or objects; arrays hold numbers")
    size = getattr(value, "size", 0)
    if isinstance(size, int) and size > LARGEST_ARRAY:
        raise SkillError(f"an array of {size:,} elements; at most {LARGEST_ARRAY:,} are allowed")
    return value


def check_number_or_array(value: Any, depth: int = 0) -> None:
    """Raises `SkillError` for what an array can't hold as a number."""
    if isinstance(value, bool | float | complex) or value is None or value is Ellipsis:
        return
    if isinstance(value, int):
        if value.bit_length() > MACHINE_BITS:
            raise SkillError(f"a whole number of more than {MACHINE_BITS} bits is no number of an array")
    elif isinstance(value, str | bytes):
        raise SkillError(f"the text {str(value)[:40]!r} is no number of an array")
    elif isinstance(value, Sequence | set | frozenset):
        if depth > DEEPEST_LIST:
            raise SkillError(f"lists that lie more than {DEEPEST_LIST} deep in one another are no array")
        for below in () if isinstance(value, range) else value:
            check_number_or_array(below, depth + 1)
    elif isinstance(value, Mapping):
        raise SkillError("a dict is no number of an array; take its values one by one")
    elif hasattr(value, "dtype"):
        check_array(value)
    elif not _is_type(value):
        raise SkillError(f"{type(value).__name__} is no number of an array")


def _is_type(value: Any) -> bool:
    """A dtype, or a type that stands for one."""
    kind = value if isinstance(value, type) else type(value)
    return kind.__module__.split(".")[0] in ("numpy", "torch", "jax", "jaxlib", "ml_dtypes")
