"""What a skills file says of one skill and of the scheduler, as checked values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Gt, Le, MinLen
from pydantic import PlainValidator, ValidationError

from policysmith.config.options import Section, Slot, error_at, located
from policysmith.config.sizes import memory_bytes
from policysmith.registry import PartSpec
from policysmith.types import Count, Name, NonNegative, NonNegativeInt, Positive

__all__ = ["Resources", "SchedulerSettings", "SkillSettings"]


def _size(value: Any) -> Any:
    """A size of memory as it is written, if it is one."""
    try:
        _ = None if value is None else memory_bytes(value)
    except ValueError as error:
        raise located("memory", [error_at((), str(error), value)]) from None
    return value


def _step(value: Any) -> Any:
    """One step of a plan, if it is a name or `{skill: name, count: n}`."""
    said = {"skill": value} if isinstance(value, str) else value
    if not isinstance(said, Mapping) or not isinstance(said.get("skill"), str):
        raise _wrong(value, f"expected a skill's name or {{skill: name, count: n}}, found {value!r}")
    if strangers := sorted(str(key) for key in said if key not in ("skill", "count")):
        raise _wrong(value, f"a step has skill and count, found {strangers[0]!r}")
    count = said.get("count", 1)
    if type(count) is not int or count < 1:
        raise _wrong(count, f"expected a whole number ≥ 1, found {count!r}", "count")
    return value


def _wrong(value: Any, message: str, *place: str) -> ValidationError:
    return located("step", [error_at(place, message, value)])


Size = Annotated[Any, PlainValidator(_size)]
Step = Annotated[Any, PlainValidator(_step)]


@dataclass(frozen=True)
class Resources:
    """What one worker may use; `memory` is resident, a number of bytes or a text such as `4GB`."""

    cpus: Positive = 1.0
    gpus: NonNegative = 0.0
    memory: Size = None

    @property
    def memory_bytes(self) -> int | None:
        """The limit in bytes, None where there is none."""
        return None if self.memory is None else memory_bytes(self.memory)


@dataclass(frozen=True)
class SkillSettings:
    """One skill of the file.

    `code` is the file of its functions; `plan` the skills that act one after another, by default itself alone; `train`
    the dependencies that learn too; `after` skills that must only be trained before. It ends at `success` (a rate), or
    after `steps` or `seconds`. Of the skills that are ready, those with the highest `priority` run.
    """

    code: Name
    plan: Annotated[list[Step], MinLen(1)] | None = None
    train: list[Name] = field(default_factory=list)
    after: list[Name] = field(default_factory=list)
    success: Annotated[float, Gt(0), Le(1)] | None = None
    steps: Count | None = None
    seconds: Positive | None = None
    priority: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    resources: Annotated[Resources, Section(Resources, "resources")] | None = None


@dataclass(frozen=True)
class SchedulerSettings:
    """How many skills are trained at a time, how often one that fails is tried again, and where workers run.

    A failed attempt is repeated up to `retries` times, the first time after `backoff` seconds, then after twice as
    many, and so on. `memory` is each worker's limit where its skill states none.
    """

    parallel: Count = 1
    retries: NonNegativeInt = 2
    backoff: NonNegative = 1.0
    launcher: Annotated[PartSpec | str, Slot("launcher")] = "local"
    memory: Size = None
