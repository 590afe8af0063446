"""Operators and builtins under bounds: what grows is measured before it is made.

In: values of a skill's code, of any kind. Out: what Python gives, or a `SkillError` that says which bound was met. The
translator leaves these out where the kinds of both sides can't grow.
"""

from __future__ import annotations

import builtins
import contextlib
import math
import operator
import re
from collections.abc import Callable
from typing import Any

from policysmith.errors import SkillError
from policysmith.skills.sandbox.array_functions import check_array, check_number_or_array
from policysmith.skills.sandbox.bounds import LARGEST_WHOLE_NUMBER, Budget, check_bits

__all__ = ["bounded_difference", "bounded_functions", "builtins_of", "operators_of"]

Operation = Callable[..., Any]
NUMBERS = (int, float, complex)  # truth values among them
PLAIN = frozenset([int, float, bool, complex])
SEQUENCES = (list, tuple, str)
LONGEST_DIFFERENCE = 64  # times that `diff` takes differences
# A flag, a width and a precision of at most two digits, and a plain conversion.
FORMAT = re.compile(r"%(?:[-+ 0#]*\d{0,2}(?:\.\d{1,2})?[sdifeEgG]|%)")


def operators_of(budget: Budget) -> dict[str, Operation]:
    """Binary operators by their names in `operator`."""
    plain = ("sub", "floordiv", "truediv", "rshift", "and_", "or_", "xor", "matmul")
    bounded: dict[str, Operation] = {
        "add": _adder(budget),
        "mul": _multiplier(budget),
        "mod": lambda left, right: _modulo(left, right, budget),
        "pow": power,
        "lshift": _shift,
    }
    return bounded | {name: _numeric(getattr(operator, name), budget) for name in plain}


def builtins_of(budget: Budget) -> dict[str, Operation]:
    """Builtins that go through values, make lists, or make large numbers; all others are Python's own."""
    each = budget.each
    return {
        "all": lambda values: all(each(values)),
        "any": lambda values: any(each(values)),
        "dict": lambda *values, **named: dict(*map(each, values), **named),
        "enumerate": lambda values, start=0: enumerate(each(values), start),
        "int": _whole,
        "list": lambda *values: list(*map(each, values)),
        "max": lambda *values, **named: max(*_gone_through(values, each), **named),
        "min": lambda *values, **named: min(*_gone_through(values, each), **named),
        "pow": power,
        "range": lambda *ends: _range(*ends),
        "reversed": lambda values: reversed(each(values)),
        "round": _round,
        "set": lambda *values: set(*map(each, values)),
        "sorted": lambda values: sorted(each(values)),
        "sum": lambda values, start=0: _sum(each(values), start, budget),
        "tuple": lambda *values: tuple(*map(each, values)),
        "zip": lambda *values, strict=False: zip(*map(each, values), strict=strict),
    }


def bounded_functions(budget: Budget) -> dict[tuple[str, str], Operation]:
    """Functions of modules that need a bound of their own."""
    return {
        ("math", "prod"): lambda values, *, start=1: _product(budget.each(values), start),
        ("math", "fsum"): lambda values: math.fsum(budget.each(values)),
    }


def bounded_difference(function: Operation) -> Operation:
    """`diff`, which goes round as often as it is told."""

    def difference(values: Any, n: Any = 1, *more: Any, **named: Any) -> Any:
        if isinstance(n, int) and n > LONGEST_DIFFERENCE:
            raise SkillError(f"differences of differences, {n} times; at most {LONGEST_DIFFERENCE} are allowed")
        return function(values, n, *more, **named)

    return difference


def power(base: Any, exponent: Any, modulo: Any = None) -> Any:
    """`base ** exponent`, with a bound on whole numbers."""
    if isinstance(base, int) and isinstance(exponent, int):
        check_bits(max(exponent.bit_length(), base.bit_length()))
        if modulo is None and abs(base) > 1 and exponent > 1:
            check_bits(base.bit_length() * exponent)
        return pow(base, exponent, modulo)
    _check_both(base, exponent)
    return pow(base, exponent) if modulo is None else pow(base, exponent, modulo)


def _numeric(operation: Operation, budget: Budget) -> Operation:
    """An operator that makes nothing larger than its two sides, but may make an array of objects."""

    def apply(left: Any, right: Any) -> Any:
        if type(left) in PLAIN and type(right) in PLAIN:
            return operation(left, right)
        if isinstance(left, set | frozenset | dict) or isinstance(right, set | frozenset | dict):
            return budget.copied(operation(left, right))
        _check_both(left, right)
        return check_array(operation(left, right))

    return apply


def _adder(budget: Budget) -> Operation:
    def add(left: Any, right: Any) -> Any:
        if type(left) in PLAIN and type(right) in PLAIN:
            return left + right
        if isinstance(left, SEQUENCES) and isinstance(right, SEQUENCES):
            budget.spend(len(left) + len(right))
            return operator.add(left, right)
        _check_both(left, right)
        return check_array(left + right)

    return add


def _multiplier(budget: Budget) -> Operation:
    def multiply(left: Any, right: Any) -> Any:
        if (type(left) is float and type(right) in PLAIN) or (type(right) is float and type(left) in PLAIN):
            return left * right
        if isinstance(left, int) and isinstance(right, int):
            check_bits(left.bit_length() + right.bit_length() - 1)
            return left * right
        for values, times in ((left, right), (right, left)):
            if isinstance(values, SEQUENCES) and (count := _count(times)) is not None:
                budget.spend(len(values) * max(count, 0))
                return left * right
        _check_both(left, right)
        return check_array(left * right)

    return multiply


def _count(value: Any) -> int | None:
    """How often a sequence would be repeated; also by a scalar of an array library."""
    if isinstance(value, int):
        return value
    if hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0:
        with contextlib.suppress(TypeError):
            return operator.index(value)
    return None


def _modulo(left: Any, right: Any, budget: Budget) -> Any:
    if isinstance(left, NUMBERS) and isinstance(right, NUMBERS):
        return operator.mod(left, right)
    if isinstance(left, str):
        _check_format(left, right)
        return budget.copied(left % right)
    _check_both(left, right)
    return check_array(left % right)


def _check_format(text: str, values: Any) -> None:
    if "%" in FORMAT.sub("", text):
        raise SkillError(f"the format {text[:40]!r}; allowed are %s, %d, %f and the like, widths below 100")
    for value in values if isinstance(values, tuple) else (values,):
        if not (value is None or isinstance(value, (str, *NUMBERS)) or getattr(value, "ndim", 1) == 0):
            raise SkillError(f"a format takes numbers and texts, found {type(value).__name__}")


def _shift(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        if left and right > 0:
            check_bits(left.bit_length() + right)
        return left << right if left else 0
    _check_both(left, right)
    return check_array(left << right)


def _check_both(left: Any, right: Any) -> None:
    """For an operator of arrays: lists beside an array become arrays, so they hold numbers."""
    if hasattr(left, "dtype") or hasattr(right, "dtype"):
        check_number_or_array(left)
        check_number_or_array(right)


def _gone_through(values: tuple[Any, ...], each: Operation) -> tuple[Any, ...]:
    return (each(values[0]),) if len(values) == 1 else values


def _range(*ends: Any) -> range:
    made = range(*ends)
    check_bits(max(abs(made.start), abs(made.stop), abs(made.step)).bit_length())
    return made


def _whole(*values: Any, **named: Any) -> int:
    made = int(*values, **named)
    check_bits(made.bit_length())
    return made


def _round(value: Any, ndigits: Any = None) -> Any:
    if isinstance(ndigits, int) and abs(ndigits) > LARGEST_WHOLE_NUMBER:
        raise SkillError(f"round to {ndigits} digits")
    return round(value) if ndigits is None else round(value, ndigits)


def _sum(values: Any, start: Any, budget: Budget) -> Any:
    if hasattr(values, "dtype"):
        return sum(check_array(values), start)
    values = list(values)
    if isinstance(start, NUMBERS) and all(isinstance(value, NUMBERS) for value in values):
        return builtins.sum(values, start)
    total, add = start, _adder(budget)
    for value in values:
        total = add(total, value)
    return total


def _product(values: Any, start: Any) -> Any:
    total = start
    for value in values:
        if isinstance(total, int) and isinstance(value, int):
            check_bits(total.bit_length() + value.bit_length() - 1)
        elif not (isinstance(total, NUMBERS) and isinstance(value, NUMBERS)) and not hasattr(value, "dtype"):
            raise SkillError(f"prod multiplies numbers, found {type(value).__name__}")
        total = total * value
    return total
