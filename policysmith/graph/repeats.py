"""What a part repeats is measured a few times over and multiplied: layers, blocks, experts.

In: a part whose options have numbers marked `Repeated`, its own or those of parts nested in it, and a function that
measures a part by building it. Out: the measure of the part as it stands, which is built only where it is small.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from policysmith.graph.measure import Measure, TensorSpec
from policysmith.registry import PartSpec

__all__ = ["changed", "multiplied", "repeats"]

Known = Mapping[str, Any]
Place = tuple[str | int, ...]  # names of options from the part inwards; (INFERRED, kind) for what is inferred for it
Measuring = Callable[[PartSpec, Known], Measure]
INFERRED = "inferred"
FEW = 4  # of one thing; as quick to build as to multiply
SMALL = 24  # things in all, repeats within repeats counted out
# How many are built where fewer are not possible: the experts that a token uses must be there.
STARTS = (2, 8, 32, 128)
MAX_STATES = 100_000  # tensors between two steps: each becomes an argument and a result of every call
COUNTED = ("parameters", "parameter_bytes", "buffers", "buffer_bytes", "trainable", "objects")


class TooManyStates(ValueError):
    """A part would keep more tensors between two steps than a call can take."""


class NotLinear(ValueError):
    """One more of what is repeated does not always add the same."""


def multiplied(part: PartSpec, known: Known, measure: Measuring, small: int = SMALL) -> Measure:
    """The measure of a part: by building it where it repeats up to `small` things, else as a line through small ones.

    Raises what `measure` raises; of a part that can't be built at any size, its own reason.
    """
    counts = dict(repeats(part, known))
    if math.prod(max(count, 1) for count, _ in counts.values()) <= small:
        return measure(part, known)

    def measured_at(changes: Mapping[Place, int]) -> Measure:
        return measure(*changed(part, known, changes))

    reasons: list[str] = []
    for starts in _starts(counts):
        many = {place: (*counts[place], start) for place, start in starts.items()}
        try:
            return _line(list(many.items()), {}, measured_at)
        except NotLinear:
            break
        except TooManyStates:
            raise
        except Exception as error:
            reasons.append(str(error))
            if len(reasons) > len(starts) and len(set(reasons)) == 1:  # it has nothing to do with how many there are
                raise
    return measure(part, known)


def _starts(counts: Mapping[Place, tuple[int, int]]) -> Iterator[dict[Place, int]]:
    """How many of each are built at first, by place: few of all; more of one, as something may need them; of all."""
    for index, start in enumerate(STARTS):
        usual = {place: STARTS[0] for place in counts}
        for tried in [{**usual, place: start} for place in counts] if index else [usual]:
            found = {
                place: first + (counts[place][0] - first) % counts[place][1]
                for place, first in tried.items()
                if counts[place][0] > max(FEW, first + 3 * counts[place][1])
            }
            if found:
                yield found


def repeats(part: PartSpec, known: Known) -> Iterator[tuple[Place, tuple[int, int]]]:
    """Where a part and those in its options say how often something is built: place → (how often, step)."""
    schema = part.entry.schema
    for name, step in schema.repeated.items():
        kind = schema.inferred.get(name)
        value = known.get(kind) if kind is not None else part.options.get(name)
        if type(value) is int:
            yield (name,) if kind is None else (INFERRED, kind), (value, step)
    for name, value in part.options.items():
        for place, inner in _parts(value):
            yield from (((name, *place, *below), count) for below, count in repeats(inner, {}))


def _parts(value: Any) -> Iterator[tuple[Place, PartSpec]]:
    """The parts in an option's value, with their places in it."""
    if isinstance(value, PartSpec):
        yield (), value
    elif isinstance(value, list | tuple | Mapping):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from (((key, *place), part) for place, part in _parts(inner))


def changed(part: PartSpec, known: Known, changes: Mapping[Place, int]) -> tuple[PartSpec, Known]:
    """The part and what is known for it, with other numbers at some places."""
    given = dict(known)
    for place, count in changes.items():
        if place[0] == INFERRED and place[1:] and place[1] in known:
            given[str(place[1])] = count
            for name in part.stated():  # which must not differ from what is inferred
                if part.entry.schema.inferred[name] == place[1]:
                    part = _put(part, (name,), count)
        else:
            part = _put(part, place, count)
    return part, given


def _put(value: Any, place: Place, count: int) -> Any:
    if not place:
        return count
    key, below = place[0], place[1:]
    if isinstance(value, PartSpec):
        return PartSpec(value.entry, {**value.options, str(key): _put(value.options[str(key)], below, count)})
    if isinstance(value, Mapping):
        return {**value, key: _put(value[key], below, count)}
    return [_put(item, below, count) if index == key else item for index, item in enumerate(value)]


def _line(
    many: Sequence[tuple[Place, tuple[int, int, int]]],
    changes: Mapping[Place, int],
    measured_at: Callable[..., Measure],
) -> Measure:
    """The measure at `changes` with the numbers of `many`, from three points in each; raises `NotLinear`.

    `many` has for each place how often, the step, and how many are built at first.
    """
    if not many:
        return measured_at(changes)
    (place, (count, step, first)), *rest = many
    a, b, c = (_line(rest, {**changes, place: first + k * step}, measured_at) for k in range(3))
    if _extended(a, b, c, first, step, 2) != c:
        raise NotLinear(f"{place} does not add the same each time")
    return _extended(a, b, c, first, step, (count - first) // step)


def _extended(low: Measure, mid: Measure, high: Measure, index: int, step: int, times: int) -> Measure:
    """Where the line through three measures is after `times` steps; `index` is the first that `mid` has more.

    Weights and shapes lie on a line. Operations and what they write may lie on a parabola: statistics of all layers
    that each layer writes anew.
    """
    if (low.takes_aux, low.aux, len(low.outputs)) != (mid.takes_aux, mid.aux, len(mid.outputs)):
        raise NotLinear("what it gives changes")
    numbers: dict[str, Any] = {name: _on_line(getattr(low, name), getattr(mid, name), times) for name in COUNTED}
    for name in ("flops", "activation_bytes"):
        a, b, c = (getattr(point, name) for point in (low, mid, high))
        numbers[name] = _on_line(a, b, times) + times * (times - 1) // 2 * (c - 2 * b + a)
    outputs = tuple(_extended_spec(a, b, times) for a, b in zip(low.outputs, mid.outputs, strict=True))
    return replace(low, outputs=outputs, state=_extended_state(low, mid, index, step, times), **numbers)


def _on_line(low: int, high: int, times: int) -> int:
    return low + times * (high - low)


def _extended_spec(low: TensorSpec, high: TensorSpec, times: int) -> TensorSpec:
    if (low.dtype, low.categories, len(low.shape)) != (high.dtype, high.categories, len(high.shape)):
        raise NotLinear("the kind of a tensor changes")
    return replace(low, shape=tuple(_on_line(a, b, times) for a, b in zip(low.shape, high.shape, strict=True)))


def _extended_state(low: Measure, high: Measure, index: int, step: int, times: int) -> tuple[Any, ...]:
    """The state's tensors: those of `low`, and for each step those that `high` has more, renumbered."""
    before, after = dict(low.state), dict(high.state)
    if [*after][: len(before)] != [*before]:
        raise NotLinear("the names of its state are in another order")
    added = list(after.items())[len(before) :]
    if (found := len(before) + times * len(added)) > MAX_STATES:
        raise TooManyStates(f"it keeps {found:,} tensors between two steps, allowed are {MAX_STATES:,}")
    kept = [(name, _extended_spec(spec, after[name], times)) for name, spec in before.items()]
    more = [(_renumbered(name, index, step, k), spec) for k in range(times if added else 0) for name, spec in added]
    return (*kept, *more)


def _renumbered(name: str, index: int, step: int, times: int) -> str:
    """`layers.2.key` of the third layer as that of a later one."""
    return re.sub(
        r"\d+", lambda m: str(int(m[0]) + times * step) if index <= int(m[0]) < index + step else m[0], name, count=0
    )
