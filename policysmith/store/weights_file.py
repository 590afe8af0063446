"""Checkpoints of other systems: a file becomes named tensors, and nothing in it is ever run.

In: `.safetensors`, or what `torch.save` has written. Out: tensors on the CPU by name, or a `CheckpointError`.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from policysmith.config.regular_file import require_regular
from policysmith.errors import CheckpointError
from policysmith.ops.quiet import quiet

__all__ = ["Weights", "listed", "printable", "read_weights"]

HOLDERS = ("model_state_dict", "model", "state_dict")  # where training programs keep the weights in a checkpoint
PREFIXES = ("_orig_mod.", "module.")  # of torch.compile and of data parallelism
FORBIDDEN = re.compile(r"GLOBAL (\S+)")  # as torch names a class or a function that it refuses to look up
SHOWN_PROBLEMS = 80
SHOWN_LETTERS = 100


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights in a checkpoint: `tensors` by name without wrappers' prefixes, and what lies `beside` them."""

    file: Path
    tensors: Mapping[str, Tensor]
    beside: Mapping[Any, Any] = field(default_factory=dict)

    @property
    def left(self) -> tuple[str, ...]:
        """The names of what lies beside the weights, safe for a terminal."""
        return tuple(map(printable, self.beside))

    def notes(self, used: Container[Any] = ()) -> list[str]:
        """Sentences on other precisions than ours, and on what lies beside the weights and is not `used`."""
        dtypes = {tensor.dtype for tensor in self.tensors.values() if tensor.is_floating_point()}
        notes = []
        if dtypes != {torch.float32}:
            names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
            notes.append(f"weights were {names}, and are stored as float32")
        if left := [printable(key) for key in self.beside if key not in used]:
            notes.append(f"left behind: {', '.join(left)}")
        return notes


def read_weights(path: str | Path) -> Weights:
    """The weights stored in a file: a state dict, or a checkpoint that holds one under a usual name.

    Raises `CheckpointError` for a file that can't be read, that holds code or other objects, whose entries are no plain
    tensors, or whose tensors claim to be larger than the file.
    """
    file = Path(path)
    try:
        size = require_regular(file)
        data = _safetensors(file) if file.suffix.lower() == ".safetensors" else _torch(file)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror or error}; check the path") from None
    holder, found = _state_dict(file, data)
    names = _bare_names(found)
    if problems := [*_no_tensors(found), *_doubled(names), *_too_large(found, size)]:
        raise CheckpointError(listed(f"{file}: is no checkpoint of plain weights", problems))
    tensors = {names[key]: tensor.detach() for key, tensor in found.items()}
    return Weights(file, tensors, {key: value for key, value in data.items() if key != holder} if holder else {})


def listed(heading: str, problems: Iterable[str]) -> str:
    """A heading and a line for each problem; of very many the first ones."""
    lines = list(problems)
    more = [f"  and {len(lines) - SHOWN_PROBLEMS} more"] if len(lines) > SHOWN_PROBLEMS else []
    return "\n".join([f"{heading}:", *(f"  {line}" for line in lines[:SHOWN_PROBLEMS]), *more])


def printable(name: Any) -> str:
    """A name out of a file, safe for a terminal and not too long."""
    text = name if isinstance(name, str) and name.isprintable() else ascii(name)
    return text if len(text) <= SHOWN_LETTERS else f"{text[:SHOWN_LETTERS]}…"


def _safetensors(file: Path) -> Mapping[str, Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{file}: is no safetensors file, or a damaged one: {_first_line(error)}") from None


def _torch(file: Path) -> Any:
    """What torch's own restricted reader makes of the file."""
    try:
        if packed := zipfile.is_zipfile(file):
            _check_archive(file)
        with quiet():  # of pickle protocols that torch does not write: what fails is told below
            # Mapped, what is not used is not read: two thirds of a checkpoint are the optimiser's.
            return torch.load(file, map_location="cpu", weights_only=True, mmap=packed)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        wanted = FORBIDDEN.search(str(error))
        what = f"asks for {printable(wanted[1])}, which is no weight" if wanted else "holds something else than weights"
        remedy = "where it comes from, store the weights alone: torch.save(model.state_dict(), file)"
        raise CheckpointError(f"{file}: {what}, and was refused; nothing in it was run; {remedy}") from None
    except Exception as error:  # damaged bytes make the reader fail in every way there is
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise CheckpointError(f"{file}: is no checkpoint of torch, or a damaged one: {reason}") from None


def _check_archive(file: Path) -> None:
    """Refuse compressed entries: torch writes none, and a small file could claim any amount of memory."""
    with zipfile.ZipFile(file) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise CheckpointError(f"{file}: is a compressed archive, which torch.save does not write; unpack it first")


def _state_dict(file: Path, data: Any) -> tuple[str | None, Mapping[Any, Any]]:
    """The state dict in a checkpoint, and the key that it is under; None if it is the whole."""
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{file}: holds a {type(data).__name__}; expected a state dict, name → tensor")
    for key in HOLDERS:
        if isinstance(data.get(key), Mapping) and _has_tensors(data[key]):
            return key, data[key]
    if _has_tensors(data):
        return None, data
    keys = ", ".join(map(printable, list(data)[:12])) or "nothing"
    wanted = f"a state dict, or one under {', '.join(HOLDERS[:-1])} or {HOLDERS[-1]}"
    raise CheckpointError(f"{file}: holds no weights; expected {wanted}, found {keys}")


def _has_tensors(found: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in found.values())


def _bare_names(found: Mapping[Any, Any]) -> dict[Any, Any]:
    """Each key without the prefixes of wrappers."""
    names = {}
    for key in found:
        name = key
        while isinstance(name, str) and name.startswith(PREFIXES):
            name = name.split(".", 1)[1]
        names[key] = name
    return names


def _no_tensors(found: Mapping[Any, Any]) -> list[str]:
    lines = [f"{printable(key)}: is no text; names are texts" for key in found if not isinstance(key, str)]
    for key, value in found.items():
        if not isinstance(value, Tensor):
            lines.append(f"{printable(key)}: {type(value).__name__}, expected a tensor")
        elif not _is_plain(value):
            lines.append(f"{printable(key)}: a sparse, quantized or empty tensor, expected plain numbers")
    return lines


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized


def _doubled(names: Mapping[Any, Any]) -> list[str]:
    keys = defaultdict(list)
    for key, name in names.items():
        keys[name].append(printable(key))
    return [f"{printable(name)}: stored twice, as {' and '.join(both)}" for name, both in keys.items() if len(both) > 1]


def _too_large(found: Mapping[Any, Any], size: int) -> list[str]:
    """A few bytes can claim to be a tensor of any size, by strides of zero."""
    plain = [value for value in found.values() if isinstance(value, Tensor) and _is_plain(value)]
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in plain)
    return [f"its tensors claim {claimed:,} bytes, and the file has {size:,}"] if claimed > size else []


def _first_line(error: Exception) -> str:
    return printable(next(iter(str(error).strip().splitlines()), "no reason given"))
