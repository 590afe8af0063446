"""Law 8: the emitted code equals its slow twin, values and gradients; a snapshot lists what dissolves into it.

`UPDATE_SNAPSHOTS=1 pytest tests/laws/test_fast_is_slow.py` writes the snapshot anew.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path

import torch

from policysmith.compile.trace import trace
from policysmith.testing.case import outcome, require_same, tuple_of

from .cases import NAMES, every_case, model_of, subject_of, tensors_of

SNAPSHOT = Path(__file__).parent.parent / "snapshots" / "inlined.txt"


@every_case
def test_one_model_is_right_in_both_modes_by_turns(case_id):
    fast = model_of(case_id)
    for training in (True, False, True):
        slow = copy.deepcopy(fast).train(training)
        fast.train(training)
        fast.zero_grad()
        slow.zero_grad()
        require_same(
            outcome(fast, fast, subject_of(case_id).leaves()), outcome(slow.slow, slow, subject_of(case_id).leaves())
        )


@every_case
def test_inference_mode_gives_the_same_values(case_id):
    model = model_of(case_id).eval()
    tensors = tensors_of(case_id)
    expected = tuple_of(model(*tensors))
    with torch.inference_mode():
        found = tuple_of(model(*tensors))
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
