"""Whether a callable takes some arguments: what its signature says, where it has one.

In: a callable and what it is to be called with. Out: sentences, each with the argument it is about.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

from policysmith.dialects.policy_constructor.document_problems import one_of

__all__ = ["mismatches", "positional_names"]

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def mismatches(function: Callable[..., Any], count: int, names: Collection[str]) -> list[tuple[str | None, str]]:
    """What is wrong with `count` positional arguments and named ones; nothing where there is no signature to read."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        return []
    kinds = {p.kind for p in parameters}
    positional = [p for p in parameters if p.kind in POSITIONAL]
    named = {p.name: p for p in parameters if p.kind in KEYWORD}
    found: list[tuple[str | None, str]] = []
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        found += [(name, f"unknown argument{one_of(name, named)}") for name in names if name not in named]
    if count > len(positional) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        takes = f"{len(positional)}: {', '.join(p.name for p in positional)}" if positional else "none"
        found.append((None, f"{count} positional arguments, and it takes {takes}"))
    found += [(p.name, "given twice, by position and by name") for p in positional[:count] if p.name in names]
    required = [p for p in (*positional[count:], *(p for p in named.values() if p not in positional))]
    missing = [p.name for p in required if p.default is p.empty and p.name not in names]
    found += [(None, f"required: {', '.join(missing)}")] if missing else []
    return found


def positional_names(function: Callable[..., Any]) -> list[str] | None:
    """The names of positional arguments in order; None where they can't be read."""
    try:
        return [p.name for p in inspect.signature(function).parameters.values() if p.kind in POSITIONAL]
    except (ValueError, TypeError):
        return None
