"""Law 7 for policies: one refuses the types whose rows influence each other in training, unless it is told."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from policysmith.graph import TensorSpec
from policysmith.policy.factory import make_blueprint
from policysmith.testing.rows import is_coupled

from .cases import REGISTRY, case_of, every_case, input_names, plan_of


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
    coupled = is_coupled(plan_of(case_id).node("part").part)
    assert len(refusals(case_id, consent=False)) == coupled
    assert refusals(case_id, consent=True) == []
