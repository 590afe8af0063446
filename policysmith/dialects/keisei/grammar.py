"""Checkpoints of the keisei board-game trainer: its residual tower, and the `se_resnet` that came after it.

In: a file of weights, from whose shapes every size follows. Out: the same network as an `ActorCritic`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policysmith.config.spelling import Spelled, spelled_sizes
from policysmith.dialects.imported import Imported, refuse_weights
from policysmith.dialects.keisei.weights import NetworkLayout, find_layout
from policysmith.dialects.rebuild import rebuild
from policysmith.dialects.weight_layout import fit
from policysmith.errors import CheckpointError, ConfigError, Problem
from policysmith.policy.actor_critic import ActorCritic
from policysmith.registry import Registry, register
from policysmith.store.weights_file import Weights, listed, printable, read_weights

__all__ = ["KeiseiGrammar", "import_checkpoint", "read"]

Board = tuple[int, int]

SHOGI: Board = (9, 9)
SCALAR_MODELS = "policy_fc."  # what the names of the policy heads of keisei's later scalar models start with


def import_checkpoint(
    path: str | Path,
    *,
    board_size: Board | None = None,
    input_channels: int | None = None,
    resize_input: bool = False,
    registry: Registry | None = None,
) -> ActorCritic:
    """The policy stored in a checkpoint of keisei, in eval mode on the CPU; `policysmith.save` stores it as ours.

    Args:
        path: `.safetensors`, or what `torch.save` wrote: a state dict, or a checkpoint that holds one.
        board_size: (H, W); by default the square of as many points as the heads read, 9×9 where they read any number.
        input_channels: how many planes observations shall have; by default as many as the weights read.
        resize_input: whether a different number may be had: planes are added at the end with zero weights, so that
            outputs stay what they were, or the last ones are cut off.
        registry: where the types `resnet` and `se_resnet` are looked up.

    Raises:
        CheckpointError: the file can't be read, holds other things than plain tensors, or these are not one of
            keisei's networks; every tensor that is missing, misshapen or unexpected is named.
        ConfigError: an argument is out of range.
    """
    return read(
        path, board_size=board_size, input_channels=input_channels, resize_input=resize_input, registry=registry
    ).policy


BoardSize = Annotated[Board, Spelled("HxW", spelled_sizes(2, "is no size of a board: write height x width, as in 9x9"))]


def read(
    path: str | Path,
    weights: None = None,
    *,
    board_size: BoardSize | None = None,
    input_channels: int | None = None,
    resize_input: bool = False,
    registry: Registry | None = None,
) -> Imported:
    """As `import_checkpoint`, with notes on what was changed or left behind; `weights` is for other dialects.

    Args:
        path: the checkpoint: .pt, .pth or .safetensors.
        weights: nothing: they are what `path` holds.
        board_size: the board, where the weights alone do not tell its sides.
        input_channels: planes of an observation, if others than the weights read.
        resize_input: allow that: add planes with zero weights, or cut the last ones off.
        registry: where types are looked up.
    """
    refuse_weights("keisei", weights)
    _check(board_size, input_channels, resize_input)
    stored = read_weights(path)
    layout = _layout(stored)
    depth, shapes = layout.expected(stored.tensors)
    found = fit(stored.tensors, shapes)
    sizes, problems = found.sizes, list(found.problems)
    board = _board(board_size, sizes.get("points"), problems)
    planes = _planes(input_channels or sizes.get("planes"), sizes.get("planes"), resize_input, problems)
    model = {} if problems else _model(layout, sizes, depth, problems)
    if problems:
        raise CheckpointError(listed(f"{stored.file}: cannot be imported as keisei's {layout.title}", problems))
    tensors = dict(stored.tensors)
    tensors[layout.stem] = _resized(tensors[layout.stem], planes)
    policy = rebuild(
        stored.file,
        model,
        spaces.Box(-np.inf, np.inf, (planes, *board), np.float32),
        spaces.Discrete(sizes["actions"] if "actions" in sizes else sizes["moves"] * math.prod(board)),
        {layout.our_name(name): tensor for name, tensor in tensors.items()},
        registry,
    )
    return Imported(policy, tuple(_notes(stored, sizes, board, board_size, planes)))


@register("keisei", slot="grammar")
class KeiseiGrammar:
    """Checkpoints of the keisei board-game trainer: its residual tower and its `se_resnet`."""

    weights_apart = False
    read = staticmethod(read)


def _check(board_size: Any, input_channels: Any, resize_input: bool) -> None:
    problems = []
    if board_size is not None and not (
        isinstance(board_size, tuple | list) and len(board_size) == 2 and all(map(_is_count, board_size))
    ):
        problems.append(Problem("board_size", f"expected (H, W), two integers > 0, found {board_size!r}"))
    if input_channels is not None and not _is_count(input_channels):
        problems.append(Problem("input_channels", f"expected an integer > 0, found {input_channels!r}"))
    if resize_input and input_channels is None:
        problems.append(Problem("resize_input", "says nothing without input_channels: give the number of planes"))
    if problems:
        raise ConfigError(problems)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _layout(weights: Weights) -> NetworkLayout:
    names = list(weights.tensors)
    if any(name.startswith(SCALAR_MODELS) for name in names):
        later = "one of keisei's later models of type resnet, mlp or transformer"
        raise CheckpointError(f"{weights.file}: is {later}; its residual tower and its se_resnet can be imported")
    layout = find_layout(names)
    if layout is None:
        first = ", ".join(map(printable, names[:6]))
        wanted = "keisei's residual tower has stem.weight, its se_resnet input_conv.weight"
        raise CheckpointError(f"{weights.file}: is no network of keisei: {wanted}; found {first}, …")
    return layout


def _board(asked: Board | None, points: int | None, problems: list[str]) -> Board:
    """The board that the heads read; se_resnet's read any."""
    if points is None:
        return asked or SHOGI
    side = math.isqrt(points)
    if asked is None and side * side != points:
        told = "which is no square board; tell its sides with --board-size HxW (board_size=(H, W))"
        problems.append(f"board size: the heads read {points} points, {told}")
    if asked is not None and math.prod(asked) != points:
        problems.append(f"board size: {_times(asked)} has {math.prod(asked)} points, and the heads read {points}")
    return asked or (side, side)


def _planes(asked: int | None, stored: int | None, resize: bool, problems: list[str]) -> int:
    if asked != stored and stored is not None and not resize:
        remedy = "--resize-input (resize_input=True) adds planes with zero weights, or cuts the last ones off"
        problems.append(f"input channels: the weights read {stored} planes, and {asked} were asked for; {remedy}")
    return asked or 0


def _model(layout: NetworkLayout, sizes: Mapping[str, int], depth: int, problems: list[str]) -> dict[str, Any]:
    try:
        return layout.model(sizes, depth)
    except ValueError as error:
        problems.append(str(error))
        return {}


def _resized(stem_OCHW: Tensor, planes: int) -> Tensor:
    added = planes - stem_OCHW.shape[1]
    if added <= 0:
        return stem_OCHW[:, :planes]
    return torch.nn.functional.pad(stem_OCHW, (0, 0, 0, 0, 0, added))


def _notes(weights: Weights, sizes: Mapping[str, int], board: Board, asked: Board | None, planes: int) -> list[str]:
    notes = []
    stored = sizes["planes"]
    if planes > stored:
        notes.append(f"planes {stored} to {planes - 1} were added with zero weights, which leave outputs as they were")
    if planes < stored:
        notes.append(f"planes {planes} to {stored - 1} were cut off with their weights, so outputs change")
    if asked is None and "points" not in sizes:
        notes.append(f"a board of {_times(board)} was taken: the weights fit any (--board-size)")
    return notes + weights.notes()


def _times(board: Board) -> str:
    return "×".join(map(str, board))
