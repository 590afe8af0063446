"""Laws 2, 8, 11 and 12: what is encoded, emitted, stored, copied or exported is what there was."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from policysmith.graph.spec import decode_components
from policysmith.testing.case import Subject, outcome, require, require_same, tuple_of

__all__ = [
    "compiles_whole",
    "copies_are_independent",
    "emitted_code_is_the_slow_twin",
    "encoding_decodes_to_itself",
    "exports",
    "state_loads_into_another",
]

COPIERS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


def encoding_decodes_to_itself(subject: Subject) -> None:
    """A component as plain data is plain data, and decodes to the same component."""
    graph = decode_components(subject.config, subject.registry)
    data = graph.encode()
    require(json.loads(json.dumps(data)) == data, f"not plain data: {data}")
    require(decode_components(data, subject.registry) == graph, f"it decodes to another component: {data}")


def emitted_code_is_the_slow_twin(subject: Subject) -> None:
    """Values, gradients and buffers, bit for bit, in both modes; and again, on what the first call left."""
    for training in (True, False):
        fast, slow = subject.model().train(training), subject.model().train(training)
        for _ in range(2):
            found = outcome(fast, fast, subject.leaves())
            require_same(found, outcome(slow.slow, slow, subject.leaves()))
    bound, slow = subject.model(), subject.model()
    require_same(outcome(bound.bound(), bound, subject.leaves()), outcome(slow.slow, slow, subject.leaves()))


def state_loads_into_another(subject: Subject) -> None:
    """The state of one model makes another one give its outputs."""
    one, other = subject.model(1).eval(), subject.model(2).eval()
    other.load_state_dict(one.state_dict())
    tensors = subject.tensors()
    for a, b in zip(tuple_of(one(*tensors)), tuple_of(other(*tensors)), strict=True):
        require(torch.equal(a, b), "loaded with the state of another model, it gives other outputs")


def copies_are_independent(subject: Subject) -> None:
    """By deepcopy and by pickle, of a model that was called before and of one that was not."""
    for copier in COPIERS.values():
        model, tensors = subject.model().eval(), subject.tensors()
        fresh = copier(model)
        expected = tuple_of(model(*tensors))
        called = copier(model)
        for twin in (fresh, called):
            require(not twin.training, "a copy forgets that the model evaluates")
            require(list(twin.state_dict()) == list(model.state_dict()), "a copy has other names in its state")
            _require_outputs(twin, tensors, expected)
        _spoil(called)
        _require_outputs(model, tensors, expected)
        _require_outputs(fresh, tensors, expected)
        for found, wanted in zip(tuple_of(called(*tensors)), tuple_of(called.slow(*tensors)), strict=True):
            require(torch.equal(found.isnan(), wanted.isnan()), "a copy's code reads the original's weights")


def exports(subject: Subject) -> None:
    """`torch.export` of the model gives its outputs."""
    model, tensors = subject.model().eval(), subject.tensors()
    program = torch.export.export(model, tuple(tensors))
    torch.testing.assert_close(tuple_of(program.module()(*tensors)), tuple_of(model(*tensors)))


def compiles_whole(subject: Subject) -> None:
    """`torch.compile(fullgraph=True)` gives its outputs."""
    model, tensors = subject.model().eval(), subject.tensors()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(tuple_of(compiled(*tensors)), tuple_of(model(*tensors)))


def _require_outputs(model: nn.Module, tensors: list[torch.Tensor], expected: tuple[torch.Tensor, ...]) -> None:
    for found, wanted in zip(tuple_of(model(*tensors)), expected, strict=True):
        require(torch.equal(found, wanted), "a copy gives other outputs")


@torch.no_grad()
def _spoil(model: nn.Module) -> None:
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
