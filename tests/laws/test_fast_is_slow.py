"""Law 8: the emitted code equals its slow twin, values and gradients; a snapshot lists what dissolves into it.

`UPDATE_SNAPSHOTS=1 pytest tests/laws/test_fast_is_slow.py` writes the snapshot anew.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from policysmith.graph.trace import trace

from .cases import NAMES, every_case, model_of, results, tensors_of

SNAPSHOT = Path(__file__).parent.parent / "snapshots" / "inlined.txt"


def leaf_inputs(case_id: str) -> list[Tensor]:
    return [t.requires_grad_(t.is_floating_point()) for t in tensors_of(case_id, batch=4)]


def outcome(function: Any, model: torch.nn.Module, inputs: list[Tensor]) -> dict[str, Tensor | None]:
    """Outputs, gradients and buffers after a forward and a backward pass."""
    torch.manual_seed(0)
    outputs = results(function(*inputs))
    found: dict[str, Tensor | None] = {f"output {i}": o.detach().clone() for i, o in enumerate(outputs)}
    if any(o.requires_grad for o in outputs):
        sum((o * torch.linspace(0.5, 2, o.numel()).view(o.shape)).sum() for o in outputs).backward()
    found.update({f"gradient of input {i}": t.grad for i, t in enumerate(inputs)})
    found.update({f"gradient of {n}": p.grad for n, p in model.named_parameters()})
    return found | {f"buffer {n}": b.clone() for n, b in model.named_buffers()}


def assert_same(fast: dict[str, Tensor | None], slow: dict[str, Tensor | None]) -> None:
    assert fast.keys() == slow.keys()
    for name, value in fast.items():
        other = slow[name]
        same = value is other if value is None or other is None else torch.equal(value, other)
        assert same, f"{name}: {value} ≠ {other}"


@every_case
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_emitted_code_equals_the_slow_twin_to_the_last_bit(case_id, training):
    fast, slow = model_of(case_id).train(training), model_of(case_id).train(training)
    for _ in range(2):  # the second call meets what the first one left
        assert_same(outcome(fast, fast, leaf_inputs(case_id)), outcome(slow.slow, slow, leaf_inputs(case_id)))


@every_case
def test_the_bound_form_equals_the_slow_twin(case_id):
    bound, slow = model_of(case_id), model_of(case_id)
    assert_same(outcome(bound.bound(), bound, leaf_inputs(case_id)), outcome(slow.slow, slow, leaf_inputs(case_id)))


@every_case
def test_one_model_is_right_in_both_modes_by_turns(case_id):
    fast = model_of(case_id)
    for training in (True, False, True):
        slow = copy.deepcopy(fast).train(training)
        fast.train(training)
        fast.zero_grad()
        slow.zero_grad()
        assert_same(outcome(fast, fast, leaf_inputs(case_id)), outcome(slow.slow, slow, leaf_inputs(case_id)))


@every_case
def test_inference_mode_gives_the_same_values(case_id):
    model = model_of(case_id).eval()
    tensors = tensors_of(case_id)
    expected = results(model(*tensors))
    with torch.inference_mode():
        found = results(model(*tensors))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def what_stays_a_call(name: str, training: bool) -> str:
    program = model_of(name).train(training).program()
    components = [step.component for step in program._steps]
    leaves = trace(program.body, program.arity, components).leaves
    return ", ".join(dict.fromkeys(type(leaf).__name__ for leaf in leaves)) or "inlined"


def test_which_types_dissolve_into_the_code_is_known():
    lines = []
    for name in NAMES:
        train, evaluation = what_stays_a_call(name, True), what_stays_a_call(name, False)
        said = train if train == evaluation else f"{train} in training, {evaluation} in evaluation"
        lines.append(f"{name}: {said}\n")
    text = "".join(lines)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert text == SNAPSHOT.read_text(encoding="utf-8"), "run with UPDATE_SNAPSHOTS=1 if this is meant"
