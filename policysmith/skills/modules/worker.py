"""The process in which a skill's code runs: translated here, and held by limits once its libraries are loaded.

In: requests from a pipe, a module's source first. Out: answers to a pipe. `modules/process.py` starts it.
A message is the length of a header (8 bytes), the header in JSON, and the bytes of the arrays that the header names.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

from policysmith.errors import SkillError
from policysmith.skills.sandbox.running import Skill
from policysmith.skills.sandbox.translate import translated
from policysmith.skills.walls.walls import Walls, close_calls, close_files, close_network

__all__ = ["Answers", "main", "packed", "read_message"]

LENGTH = struct.Struct("<Q")
LARGEST_HEADER = 1 << 26
THREADS = 64  # of the array libraries


def packed(message: Any) -> bytes:
    """Plain data, in which arrays may lie anywhere, as the bytes of a message; TypeError for anything else."""
    blobs: list[bytes] = []
    header = json.dumps(_flat(message, blobs)).encode()
    return LENGTH.pack(len(header)) + header + b"".join(blobs)


def read_message(stream: BinaryIO) -> Any:
    """What the other end sent; EOFError when it has gone, ValueError for what is no message."""
    size = LENGTH.unpack(_exactly(stream, LENGTH.size))[0]
    if size > LARGEST_HEADER:
        raise ValueError(f"a header of {size} bytes")
    return _deep(json.loads(_exactly(stream, size)), stream)


def _flat(value: Any, blobs: list[bytes]) -> Any:
    if isinstance(value, dict):
        return {"map": [[key, _flat(below, blobs)] for key, below in value.items()]}
    if isinstance(value, list | tuple):
        return [_flat(below, blobs) for below in value]
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().cpu().numpy()
    elif hasattr(value, "__array__") and not hasattr(value, "tobytes"):
        value = value.__array__()
    if hasattr(value, "tobytes") and not isinstance(value, memoryview):
        if value.dtype.hasobject:
            raise TypeError("an array of objects cannot be sent")
        blobs.append(value.tobytes())
        return {"array": [value.dtype.str, list(value.shape), len(blobs[-1])]}
    return value


def _deep(value: Any, stream: BinaryIO) -> Any:
    if isinstance(value, list):
        return [_deep(below, stream) for below in value]
    if isinstance(value, dict) and "map" in value:
        return {key: _deep(below, stream) for key, below in value["map"]}
    if isinstance(value, dict):
        import numpy as np

        dtype, shape, size = value["array"]
        return np.frombuffer(_exactly(stream, size), np.dtype(dtype)).reshape(shape).copy()
    return value


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the other end has gone")
    return data


def _limit(memory: int, seconds: int, file_bytes: int, walls: Walls) -> None:
    """Address space beyond what is mapped by now, processor time, files, and threads; for good."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for kind, value in (
        (resource.RLIMIT_AS, mapped + memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    if walls["namespaces"].startswith("user"):  # elsewhere the user's other processes would count, too
        resource.setrlimit(resource.RLIMIT_NPROC, (THREADS, THREADS))
    walls["limits"] = f"{memory >> 20:,} MiB, {seconds:,} s of processor time"


class Answers:
    """What is asked of a module, in the order in which it may be asked: `execute` first."""

    def __init__(self, source: str, filename: str) -> None:
        self.skill = Skill(translated(source, filename))
        self.modules = self.skill.program.modules

    def execute(self) -> None:
        """Compute the module's constants."""
        self.skill.execute()

    def call(self, name: str, features: dict[str, Any]) -> Any:
        """A function with those of the features that it names."""
        function = self.skill.functions[name]
        own = {key: self._own(value) for key, value in features.items() if key in function.parameters}
        return _plain(function.of(own))

    def value(self, name: str) -> Any:
        """A constant of the module; a mapping as pairs."""
        found = self.skill.constants.get(name)
        return [[key, value] for key, value in found.items()] if isinstance(found, dict) else found

    def explained(self, error: Exception) -> dict[str, str]:
        """An error as it is told."""
        place, text = self.skill.explained(error)
        return {"error": text, "place": place}

    def _own(self, value: Any) -> Any:
        """Arrays as those of the library that the module computes with."""
        if not hasattr(value, "tobytes"):
            return value
        if "jax.numpy" in self.modules:
            return sys.modules["jax.numpy"].asarray(value)
        return sys.modules["torch"].from_numpy(value) if self.modules & {"numpy", "torch"} == {"torch"} else value


def _plain(value: Any) -> Any:
    """A result as it can be sent: a number, or an array."""
    if hasattr(value, "shape") and tuple(value.shape) == ():
        value = value.item()
    if isinstance(value, bool | int | float | type(None)) or hasattr(value, "shape"):
        return value
    raise TypeError(f"it gave a {type(value).__name__}; expected a number, a truth value or an array")


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the other end has gone. The first answer says which walls stand, the libraries being loaded."""
    start = read_message(requests)
    try:
        walls: Walls = {}
        close_network(walls)
        close_files(walls)
        asked = Answers(start["source"], start["filename"])
        _limit(**start["limits"], walls=walls)
        close_calls(walls, files=True)
    except Exception as error:
        text = str(error) if isinstance(error, SkillError) else f"{type(error).__name__}: {error}"
        _answer(answers, {"error": text})
        return
    _answer(answers, {"ok": walls})
    with contextlib.suppress(EOFError):
        while True:
            request = read_message(requests)
            try:
                answer = {"ok": getattr(asked, request["do"])(*request["with"])}
            except Exception as error:
                answer = asked.explained(error)
            _answer(answers, answer)


def _answer(answers: BinaryIO, answer: Any) -> None:
    answers.write(packed(answer))
    answers.flush()


def main() -> None:
    """Serve over what were standard input and output; what the libraries print goes nowhere."""
    own_in, own_out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    quiet = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(quiet, standard)
    serve(own_in, own_out)
