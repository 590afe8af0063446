"""Weights of the original YAML policy constructor: its names are a graph's own, but for biases under a norm.

In: a model and what `torch.save` wrote of the original's. Out: the model with these weights, and what was changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from policysmith.compile.model import GraphModel
from policysmith.dialects.policy_constructor.building_blocks import ConvBnAct
from policysmith.errors import CheckpointError, did_you_mean
from policysmith.store.weights_file import Weights, listed, printable

__all__ = ["load_weights"]

TITLE = "the weights of this graph"


def load_weights(model: GraphModel, weights: Weights) -> list[str]:
    """Put the weights into the model; notes on what was changed."""
    tensors = dict(weights.tensors)
    notes = _fold(model, tensors)
    expected = model.state_dict()
    problems = list(_mismatches(expected, tensors))
    if problems:
        raise CheckpointError(listed(f"{weights.file}: are not {TITLE}", problems))
    fitting = {name: t if is_lazy(expected[name]) else t.to(expected[name].dtype) for name, t in tensors.items()}
    try:
        model.load_state_dict(fitting)
    except RuntimeError as error:
        raise CheckpointError(f"{weights.file}: cannot be loaded: {str(error).splitlines()[-1].strip()}") from None
    count = sum(tensor.numel() for tensor in tensors.values())
    return [f"{len(tensors)} tensors were carried over, {count:,} numbers", *notes, *weights.notes()]


def _mismatches(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    missing = [name for name in expected if name not in tensors]
    yield from (f"{name}: missing" for name in missing)
    for name, tensor in tensors.items():
        if name not in expected:
            yield f"{printable(name)}: unexpected{did_you_mean(printable(name), missing)}"
        elif not is_lazy(expected[name]) and tensor.shape != expected[name].shape:
            yield f"{name}: {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"


def _fold(model: nn.Module, tensors: dict[str, Tensor]) -> list[str]:
    """Take the biases of convolutions under a norm into the norm's mean, which they only move: same outputs in eval."""
    folded = 0
    for name, block in model.named_modules():
        bias, mean = f"{name}.conv.bias", f"{name}.norm.running_mean"
        surplus = isinstance(block, ConvBnAct) and block.conv.bias is None and bias in tensors and mean in tensors
        if surplus and tensors[bias].shape == tensors[mean].shape:
            tensors[mean] = tensors[mean] - tensors.pop(bias).to(tensors[mean].dtype)
            folded += 1
    return [f"{folded} biases under a batch norm were taken into its mean"] if folded else []
