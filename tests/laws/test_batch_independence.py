"""Law 7: rows of a batch do not influence each other; types whose rows do in training say so."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from policysmith.graph import TensorSpec
from policysmith.policy.factory import make_blueprint
from policysmith.registry import PartSpec

from .cases import REGISTRY, case_of, every_case, input_names, model_of, plan_of, results, tensors_of


def is_flagged(part: PartSpec) -> bool:
    """Whether the type, or a part nested in its options, is `batch_coupled`."""
    nested = [value for value in part.options.values() if isinstance(value, PartSpec)]
    return bool(part.entry.traits.get("batch_coupled")) or any(map(is_flagged, nested))


def other_first_row(tensors: list[Tensor], value: Any = None) -> list[Tensor]:
    """The same rows but for the first, which is filled with a value, or with that of the second row."""
    changed = [t.clone() for t in tensors]
    for tensor in changed:
        tensor[0] = tensor[1] if value is None else value
    return changed


def run(model: torch.nn.Module, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    return results(copy.deepcopy(model)(*tensors))


@every_case
def test_a_row_alone_is_the_row_in_the_batch(case_id):
    model = model_of(case_id).eval().double()  # so that only an influence shows, not another order of addition
    tensors = [t.double() if t.is_floating_point() else t for t in tensors_of(case_id, batch=4)]
    together = run(model, tensors)
    for row in range(4):
        alone = run(model, [t[row : row + 1] for t in tensors])
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], many[row], rtol=1e-9, atol=1e-9)


@every_case
def test_another_row_changes_no_bit_of_this_one(case_id):
    model = model_of(case_id).eval()
    tensors = tensors_of(case_id, batch=4)
    for before, after in zip(run(model, tensors), run(model, other_first_row(tensors)), strict=True):
        assert torch.equal(before[1:], after[1:])


@every_case
def test_a_nan_stays_in_its_row(case_id):
    tensors = tensors_of(case_id, batch=4)
    if not all(t.is_floating_point() for t in tensors):
        pytest.skip("whole numbers are never NaN")
    for output in run(model_of(case_id).eval(), other_first_row(tensors, float("nan"))):
        assert output[1:].isfinite().all()


@every_case
def test_in_training_rows_are_coupled_exactly_where_the_type_says_so(case_id):
    model = model_of(case_id).train()
    tensors = tensors_of(case_id, batch=4)
    before, after = run(model, tensors), run(model, other_first_row(tensors))
    coupled = any(not torch.equal(b[1:], a[1:]) for b, a in zip(before, after, strict=True))
    assert coupled == is_flagged(plan_of(case_id).node("part").part)


def graph_of(case_id: str) -> dict[str, Any]:
    """A policy's components with the case's type between its inputs and the heads; heads stand for themselves."""
    name, case = case_of(case_id)
    role = REGISTRY.entry("component", name).traits.get("role")
    observed = [f"observation.{key}" for key in input_names(case)]
    part = {"type": name, "in_keys": observed, **case.options}
    components = {"part": part} if role is None else {}
    source = "part" if role is None else observed
    heads = {"policy": {"type": "action_head", "in_keys": source}, "value": {"type": "value_head", "in_keys": source}}
    return {**components, **heads, **({role: part} if role else {})}


def refusals(case_id: str, consent: bool) -> list[str]:
    """What is wrong with a policy of the case's type, wherever batch coupling is the reason."""
    case = case_of(case_id)[1]
    space = spaces.Dict({key: _space(spec) for key, spec in zip(input_names(case), case.inputs, strict=True)})
    found: list[str] = []
    model = REGISTRY.decode("model", {"type": "graph", "components": graph_of(case_id), "batch_coupled": consent})
    make_blueprint(model, space, spaces.Discrete(3), lambda path, text: found.append(text), REGISTRY)
    return [text for text in found if "batch_coupled: true" in text]


def _space(spec: TensorSpec) -> spaces.Space[Any]:
    if spec.categories is not None:
        return spaces.MultiDiscrete(spec.categories) if spec.shape else spaces.Discrete(spec.categories[0])
    return spaces.Box(0, 1, spec.shape, np.float32)


@every_case
def test_a_policy_refuses_exactly_the_types_that_couple_rows_unless_told(case_id):
    coupled = is_flagged(plan_of(case_id).node("part").part)
    assert len(refusals(case_id, consent=False)) == coupled
    assert refusals(case_id, consent=True) == []
