"""Names that a module imports only when they are first used: cheap imports, and names of rooms above."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["lazy_names", "moved_module"]


def lazy_names(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a module: `homes` maps each of its lazy names to the module that has it.

    A name that was asked for once is an ordinary attribute from then on.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[module], name, value)
        return value

    return find


def moved_module(old: str, new: str) -> None:
    """Keep `old` as an import path of the module `new`, which is imported when one of its names is asked for."""

    def find(name: str) -> Any:
        if name.startswith("__"):  # whoever looks through all modules shall not import this one
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        return getattr(importlib.import_module(new), name)

    module = ModuleType(old, f"Moved to `{new}`.")
    module.__spec__ = ModuleSpec(old, None)
    module.__dict__["__getattr__"] = find
    sys.modules[old] = module
