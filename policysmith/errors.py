"""The one error family: every error says the place, the value found, the reason and the remedy.

Flows in: facts about what went wrong. Flows out: exceptions whose text a newcomer can act on.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from unicodedata import category

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "DivergenceWarning",
    "EnvironmentFailure",
    "MaskError",
    "MissingExtraError",
    "NonFiniteError",
    "PolicysmithError",
    "Problem",
    "RegistryError",
    "ShapeError",
    "SkillError",
    "WiringError",
    "did_you_mean",
    "missing_extra",
    "visible",
]


HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})  # Unicode's categories of such characters


class PolicysmithError(Exception):
    """Base of every error that policysmith raises on purpose. Its text shows control characters, and obeys none."""

    def __str__(self) -> str:
        return visible(super().__str__())


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a configuration.

    `path` is the dotted path of the value (`model.components.trunk.hidden.0`), `message` says what was
    found and what is allowed, `place` is `file:line:column` where known.
    """

    path: str
    message: str
    place: str | None = None

    def __str__(self) -> str:
        head = f"{self.place}  " if self.place else ""
        return visible(f"{head}{self.path}: {self.message}" if self.path else f"{head}{self.message}")


class ConfigError(PolicysmithError, ValueError):
    """A configuration is wrong; `problems` holds everything found, in the order of the text."""

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        if isinstance(problems, str):
            problems = [Problem("", problems)]
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class WiringError(PolicysmithError, ValueError):
    """Components do not fit together: a missing or doubled producer, a cycle, an illegal name."""


class ShapeError(PolicysmithError, ValueError):
    """A tensor does not have the shape or the dtype that was promised."""


class SkillError(PolicysmithError, ValueError):
    """A skill module or the remapping of its experts is wrong."""


class RegistryError(PolicysmithError, ValueError):
    """A type is unknown, or its name is taken."""


class CheckpointError(PolicysmithError):
    """A stored policy cannot be read or written; the text names the file and the reason."""


class DatasetError(PolicysmithError, ValueError):
    """Recorded data cannot be read, or does not fit the policy that shall learn from it."""


class NonFiniteError(PolicysmithError):
    """Training met numbers that are not finite too many times in a row; what it holds is the last finite state.

    `step` is when that was, where the trainer says so: offline, a number of updates.
    """

    step: int | None = None


class EnvironmentFailure(PolicysmithError, RuntimeError):
    """An environment raised an error, or gave what its space does not allow; the text has its own file and line."""


class MaskError(PolicysmithError, ValueError):
    """A legal mask leaves no action, where that is refused."""


class DivergenceWarning(UserWarning):
    """Training goes on, but its weights grow as they do where it has gone wrong."""


class MissingExtraError(PolicysmithError, ImportError):
    """An optional dependency is not installed."""


def visible(text: str) -> str:
    """The text with what a terminal would obey shown as an escape: a name out of a file may hold any character.

    Those are control characters but for the end of a line and the tabulator, and marks that turn the direction of
    writing or take no room.
    """
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or category(c) not in HIDDEN else ascii(c)[1:-1] for c in text)


def did_you_mean(name: object, allowed: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the nearest allowed name, or an empty string."""
    near = difflib.get_close_matches(str(name), list(allowed), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def missing_extra(package: str, extra: str) -> MissingExtraError:
    """The error for an absent optional package, with the command that installs it."""
    return MissingExtraError(f"{package} is not installed; run: pip install 'policysmith[{extra}]'")
