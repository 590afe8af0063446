"""Selectors: a short text that says which policies of a store are meant.

In: `best:return,name:cartpole`. Out: a `Query`, which catalogues answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from policysmith.errors import CheckpointError, did_you_mean

__all__ = ["Query", "parse", "PREFIX"]

KNOWN = "all, latest, best:METRIC, top:K:METRIC, rand, name:NAME, tag:TAG, id:HASH, a name, or the beginning of a hash"
PREFIX = re.compile(r"[0-9a-f]{4,64}")
COUNT = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Query:
    """What a selector asks for: an order, how many of it (None: all), and what they must be.

    `newest` is the order in time, `metric` that of a metric, the greatest first unless `least`. A `word` is a name or
    the beginning of a hash.
    """

    text: str
    order: Literal["newest", "metric", "random"] = "newest"
    count: int | None = None
    metric: str = ""
    least: bool = False
    name: str | None = None
    tags: tuple[str, ...] = ()
    prefix: str | None = None
    word: str | None = None


def parse(text: str) -> Query:
    """The query that a selector is: parts between commas, of which one at most may be an order.

    Raises `CheckpointError` for a text that is none.
    """
    query, ordered = Query(text), False
    for part in text.split(","):
        head, colon, rest = part.strip().partition(":")
        if head in ORDERS:
            if ordered:
                raise _wrong(text, f"{part.strip()!r} is a second order")
            query, ordered = ORDERS[head](query, rest if colon else None), True
        elif colon:
            query = _filtered(query, head, rest)
        elif not head:
            raise _wrong(text, "a part of it is empty")
        elif query.word is not None:
            raise _wrong(text, f"{head!r} is a second name")
        else:
            query = replace(query, word=head)
    return query


def _all(query: Query, rest: str | None) -> Query:
    if rest is not None:
        raise _wrong(query.text, "'all' takes nothing after it")
    return query


def _latest(query: Query, rest: str | None) -> Query:
    return replace(query, count=_count(query, rest))


def _random(query: Query, rest: str | None) -> Query:
    return replace(query, order="random", count=_count(query, rest))


def _best(query: Query, rest: str | None) -> Query:
    return _by_metric(query, rest, 1)


def _top(query: Query, rest: str | None) -> Query:
    count, _, metric = (rest or "").partition(":")
    return _by_metric(query, metric, _count(query, count or "?"))


def _by_metric(query: Query, metric: str | None, count: int) -> Query:
    """`return`, or `-loss` where less is better."""
    name = (metric or "").removeprefix("-")
    if not name:
        raise _wrong(query.text, "it names no metric: write best:return, or best:-loss where less is better")
    return replace(query, order="metric", metric=name, least=metric != name, count=count)


def _count(query: Query, text: str | None) -> int:
    if text is not None and not COUNT.fullmatch(text):
        raise _wrong(query.text, f"{text!r} is no count")
    return int(text or 1)


ORDERS: dict[str, Callable[[Query, str | None], Query]] = {
    "all": _all,
    "latest": _latest,
    "best": _best,
    "top": _top,
    "rand": _random,
}


def _filtered(query: Query, head: str, rest: str) -> Query:
    if not rest:
        raise _wrong(query.text, f"nothing stands after '{head}:'")
    if head == "tag":
        return replace(query, tags=(*query.tags, rest))
    if head == "name":
        return replace(query, name=rest)
    if head == "id":
        if not PREFIX.fullmatch(rest):
            raise _wrong(query.text, f"{rest!r} is not the beginning of a hash (four hexadecimal digits or more)")
        return replace(query, prefix=rest)
    raise _wrong(query.text, f"unknown {head!r}{did_you_mean(head, [*ORDERS, 'tag', 'name', 'id'])}")


def _wrong(text: str, reason: str) -> CheckpointError:
    return CheckpointError(f"the selector {text!r} cannot be read: {reason}. There are: {KNOWN}; joined by commas")
