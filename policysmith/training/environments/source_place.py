"""Where the code of an environment stands: file and line, as a sentence tells them.

In: a class and a method of it, or an error that came out of it. Out: `file:line`, from the working directory.
"""

from __future__ import annotations

import inspect
import sysconfig
import traceback
from pathlib import Path
from typing import Any

import gymnasium

__all__ = ["method_place", "raised_place", "first_line"]

# Frames below these are somebody's library: what an author can mend lies above them.
_LIBRARIES = tuple(
    {str(Path(path).resolve()) for name, path in sysconfig.get_paths().items() if name.endswith(("lib", "stdlib"))}
    | {str(Path(gymnasium.__file__).resolve().parent), str(Path(__file__).resolve().parents[2])}
)


def method_place(kind: type, name: str) -> str | None:
    """Where the class, or the nearest of its bases that has a method of its own of that name, has it."""
    for owner in kind.__mro__:
        method = vars(owner).get(name)
        code = getattr(inspect.unwrap(method), "__code__", None) if callable(method) else None
        if code is not None and owner is not gymnasium.Env:
            return _shown(code.co_filename, code.co_firstlineno)
    return None


def raised_place(error: BaseException, kind: type | None = None) -> str | None:
    """The innermost frame in a file of `kind` or its bases; else in nobody's library; else the innermost of all."""
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith("<")
    ]
    own = {_file(owner) for owner in (kind.__mro__ if kind else ())} - {None}
    for wanted in (lambda file: file in own, lambda file: not _is_library(file), lambda file: True):
        for file, line in reversed(frames):
            if wanted(file):
                return _shown(file, line)
    return None


def _file(owner: type) -> str | None:
    """The file of a class, where it is one of an environment's author."""
    if owner.__module__.split(".")[0] in ("builtins", "gymnasium", "typing", "abc"):
        return None
    methods = (getattr(value, "__code__", None) for value in vars(owner).values())
    return next((code.co_filename for code in methods if code is not None), None)


def _is_library(file: str) -> bool:
    return str(Path(file).resolve()).startswith(_LIBRARIES)


def _shown(file: str, line: int) -> str:
    path = Path(file)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{line}"


def first_line(error: BaseException) -> str:
    """What an error says, in one line: its kind where it says nothing."""
    lines: list[Any] = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
