"""How large a model and its training may be: held against what a configuration asks for, before anything is made.

In: the section `limits`, or nothing: then this machine's memory. Out: whether a size fits, and the sentence where not.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from policysmith.config.options import error_at, located
from policysmith.config.sizes import memory_bytes, size_text

__all__ = ["Limits", "machine_memory"]

# A space is an array of its lowest values, one of its highest, and two masks; planning and serving then hold rows of
# it. One that takes more than this share of the memory by itself leaves no room for any of them.
SPACE_SHARE = 16
# Where a container's limit is written, whichever version of control groups the system has.
GROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
Count = Annotated[int, Gt(0)]


class _Memory:
    """Annotation: a size as a text or a number of bytes."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def decode(value: Any) -> int:
            try:
                return memory_bytes(value)
            except ValueError as error:
                raise located("memory", [error_at((), str(error), value)]) from None

        return core_schema.no_info_plain_validator_function(decode)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, {"type": "integer", "exclusiveMinimum": 0}]}


@dataclass(frozen=True)
class Limits:
    """What a configuration may ask for; a file that asks for more is refused before anything is made.

    Args:
        memory: Bytes, or a text such as `64GB` or `512MiB`; null is this machine's memory.
        modules: How many modules and tensors of weights a model may have.
        environments: How many copies of an environment there may be.
    """

    memory: Annotated[Any, _Memory()] | None = None
    modules: Count = 100_000
    environments: Count = 100_000

    def memory_problem(self, needed: int, purpose: str, share: int = 1) -> str | None:
        """`needs 3.6 EiB for weights, there are 23.4 GiB (limits.memory)`, or None where that much is there."""
        there = self.memory or machine_memory()
        if there is None or needed <= there // share:
            return None
        part = "" if share == 1 else f", of which it may take {size_text(there // share)}"
        return f"needs {size_text(needed)} for {purpose}, there are {size_text(there)} (limits.memory){part}"

    def space_problem(self, needed: int, purpose: str) -> str | None:
        """The same for what a space alone needs."""
        return self.memory_problem(needed, purpose, SPACE_SHARE)

    def modules_problem(self, count: int) -> str | None:
        """`has 3,000,000 modules and tensors, …`; None if they are few enough."""
        if count <= self.modules:
            return None
        return f"has {count:,} modules and tensors of weights, allowed are {self.modules:,} (limits.modules)"

    def environments_problem(self, count: int) -> str | None:
        """The sentence for more copies of an environment than allowed; None if they are few enough."""
        if count <= self.environments:
            return None
        return f"{count:,} copies of an environment, allowed are {self.environments:,} (limits.environments)"


@cache
def machine_memory() -> int | None:
    """Bytes of memory that this process may have: the machine's, or its container's; None where nothing tells."""
    found = []
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in GROUPS:
        try:
            text = file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text.isdecimal():  # `max` where there is no limit
            found.append(int(text))
    return min((size for size in found if size > 0), default=None)
