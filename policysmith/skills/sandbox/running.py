"""A program made to run: its slots filled from the closed table, its functions as a training loop calls them.

In: a `TranslatedModule`, in the process that may run it. Out: functions by name. This is the only place where flat code
is compiled; it holds no word of the skill's text.
"""

from __future__ import annotations

import builtins
import importlib
import operator
import re
from collections.abc import Callable, Mapping
from types import CodeType, TracebackType
from typing import Any

from policysmith.errors import SkillError
from policysmith.skills.sandbox.array_functions import checked
from policysmith.skills.sandbox.attributes import attribute, method
from policysmith.skills.sandbox.bounds import STEPS, Budget
from policysmith.skills.sandbox.operators import bounded_difference, bounded_functions, builtins_of, operators_of
from policysmith.skills.sandbox.translated_module import Signature, Slot, TranslatedModule, check_flat

__all__ = ["Skill", "SkillFunction"]

NUMBERED = re.compile(r"\b[vgf]\d+\b")


class Skill:
    """A module that can run. `functions` and `constants` are there by name once `execute` has been called.

    Making one imports the libraries that the program computes with.
    """

    def __init__(self, program: TranslatedModule) -> None:
        check_flat(program.tree)
        self.program, self.budget = program, Budget()
        self._code = _compiled(program)
        for module in program.modules:
            importlib.import_module(module)
        self._table = {f"s{number}": self._entry(slot) for number, slot in enumerate(program.slots)}
        self._names: dict[str, Any] = {}
        self.functions: dict[str, SkillFunction] = {}
        self.constants: dict[str, Any] = {}

    def execute(self) -> None:
        """Compute the module's constants, once, and make its functions. Raises whatever the constants do."""
        names = self._names = {"__builtins__": {"__import__": __import__}, **self._table}  # NumPy looks for it there
        self.budget.left = STEPS
        exec(self._code, names)  # flat code of ours; see Program
        for name, signature in self.program.functions.items():
            if signature.nested:
                names[signature.slot] = self.budget.nested(names[signature.slot])
            self.functions[name] = SkillFunction(names[signature.slot], signature, self.budget)
        self.constants = {name: names[numbered] for name, numbered in self.program.constants.items()}

    def explained(self, error: BaseException) -> tuple[str, str]:
        """Where in the text an error of the code arose (`file:line: `, or nothing), and what it says, in its words."""
        text = str(error)
        if isinstance(error, NameError | TypeError):
            text = NUMBERED.sub(lambda found: self.program.names.get(found[0], found[0]), text)
        if not isinstance(error, SkillError):
            text = f"{type(error).__name__}: {text}".removesuffix(": ")
        line = _line(error.__traceback__, self._names)
        return ("" if line is None else f"{self.program.filename}:{line}: "), text

    def _entry(self, slot: Slot) -> Any:
        match slot:
            case ("constant", value):
                return value
            case ("read", str(module), str(path)):
                return _at(module, path)
            case ("call" | "checked" as how, str(module), str(path)):
                own = bounded_functions(self.budget).get((module, path))
                function = own or _at(module, path)
                if path == "diff":
                    function = bounded_difference(function)
                return function if how == "call" else checked(function)
            case ("builtin", str(name)):
                return getattr(builtins, name)
            case ("bounded", str(name)):
                bounded = builtins_of(self.budget)
                return bounded.get(name) or getattr(builtins, name)
            case ("operator", str(name)):
                return operators_of(self.budget)[name]
            case ("budget", "each" | "copied" | "tick" as name):
                return getattr(self.budget, name)
            case ("attribute", str(name)):
                return attribute(name)
            case ("method" | "checked method" as how, str(name)):
                return method(name, self.budget, how == "method")
        raise ValueError(f"no entry of the table: {slot[0]}")


class SkillFunction:
    """A function of a skill, called with features by name; `parameters` are the names that it takes."""

    def __init__(self, function: Callable[..., Any], signature: Signature, budget: Budget) -> None:
        self._function, self._budget = function, budget
        self.parameters = signature.parameters
        self._required = signature.required
        self._pairs = tuple(signature.parameters.items())
        simple = len(self._pairs) == len(self._required) > 1  # so itemgetter gives a tuple
        self._taken = (
            operator.itemgetter(*self.parameters) if simple and signature.positional == len(self._pairs) else None
        )

    def __call__(self, **features: Any) -> Any:
        """Call it with these features. Raises TypeError for one that it does not take."""
        if unknown := [name for name in features if name not in self.parameters]:
            raise TypeError(f"unexpected argument {unknown[0]!r}")
        return self.of(features)

    def of(self, features: Mapping[str, Any]) -> Any:
        """Call it with those of the features that it names."""
        self._budget.left = STEPS
        if self._taken is not None:
            try:
                values = self._taken(features)
            except KeyError:
                pass  # the call below says which one it lacks
            else:
                return self._function(*values)
        return self._function(**{slot: features[name] for name, slot in self._pairs if name in features})


def _compiled(program: TranslatedModule) -> CodeType:
    try:
        return compile(program.tree, program.filename, "exec", dont_inherit=True, flags=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError, TypeError) as error:
        raise SkillError(f"{program.filename}: can't be made to run: {error}; simplify it") from error


def _at(module: str, path: str) -> Any:
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _line(traceback: TracebackType | None, names: Mapping[str, Any]) -> int | None:
    found = None
    while traceback is not None:
        if traceback.tb_frame.f_globals is names:
            found = traceback.tb_lineno
        traceback = traceback.tb_next
    return found
