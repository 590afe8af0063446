"""The convolutions of the original transformer factory, as our extractors have them.

In: checked options and the names in a checkpoint. Out: the pieces of our extractor. C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from policysmith.dialects.tensor_pieces import Piece, dense, same_vectors
from policysmith.dialects.weight_layout import COUNT, Shapes, Size

__all__ = ["branch_width", "extractor"]

OURS = "components.extractor"
THEIRS = "feature_extractor"
BRANCHES = 3
KERNELS = (1, 3, 5)
STATISTICS = ("running_mean", "running_var")

Options = Mapping[str, Any]
Names = Mapping[str, Tensor]


def extractor(options: Options, tensors: Names) -> list[Piece]:
    """The pieces of the extractor that the options ask for."""
    return KINDS[options["feature_extractor_type"]](options, tensors)


def branch_width(options: Options) -> int:
    """Channels of each branch of an inception block."""
    width: int = options["feature_extractor_dim"] // BRANCHES
    return width


def _basic(options: Options, tensors: Names) -> list[Piece]:
    found: list[Piece] = []
    inputs, last = "n_features", options["feature_extractor_layers"] - 1
    for layer in range(last + 1):
        outputs = "embedding_dim" if layer == last and layer else "feature_extractor_dim"
        found += _conv(f"{OURS}.{4 * layer}", f"{THEIRS}.layers.{layer}.0", outputs, inputs, 3)
        found += _norm(options, tensors, f"{OURS}.{4 * layer + 2}", f"{THEIRS}.layers.{layer}.2", outputs)
        inputs = outputs
    return found


def _resnet(options: Options, tensors: Names) -> list[Piece]:
    width = "feature_extractor_dim"
    found = _pointwise(f"{OURS}.enter", f"{THEIRS}.input_proj.0", width, "n_features")
    for block in range(options["feature_extractor_layers"]):
        ours, theirs = f"{OURS}.blocks.{block}", f"{THEIRS}.res_blocks.{block}"
        for number in (1, 2):
            found += _conv(f"{ours}.conv{number}", f"{theirs}.conv{number}", width, width, 3)
            found += _norm(options, tensors, f"{ours}.norm{number}", f"{theirs}.norm{number}", width)
    return found + _pointwise(f"{OURS}.leave", f"{THEIRS}.output_proj", "embedding_dim", width)


def _inception(options: Options, tensors: Names) -> list[Piece]:
    """Its branches are alike, so where the width is no multiple of three it has a channel or two less behind a block.

    Ours has them in the first branch: without weights there and in what reads them, they stay zero and change nothing.
    """
    width, share = options["feature_extractor_dim"], branch_width(options)
    full: Size = f"{BRANCHES}*branch width"
    kept = torch.tensor([*range(share), *range(width - 2 * share, width)])
    found = _pointwise(f"{OURS}.enter", f"{THEIRS}.input_proj.0", "feature_extractor_dim", "n_features")
    for block in range(options["feature_extractor_layers"]):
        ours, theirs = f"{OURS}.blocks.{block}", f"{THEIRS}.blocks.{block}.branches"
        inputs: Size = full if block else "feature_extractor_dim"
        for j, kernel in enumerate(KERNELS):
            outs = share if j else width - 2 * share
            rows = torch.arange(share)
            weight: Shapes = {f"{theirs}.{j}.0.weight": ("branch width", inputs, kernel)}
            found += [
                Piece(f"{ours}.convs.{j}.weight", weight, _placed((rows, outs), (kept, width) if block else None)),
                Piece(f"{ours}.convs.{j}.bias", {f"{theirs}.{j}.0.bias": ("branch width",)}, _placed((rows, outs))),
            ]
        found += _joined_norm(options, tensors, f"{ours}.norm", theirs, kept)
    weight = {f"{THEIRS}.output_proj.weight": ("embedding_dim", full, 1)}
    put = _placed(None, (kept, width))
    return [
        *found,
        Piece(f"{OURS}.leave.weight", weight, lambda w: put(w).squeeze(-1)),
        Piece(f"{OURS}.leave.bias", {f"{THEIRS}.output_proj.bias": ("embedding_dim",)}),
    ]


def _joined_norm(options: Options, tensors: Names, ours: str, theirs: str, kept: Tensor) -> list[Piece]:
    """One norm of the channels side by side, for one in each branch."""
    if options["use_instance_norm"] and f"{theirs}.0.2.weight" not in tensors:
        return _norm(options, tensors, ours, f"{theirs}.0.2", "feature_extractor_dim")
    found = []
    for piece in _norm(options, tensors, ours, f"{theirs}.0.2", "branch width"):
        ((name, shape),) = piece.sources.items()
        each = {f"{theirs}.{j}.2.{name.rpartition('.')[2]}": shape for j in range(BRANCHES)}
        put = _placed((kept, options["feature_extractor_dim"]), fill=float(name.endswith("running_var")))
        found.append(Piece(piece.ours, each, _first if name.endswith(COUNT) else _joined(put)))
    return found


def _norm(options: Options, tensors: Names, ours: str, theirs: str, width: str) -> list[Piece]:
    """A batch norm, or an instance norm with or without weights."""
    if not options["use_instance_norm"]:
        vectors = same_vectors(ours, theirs, width, ("weight", "bias", *STATISTICS))
        return [*vectors, Piece(f"{ours}.{COUNT}", {f"{theirs}.{COUNT}": ()})]
    if f"{theirs}.weight" in tensors:
        return same_vectors(ours, theirs, width, ("weight", "bias"))
    size = options[width]
    return [Piece(f"{ours}.weight", {}, lambda: torch.ones(size)), Piece(f"{ours}.bias", {}, lambda: torch.zeros(size))]


def _conv(ours: str, theirs: str, outputs: Size, inputs: Size, kernel: int) -> list[Piece]:
    weight: Shapes = {f"{theirs}.weight": (outputs, inputs, kernel)}
    return [Piece(f"{ours}.weight", weight), Piece(f"{ours}.bias", {f"{theirs}.bias": (outputs,)})]


def _pointwise(ours: str, theirs: str, outputs: Size, inputs: Size) -> list[Piece]:
    """A convolution over one step, which is a linear layer."""
    weight, bias = dense(ours, theirs, outputs, inputs)
    return [Piece(weight.ours, {f"{theirs}.weight": (outputs, inputs, 1)}, lambda w: w.squeeze(-1)), bias]


def _placed(*axes: tuple[Tensor, int] | None, fill: float = 0.0) -> Callable[[Tensor], Tensor]:
    """Puts a tensor's rows (first of `axes`) and columns at places in a larger one, which is `fill` elsewhere."""

    def place(tensor: Tensor) -> Tensor:
        for axis, wanted in enumerate(axes):
            if wanted is not None and tensor.shape[axis] != wanted[1]:
                shape = [*tensor.shape[:axis], wanted[1], *tensor.shape[axis + 1 :]]
                tensor = tensor.new_full(shape, fill).index_copy_(axis, wanted[0], tensor)
        return tensor

    return place


def _joined(put: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda *each: put(torch.cat(each))


def _first(*each: Tensor) -> Tensor:
    return each[0]


KINDS: Mapping[str, Callable[[Options, Names], list[Piece]]] = {
    "basic": _basic,
    "resnet": _resnet,
    "inception": _inception,
}
