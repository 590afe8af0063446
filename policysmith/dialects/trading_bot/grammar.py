"""Checkpoints of the original transformer factory, whose policies read windows of features.

In: a file of weights with its flat `model_config`. Out: the same network as an `ActorCritic`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policysmith.config.load import load
from policysmith.dialects.imported import Imported
from policysmith.dialects.rebuild import rebuild
from policysmith.dialects.tensor_pieces import Piece, assembled, sources
from policysmith.dialects.trading_bot.extractor_weights import branch_width
from policysmith.dialects.trading_bot.stored_options import is_causal, nested, understood
from policysmith.dialects.trading_bot.weights import CROSS, counted, pieces, scales, side_of
from policysmith.dialects.weight_layout import fit
from policysmith.errors import CheckpointError, ConfigError, Problem
from policysmith.policy.actor_critic import ActorCritic
from policysmith.registry import Registry, register
from policysmith.store.weights_file import Weights, listed, printable, read_weights

__all__ = ["ModelConfigGrammar", "import_checkpoint", "read"]

CONFIG = "model_config"  # where a checkpoint keeps its configuration
TITLE = "a policy of the original transformer factory"
# The norm of a decoder's attention to a source, and what it holds as long as nothing has trained it.
UNTRAINED = {"norm_cross.weight": 1.0, "norm_cross.bias": 0.0}

ConfigSource = str | Path | Mapping[str, Any]
Options = Mapping[str, Any]


def import_checkpoint(
    path: str | Path,
    *,
    config: ConfigSource | None = None,
    unmasked: bool = False,
    registry: Registry | None = None,
) -> ActorCritic:
    """The policy in a checkpoint of the original transformer factory, in eval mode on the CPU.

    Logits (B, A) and values (B,) are the original's forward for windows (B, T, F). Its `decoder_only` pyramids saw
    later steps; they don't here, unless `unmasked`.

    Args:
        path: `.safetensors`, or what `torch.save` wrote: a checkpoint with `model_config`, or a state dict.
        config: the flat configuration, or a JSON or YAML file of it, instead of the one in the checkpoint.
        unmasked: keep the `decoder_only` pyramid's sight of later steps, for outputs identical to the original's.
        registry: where types are looked up.

    Raises:
        CheckpointError: the file can't be read or holds other things than plain data, or its policy can't be had
            exactly; everything that stands against it is named.
        ConfigError: an argument is wrong, or the configuration's file.
    """
    return read(path, config=config, unmasked=unmasked, registry=registry).policy


def read(
    path: str | Path,
    weights: str | Path | None = None,
    *,
    config: ConfigSource | None = None,
    unmasked: bool = False,
    registry: Registry | None = None,
) -> Imported:
    """As `import_checkpoint`, with notes on what was changed or left behind.

    Args:
        path: the checkpoint: .pt, .pth or .safetensors; with `weights`, the file of the flat configuration.
        weights: the checkpoint, where `path` is the configuration.
        config: the model's options in JSON or YAML, where the checkpoint holds none.
        unmasked: let steps of decoder_only pyramids see later ones, as the original did.
        registry: where types are looked up.
    """
    if weights is not None and config is not None:
        raise ConfigError([Problem("config", "is given twice: where there are weights, path is the configuration")])
    checkpoint, config = (path, config) if weights is None else (weights, path)
    stored, problems = read_weights(checkpoint), list[str]()
    options = understood(_stored(stored, config), problems)
    _refuse(stored, problems)
    if unmasked and is_causal(options) == is_causal(options, unmasked):
        raise ConfigError([Problem("unmasked", "says nothing here: only decoder_only pyramids ignored their mask")])
    tensors = _without_cross(stored.tensors, options, problems)
    made = _fitting(tensors, options, problems)
    _refuse(stored, problems)
    policy = rebuild(
        stored.file,
        nested(options, is_causal(options, unmasked)),
        spaces.Box(-np.inf, np.inf, (options["window_size"], options["n_features"]), np.float32),
        spaces.Discrete(options["action_dim"]),
        assembled(made, tensors),
        registry,
    )
    notes = _notes(options, unmasked, len(tensors) < len(stored.tensors))
    return Imported(policy, (*notes, *stored.notes(used=(CONFIG,))))


@register("model-config", slot="grammar")
class ModelConfigGrammar:
    """Checkpoints of the original transformer factory, with their flat `model_config`."""

    weights_apart = False
    read = staticmethod(read)


def _stored(weights: Weights, config: ConfigSource | None) -> Mapping[Any, Any]:
    """The flat configuration: the one given, or else the checkpoint's."""
    found = weights.beside.get(CONFIG)
    if config is not None:
        found = dict(config) if isinstance(config, Mapping) else load(config).data
        found = found.get(CONFIG, found)
    if not isinstance(found, Mapping):
        held = f"holds no {CONFIG}" if found is None else f"{CONFIG} is a {type(found).__name__}, expected a mapping"
        remedy = "weights do not tell heads, masks and scales: give the configuration with --config (config=)"
        raise CheckpointError(f"{weights.file}: {held}; {remedy}")
    return found


def _refuse(weights: Weights, problems: list[str]) -> None:
    if problems:
        raise CheckpointError(listed(f"{weights.file}: cannot be imported as {TITLE}", problems))


def _without_cross(tensors: Mapping[str, Tensor], options: Options, problems: list[str]) -> dict[str, Tensor]:
    """Without a decoder's attention to a source, which decoder_only does not have: its weights must be untrained."""
    cross = [name for name in tensors if CROSS.match(name)] if side_of(options) == "decoder" else []
    for name in cross:
        start = UNTRAINED.get(name.split(".", 3)[-1])
        if start is not None and not bool((tensors[name] == start).all()):
            problems.append(f"{printable(name)}: was trained, and what decoder_only lets it attend to is not known")
    return {name: tensor for name, tensor in tensors.items() if name not in cross}


def _fitting(tensors: Mapping[str, Tensor], options: Options, problems: list[str]) -> list[Piece]:
    """The pieces of our policy; `problems` gains a line for each tensor or size that does not fit the options."""
    counts = counted(options, tensors)
    # A head's layers are no more than there are tensors, whatever the configuration says.
    depth = {"head_n_layers": min(options["head_n_layers"], len(tensors))}
    made = pieces({**options, **counts, **depth}, tensors)
    found = fit(tensors, sources(made))
    problems += found.problems
    for name, size in {**found.sizes, **counts}.items():
        if (said := _said(name, options)) is not None and said != size:
            problems.append(f"{name}: the configuration says {said}, and the weights {size}")
    if not problems and options["attention_type"] == "pyramid":
        problems += _strange_masks(tensors)
    return made


def _said(name: str, options: Options) -> int | None:
    """What the options say of a size."""
    dim = options["embedding_dim"]
    derived = {
        "embedding_dim // 2": dim // 2,
        "embedding_dim / n_heads": dim // options["n_heads"],
        "branch width": branch_width(options),
    }
    return derived.get(name, options.get(name))


def _strange_masks(tensors: Mapping[str, Tensor]) -> list[str]:
    """The masks that pyramids store are those that ours computes."""
    masks = {name: tensor for name, tensor in tensors.items() if name.endswith(".masks")}
    return [
        f"{printable(name)}: are other masks than heads of a pyramid have"
        for name, mask_LTT in masks.items()
        if mask_LTT.shape[1] > 4096 or not torch.equal(mask_LTT.float(), scales(*mask_LTT.shape[:2]))
    ]


def _notes(options: Options, unmasked: bool, cross: bool) -> list[str]:
    notes = ["the heads' activation is stored nowhere: GELU was taken"] if options["head_n_layers"] else []
    if options["attention_type"] == "pyramid":
        notes.append(_note_on_masks(options, unmasked))
    if cross:
        notes.append("left behind: the decoder's attention to a source, which was never trained")
    if (temperature := options["temperature"]) != 1:
        where = "model.components.policy.temperature"
        notes.append(f"logits are the original's forward: to act with its temperature too, set {where}={temperature:g}")
    return notes


def _note_on_masks(options: Options, unmasked: bool) -> str:
    if options["architecture"] == "encoder_only":
        return "steps see later ones of their window: the original's pyramid attention ignored its mask"
    if unmasked:
        return "steps see later ones of their window, as in the original, which ignored its mask: encoder_only here"
    return (
        "the original's pyramid attention ignored its mask, and steps saw later ones; here they don't, so outputs "
        "differ where there is more than one block (--unmasked keeps them)"
    )
