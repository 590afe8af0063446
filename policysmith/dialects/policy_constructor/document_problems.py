"""Problems of one document, collected with their places, and raised together in the order of the text."""

from __future__ import annotations

from collections.abc import Iterable

from policysmith.config.load import Document, Path
from policysmith.config.located_data import Place
from policysmith.errors import ConfigError, Problem, did_you_mean

__all__ = ["DocumentProblems", "one_of"]


class DocumentProblems:
    """Takes problems: `report(path, message)`; `at_key` points at the key instead of the value."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: list[tuple[Place, Problem]] = []

    def __call__(self, path: Path, message: str, *, at_key: bool = False) -> None:
        """Note a problem."""
        place = (self._document.key_places.get(path) if at_key else None) or self._document.place(path)
        self._found.append((place or Place(""), self._document.problem(path, message, at_key=at_key)))

    def place(self, path: Path) -> str:
        """Where something was written, as a text; empty for data that comes from no file."""
        return str(self._document.place(path) or "")

    def unknown_keys(self, path: Path, keys: Iterable[str], known: Iterable[str]) -> None:
        """A problem for each key that is not known."""
        for key in keys:
            if key not in known:
                self((*path, key), f"unknown key{one_of(key, known)}", at_key=True)

    def raise_any(self) -> None:
        """Raise everything found."""
        if self._found:
            found = sorted(self._found, key=lambda item: (item[0].file, item[0].line, item[0].column))
            raise ConfigError([problem for _, problem in found])


def one_of(name: object, known: Iterable[str]) -> str:
    """The nearest name, or else all there are."""
    names = list(known)
    return did_you_mean(name, names) or f"; there are: {', '.join(names) or 'none'}"
