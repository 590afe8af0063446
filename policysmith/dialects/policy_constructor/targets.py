"""`_target_` and `imports`: code that a file names, and that only the caller can allow.

In: a dotted name and the prefixes that the caller trusts. Out: the object, or a sentence on why not.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from policysmith.errors import ConfigError

__all__ = ["Allowed"]

REMEDY = 'build_model(…, allow_targets=("my_package.",)) allows what lies below a prefix, and no file can'


class Allowed:
    """The prefixes that a caller trusts: `my_package.` stands for that package and all below it."""

    def __init__(self, prefixes: Sequence[str]) -> None:
        given = [prefixes] if isinstance(prefixes, str) else list(prefixes)
        self.prefixes = tuple(str(prefix).rstrip(".") for prefix in given)
        if not all(isinstance(prefix, str) and prefix.rstrip(".") for prefix in given):
            raise ConfigError(f"allow_targets takes prefixes such as 'my_package.', found {given!r}")

    def module(self, name: str) -> ModuleType | str:
        """An imported module, or why not."""
        if refused := self._refused(name):
            return refused
        try:
            return importlib.import_module(name)
        except Exception as error:  # importing runs code, which fails in every way there is
            return f"failed to import {name!r}: {type(error).__name__}: {error}"

    def target(self, name: str) -> Any:
        """The class or function of that name, in a module of its own; or why not, as a text."""
        home, _, attribute = name.rpartition(".")
        if not home:
            return f"{name!r} is no import path; write package.module.Name"
        module = self.module(home) if self._covers(name) else self._refused(name)
        if not isinstance(module, ModuleType):
            return module
        found = getattr(module, attribute, None)
        if found is None:
            return f"module {home!r} has no {attribute!r}"
        defined = getattr(found, "__module__", None)
        if not callable(found) or not isinstance(defined, str) or not self._covers(defined):
            return f"{name!r} comes from {defined or 'elsewhere'}, which is not below {', '.join(self.prefixes)}"
        return found

    def _covers(self, name: str) -> bool:
        return any(name == prefix or name.startswith(f"{prefix}.") for prefix in self.prefixes)

    def _refused(self, name: str) -> str:
        if not self.prefixes:
            return f"{name!r} is refused: a file names no code unless the caller allows it; {REMEDY}"
        if not self._covers(name):
            return f"{name!r} is not below {', '.join(self.prefixes)}, which the caller allows; {REMEDY}"
        return ""
