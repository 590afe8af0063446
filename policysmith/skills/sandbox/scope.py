"""What names mean while a module is translated: the module's own, a function's, and those of a comprehension in it.

In: names of the text. Out: numbered names of the flat code, and what is known of the kind of value behind each.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from policysmith.skills.sandbox.translated_module import Signature
from policysmith.skills.sandbox.vocabulary import BUILTINS

__all__ = ["Kind", "Module", "Scope", "Trouble", "Value", "joined"]

Trouble = tuple[int, str]  # line, what is wrong there


class Kind(Enum):
    """What is known of a value: it decides whether an operator may run without a bound around it."""

    FLOAT = "a Python float"
    ARRAY = "an array or a scalar of numbers, or a float"
    DATA = "what an environment gives, or moderate numbers: no list or text of the skill's, no large whole number"
    TEXT = "a text"
    ANY = "anything"

    @property
    def safe(self) -> bool:
        """Whether array functions may have it without a look."""
        return self in (Kind.FLOAT, Kind.ARRAY, Kind.DATA)

    @property
    def numeric(self) -> bool:
        """Whether it is neither a sequence nor a whole number of Python's."""
        return self in (Kind.FLOAT, Kind.ARRAY)


class Value(NamedTuple):
    """An expression of the flat code, and the kind of what it gives."""

    tree: ast.expr
    kind: Kind


def joined(kinds: Iterable[Kind]) -> Kind:
    """The kind of a value that is one of several."""
    found = set(kinds)
    if len(found) == 1:
        return found.pop()
    if all(kind.numeric for kind in found):
        return Kind.ARRAY
    return Kind.DATA if all(kind.safe for kind in found) else Kind.ANY


@dataclass
class Flow:
    """What the functions of a module are given, and give, by their own text: the join over all calls.

    `assumed` holds while functions are translated, `seen` is what turned out; they are translated until both are equal.
    A key is a parameter's numbered name, or a function's. Nothing is assumed of those of a `vague` one.
    """

    assumed: dict[str, Kind] = field(default_factory=dict)
    seen: dict[str, Kind] = field(default_factory=dict)
    vague: bool = True

    def kind(self, numbered: str) -> Kind:
        """What is assumed; of what was not seen yet, the least."""
        return Kind.ANY if self.vague else self.assumed.get(numbered, Kind.FLOAT)

    def note(self, numbered: str, kind: Kind) -> None:
        """It is given, or gives, a value."""
        before = self.seen.get(numbered)
        self.seen[numbered] = kind if before is None else joined([before, kind])


@dataclass
class Module:
    """Names of a module: imports (alias → module), functions, constants (name → numbered name); slots as they come.

    `called` are the functions that the text itself calls. `busy`: calls are counted, as rounds of loops are. `flow`
    says what the text's own calls hand over.
    """

    imports: Mapping[str, str] = field(default_factory=dict)
    functions: Mapping[str, Signature] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, Kind] = field(default_factory=dict)
    slots: dict[tuple[object, ...], int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    called: frozenset[str] = frozenset()
    busy: bool = False
    flow: Flow = field(default_factory=lambda: Flow())

    def is_fixed(self, name: str) -> bool:
        """Whether a name means one thing in the whole module."""
        return name in self.imports or name in self.functions or name in BUILTINS

    def slot(self, *what: object) -> str:
        """The numbered name of a table entry."""
        key = (*what, type(what[-1]).__name__, repr(what[-1]))  # 1, 1.0 and True are equal, 0.0 and -0.0 too
        return f"s{self.slots.setdefault(key, len(self.slots))}"

    def fresh(self, letter: str, name: str) -> str:
        """A new numbered name for a name of the text."""
        numbered = f"{letter}{len(self.names)}"
        self.names[numbered] = name
        return numbered


@dataclass
class Scope:
    """Names of a function, or of a comprehension within `outer`; `owner` is the function's name.

    `kinds` are what is known of local names; `unsure` becomes true where one turned out to be more than was assumed.
    Nothing is known of those of a `vague` scope.
    """

    module: Module
    owner: str
    names: dict[str, str] = field(default_factory=dict)
    outer: Scope | None = None
    kinds: dict[str, Kind] = field(default_factory=dict)
    unsure: bool = False
    vague: bool = False

    def find(self, name: str) -> str | None:
        """The numbered name of a local name."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.outer
        return None

    def within(self) -> Scope:
        """A scope for a comprehension."""
        return Scope(self.module, self.owner, outer=self)

    @property
    def function(self) -> Scope:
        """The scope that is no comprehension's."""
        return self if self.outer is None else self.outer.function

    def note(self, numbered: str, kind: Kind) -> None:
        """A name is given a value: what it holds is the join of all that it was ever given."""
        function = self.function
        before = function.kinds.get(numbered)
        after = kind if before is None else joined([before, kind])
        function.unsure |= before is not None and after != before
        function.kinds[numbered] = after

    def kind_of(self, numbered: str) -> Kind:
        """What is known of a name that is read."""
        function = self.function
        if function.vague:
            return Kind.ANY
        if numbered not in function.kinds:  # read above where it is given a value, in a loop: ask again
            function.unsure = True
            return Kind.FLOAT
        return function.kinds[numbered]
