"""How another system lays its weights out: names with shapes in which sizes are names, too.

In: such a table and the tensors of a checkpoint. Out: the sizes, and every tensor that is missing, of another shape or
not expected.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policysmith.errors import did_you_mean
from policysmith.store.weights_file import printable

__all__ = ["Fit", "Shape", "Shapes", "batch_norm", "conv", "dense", "fit", "COUNT", "Size"]

Size = int | str  # a number, a name such as "width", or a multiple of one: "2*width"
Shape = tuple[Size, ...]
Shapes = dict[str, Shape]

COUNT = "num_batches_tracked"  # the one integer among a batch norm's tensors
INTEGERS = (torch.int64, torch.int32)
SHOWN = 30  # lines of each kind of problem
NO_HINT_ABOVE = 200  # letters; looking for like names takes the product of their lengths


@dataclass(frozen=True)
class Fit:
    """The sizes that most tensors agree on, by name (one that nothing tells is absent), and a line for each problem."""

    sizes: Mapping[str, int]
    problems: tuple[str, ...]


def conv(name: str, outputs: Size, inputs: Size, kernel: int, *, bias: bool = True) -> Shapes:
    """A square convolution."""
    return {f"{name}.weight": (outputs, inputs, kernel, kernel)} | ({f"{name}.bias": (outputs,)} if bias else {})


def dense(name: str, outputs: Size, inputs: Size) -> Shapes:
    """A linear layer."""
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def batch_norm(name: str, width: Size) -> Shapes:
    """A batch norm with weights and running statistics."""
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{vector}": (width,) for vector in vectors}, f"{name}.{COUNT}": ()}


def fit(tensors: Mapping[str, Tensor], shapes: Shapes) -> Fit:
    """Compare tensors with a layout, its named sizes being what most of them say."""
    sizes = _sizes(tensors, shapes)
    missing = [name for name in shapes if name not in tensors]
    wrong = [n for n, shape in shapes.items() if n in tensors and not _fits(n, tensors[n], shape, sizes)]
    unexpected = [name for name in tensors if name not in shapes]
    return Fit(
        sizes,
        (
            *_lines(missing, "missing", lambda name: "missing"),
            *_lines(wrong, "of another shape", lambda n: f"{_kind(tensors[n])}, expected {_wanted(n, shapes, sizes)}"),
            *_lines(unexpected, "unexpected", lambda name: f"unexpected{_hint(name, missing)}"),
        ),
    )


def _lines(names: Sequence[str], kind: str, said: Callable[[str], str]) -> list[str]:
    """What is said of each name; of very many the first ones, for a hint takes a look at every missing name."""
    more = len(names) - SHOWN
    lines = [f"{printable(name)}: {said(name)}" for name in names[:SHOWN]]
    return lines + ([f"and {more} more {kind}"] if more > 0 else [])


def _sizes(tensors: Mapping[str, Tensor], shapes: Shapes) -> dict[str, int]:
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    for name, shape in shapes.items():
        if name in tensors and tensors[name].ndim == len(shape):
            for found, size in zip(tensors[name].shape, shape, strict=True):
                factor, symbol = _parsed(size)
                if symbol and found and found % factor == 0:
                    votes[symbol][found // factor] += 1
    return {symbol: counted.most_common(1)[0][0] for symbol, counted in votes.items()}


def _parsed(size: Size) -> tuple[int, str]:
    """The factor and the name; no name for a number."""
    if isinstance(size, int):
        return size, ""
    factor, _, symbol = size.rpartition("*")
    return int(factor or 1), symbol


def _resolved(shape: Shape, sizes: Mapping[str, int]) -> tuple[int | None, ...]:
    parsed = map(_parsed, shape)
    return tuple(factor * sizes[s] if s in sizes else None if s else factor for factor, s in parsed)


def _fits(name: str, tensor: Tensor, shape: Shape, sizes: Mapping[str, int]) -> bool:
    right_kind = tensor.dtype in INTEGERS if name.endswith(COUNT) else tensor.is_floating_point()
    return right_kind and tuple(tensor.shape) == _resolved(shape, sizes)


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _wanted(name: str, shapes: Shapes, sizes: Mapping[str, int]) -> str:
    known = zip(_resolved(shapes[name], sizes), shapes[name], strict=True)
    axes = [str(size if size is not None else symbol) for size, symbol in known]
    return f"{'integer' if name.endswith(COUNT) else 'float'} ({', '.join(axes)}{',' if len(axes) == 1 else ''})"


def _hint(name: str, missing: list[str]) -> str:
    return did_you_mean(name, missing) if len(name) <= NO_HINT_ABOVE else ""
