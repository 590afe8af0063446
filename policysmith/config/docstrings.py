"""What docstrings say of options, under `Args:`: the one place where an option is described.

In: a class or a function. Out: a line for each of its options.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

__all__ = ["argument_notes", "option_notes", "plain_text"]


def option_notes(target: Callable[..., Any]) -> dict[str, str]:
    """Option → its line, from the docstring of the type, of its base classes and of what lends it options."""
    notes: dict[str, str] = {}
    for source in target.__mro__ if inspect.isclass(target) else (target,):
        notes = {**argument_notes(inspect.getdoc(source) or ""), **notes}
        signature = vars(source).get("__init__") if inspect.isclass(source) else source
        base = getattr(signature, "__options_base__", None)
        if base is not None:
            notes = {**option_notes(base), **notes}
    return notes


def argument_notes(doc: str) -> dict[str, str]:
    """What a docstring says of each argument under `Args:`, each as one line."""
    _, _, block = re.sub(r"^(Arguments|Attributes):", "Args:", doc, flags=re.MULTILINE).partition("Args:\n")
    notes: dict[str, str] = {}
    margin, name = None, ""
    for line in block.splitlines():
        text, indent = line.strip(), len(line) - len(line.lstrip())
        margin = indent if margin is None and text else margin
        if not text or margin == 0:
            continue
        if indent < (margin or 0):
            break
        entry = re.match(r"[`*]*(\w+)[`*]*(?: \(.*?\))?: *(.*)", text) if indent == margin else None
        name = entry[1] if entry else name
        notes[name] = " ".join([*filter(None, [notes.get(name)]), entry[2] if entry else text])
    return {name: plain_text(note) for name, note in notes.items() if name}


def plain_text(text: str) -> str:
    """One line, without the marks of reStructuredText."""
    return " ".join(re.sub(r":\w+:`~?([^`]*)`", r"\1", text.replace("``", "`")).split())
