"""Law 10: a wrapper with nothing to do is not there, around every registered type and in any order.

Values, gradients, buffers and checkpoints are those of the bare component; what a wrapper adds to the state is named.
"""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from policysmith.graph import GraphModel
from policysmith.graph.assemble import build_modules
from policysmith.graph.component import Component
from policysmith.graph.plan import NodePlan, make_plan
from policysmith.graph.spec import decode_components
from policysmith.registry import default_registry
from policysmith.testing.case import tuple_of
from policysmith.wrappers import (
    Frozen,
    LoRA,
    RegularizedModule,
    SafeModule,
    StatefulModule,
    WeightMonitoringModule,
)
from tests.thinning import thinned

from .cases import IDS, REGISTRY, case_of, config_of, every_case, every_type, input_names, plan_of, tensors_of


class NothingKept(nn.Module):
    """A state manager without a state."""

    in_keys: Sequence[str] = ()
    out_keys: Sequence[str] = ()

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        return {}

    def forward(self, mapping: Any) -> Any:
        return mapping


WRAPPERS: dict[str, Callable[[nn.Module], Component]] = {
    "safe": lambda module: SafeModule(module, action_bounds=(-1e9, 1e9), value_limit=1e9),
    "regularized": lambda module: RegularizedModule(module, 0.0, 0.0),
    "monitoring": lambda module: WeightMonitoringModule(module, clip_value=1e9, every=1),
    "stateful": lambda module: StatefulModule(module, NothingKept()),
}
THREE: list[Any] = ["safe", {"type": "regularized", "l1_scale": 0.1}, {"type": "monitoring", "clip_value": 1.0}]
ORDERS = list(itertools.permutations(WRAPPERS))
KINDS = [SafeModule, RegularizedModule, WeightMonitoringModule]

SPREAD = ORDERS[:: len(ORDERS) // 5]  # all of them by `make test-slow`, the first and the last by `make test`
every_order = pytest.mark.parametrize(
    "order", [SPREAD[0], SPREAD[-1], *(pytest.param(o, marks=pytest.mark.slow) for o in SPREAD[1:-1])], ids="-".join
)
every_mode = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def node_of(case_id: str) -> NodePlan:
    return plan_of(case_id).node("part")


def component_of(case_id: str) -> Component:
    """A case as a component, built anew with the same weights."""
    plan = plan_of(case_id)
    return plan.node("part").component(build_modules(plan, 0)["part"])


def wrapped(component: nn.Module, order: Sequence[str]) -> Any:
    for name in order:
        component = WRAPPERS[name](component)
    return component


def outcome(component: Any, case_id: str) -> dict[str, Any]:
    """What a call gives, the state it writes, gradients of inputs and parameters, and buffers after."""
    mapping: dict[str, Any] = dict(zip(component.in_keys, tensors_of(case_id), strict=True))
    inputs = [t.requires_grad_(t.is_floating_point()) for t in mapping.values()]
    torch.manual_seed(0)
    written = component(dict(mapping))
    states = [f"part/{name}" for name, _ in node_of(case_id).measure.state]
    found = {str(key): written[key] for key in (*component.out_keys, *states)}
    trained = [t for t in found.values() if t.requires_grad]
    if trained:
        torch.autograd.backward(sum((t * torch.linspace(0.5, 2, t.numel()).view(t.shape)).sum() for t in trained))
    found |= {f"gradient of input {i}": t.grad for i, t in enumerate(inputs)}
    found |= {f"gradient of {n}": p.grad for n, p in component.named_parameters()}
    return found | {f"buffer {n}": b.clone() for n, b in component.named_buffers()}


def assert_same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, value in found.items():
        other = expected[name]
        assert (value is None and other is None) or torch.equal(value, other), name


@pytest.mark.parametrize("case_id", thinned(IDS, 2))
@every_mode
@every_order
def test_values_and_gradients_are_those_of_the_bare_component(case_id, training, order):
    bare, around = component_of(case_id).train(training), wrapped(component_of(case_id), order).train(training)
    assert around.training == training
    for _ in range(2):
        assert_same(outcome(around, case_id), outcome(bare, case_id))


@every_case
def test_the_state_is_that_of_the_bare_component_and_moves_both_ways(case_id):
    bare, around = component_of(case_id), wrapped(component_of(case_id), ORDERS[0])
    assert list(around.state_dict()) == list(bare.state_dict())
    changed = {name: t + 1 for name, t in bare.state_dict().items()}
    for target, source in ((around, changed), (bare, around.state_dict())):
        target.load_state_dict(source)
        assert all(torch.equal(t, changed[name]) for name, t in target.state_dict().items())
    doubled = {name: t.double() if t.is_floating_point() else t for name, t in changed.items()}
    around.load_state_dict(doubled, assign=True)
    assert all(p.dtype == torch.float64 for p in around.parameters())
    assert [n for n, _ in around.named_parameters()] == [n for n, _ in bare.named_parameters()]
    assert [n for n, _ in around.named_buffers()] == [n for n, _ in bare.named_buffers()]
    below = [[(n, type(m)) for n, m in one.named_modules() if n not in ("", "state_manager")] for one in (around, bare)]
    assert below[0] == below[1]


@every_type
@pytest.mark.parametrize("copier", ["deepcopy", "pickle"])
def test_a_copy_of_a_nest_is_a_nest_of_a_copy(name, copier):
    around = wrapped(component_of(name), ORDERS[0]).eval()
    twin = copy.deepcopy(around) if copier == "deepcopy" else pickle.loads(pickle.dumps(around))
    assert_same(outcome(twin, name), outcome(around, name))
    with torch.no_grad():
        for tensor in (*twin.parameters(), *twin.buffers()):
            tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
    assert all(t.isfinite().all() for t in around.parameters())
    if list(twin.parameters()):
        with pytest.raises(ValueError, match="NaN"):  # its own weights, through every layer of the nest
            outcome(twin, name)
    twin.double().train()
    assert all(p.dtype == torch.float64 for p in twin.parameters())
    assert twin.module.module.module.module.training and not around.module.module.module.module.training


def model_of(case_id: str, wrappers: Sequence[Any] = ()) -> GraphModel:
    """A case as a graph of one component, with wrappers as a configuration states them."""
    name, case = case_of(case_id)
    config = config_of(name, case)
    config["part"]["wrappers"] = list(wrappers)
    problems: list[str] = []
    plan = make_plan(
        decode_components(config, REGISTRY).components,
        dict(zip(input_names(case), case.inputs, strict=True)),
        lambda path, text: problems.append(f"{path}: {text}"),
        case.context,
    )
    assert plan is not None, problems
    keys = plan.node("part").spec.out_keys
    return GraphModel(plan, build_modules(plan, 0), keys[0] if len(keys) == 1 else keys, 0)


@pytest.mark.parametrize("case_id", thinned(IDS, 2))
@every_mode
def test_three_wrappers_of_a_configuration_change_nothing(case_id, training):
    """Through the program that a model runs, and in what the plan foretells."""
    bare, around = model_of(case_id).train(training), model_of(case_id, THREE).train(training)
    assert [type(m) for m in _nest(around.components["part"])] == KINDS[::-1]
    assert list(around.state_dict()) == list(bare.state_dict())
    found: list[list[Tensor]] = []
    for model in (around, bare):
        torch.manual_seed(0)
        outputs = tuple_of(model(*tensors_of(case_id)))
        for output in outputs:
            if output.requires_grad:
                output.sum().backward(retain_graph=True)
        found.append([*outputs, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    planned, plain = (model.plan.node("part").measure for model in (around, bare))
    assert replace(planned, aux=plain.aux, activation_bytes=plain.activation_bytes) == plain
    assert planned.aux == (*plain.aux, "regularization_loss")


def _nest(component: Any) -> list[Any]:
    nest = []
    while type(component) in KINDS:
        nest.append(component)
        component = component.module
    return nest


@every_case
def test_frozen_is_the_component_as_it_evaluates_without_gradients_of_its_own(case_id):
    bare, frozen = component_of(case_id).eval().requires_grad_(False), Frozen(component_of(case_id)).train()
    assert list(frozen.state_dict()) == list(bare.state_dict())
    assert_same(outcome(frozen, case_id), outcome(bare, case_id))
    assert not any(p.requires_grad for p in frozen.parameters())


def has_linear(case_id: str) -> bool:
    return any(type(m) is nn.Linear for m in build_modules(plan_of(case_id), 0)["part"].modules())


@every_case
@every_mode
def test_deltas_start_without_effect_and_are_all_that_the_state_has_besides(case_id, training):
    bare, around = component_of(case_id).train(training), component_of(case_id)
    if not has_linear(case_id):
        with pytest.raises(ValueError, match="no linear layer matches"):
            LoRA(around)
        return
    adapted = LoRA(around, rank=2).train(training)
    names = [n for n in adapted.state_dict() if not n.rpartition(".")[2].startswith("lora_")]
    assert names == list(bare.state_dict())
    found, expected = outcome(adapted, case_id), outcome(bare, case_id)
    for name, value in expected.items():
        if not name.startswith("gradient of ") or name.startswith("gradient of input "):
            same = value is None and found[name] is None
            assert same or torch.allclose(found[name], value, rtol=1e-4, atol=1e-6), name
    assert all(p.requires_grad == ("lora_" in n) for n, p in adapted.named_parameters())
    adapted.load_state_dict(bare.state_dict())
    plain = adapted.merged()
    assert list(plain.state_dict()) == list(bare.state_dict())


@every_case
def test_merged_the_deltas_are_in_the_weights(case_id):
    """Whoever reads a weight instead of calling its layer sees the delta too, or this would not hold."""
    if not has_linear(case_id):
        return
    adapted = LoRA(component_of(case_id), rank=2).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(0, 0.3)
    with torch.no_grad():
        mapping = dict(zip(adapted.in_keys, tensors_of(case_id), strict=True))
        found, merged, bare = (m(dict(mapping)) for m in (adapted, adapted.merged(), component_of(case_id).eval()))
    for key in adapted.out_keys:
        torch.testing.assert_close(found[key], merged[key], rtol=1e-4, atol=1e-4)
    assert any(not torch.equal(found[key], bare[key]) for key in adapted.out_keys)


@pytest.mark.parametrize("name", default_registry.names("wrapper"))
def test_every_registered_wrapper_is_under_these_laws(name):
    """A new one is added to `WRAPPERS`, or here with the laws of its own above."""
    assert name in {*WRAPPERS, "frozen", "lora"}
