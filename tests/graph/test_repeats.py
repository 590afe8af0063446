"""What a part repeats is multiplied: exactly, whatever its number, and never built in full."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

import pytest
import torch
from torch import Tensor, nn

from policysmith.config.limits import Limits
from policysmith.config.signatures import Repeated
from policysmith.graph.plan import Plan, TensorSpec, make_plan
from policysmith.graph.spec import decode_components
from policysmith.registry import Registry, default_registry
from policysmith.types import Count, Features, Repeats

X = TensorSpec((4,))
ROOM = Limits(memory=2**50, modules=10**12)
built: list[int] = []  # how many layers each build of the parts below made


def planned(options: dict[str, Any], limits: Limits = ROOM, registry: Registry | None = None) -> Plan | str:
    problems: list[str] = []
    specs = decode_components({"part": {"in_keys": "x", **options}}, registry or own_types()).components
    plan = make_plan(specs, {"x": X}, lambda path, message: problems.append(message), limits=limits)
    return plan or "\n".join(problems)


def parameters(options: dict[str, Any]) -> int:
    plan = planned(options)
    assert isinstance(plan, Plan), plan
    return plan.parameter_count


class Stack(nn.Sequential):
    def __init__(self, layers: list[nn.Module]) -> None:
        built.append(len(layers))
        super().__init__(*layers)


def own_types() -> Registry:
    """A registry with the parts that an author of a plugin may write."""
    registry = default_registry.copy()

    @registry.register("stack")
    def stack(features: Features, layers: Repeats = 2) -> nn.Module:
        return Stack([nn.Linear(features, features) for _ in range(layers)])

    @registry.register("turns")
    def turns(features: Features, layers: Annotated[int, Repeated(step=3)] = 3) -> nn.Module:
        return Stack([nn.Linear(features, features, bias=i % 3 == 2) for i in range(layers)])

    @registry.register("growing")
    def growing(features: Features, layers: Repeats = 2) -> nn.Module:
        widths = [features + i for i in range(layers + 1)]
        return Stack([nn.Linear(*pair) for pair in itertools.pairwise(widths)])

    @registry.register("silent")
    def silent(features: Features, layers: Count = 2) -> nn.Module:
        return Stack([nn.Linear(features, features) for _ in range(layers)])

    @registry.register("choosy")
    def choosy(features: Features, layers: Repeats = 2, least: Count = 1) -> nn.Module:
        if layers < least:
            raise ValueError(f"layers={layers} are fewer than least={least}")
        return Stack([nn.Linear(features, features) for _ in range(layers)])

    return registry


@pytest.fixture(autouse=True)
def _counting():
    built.clear()


@pytest.mark.parametrize("layers", [3, 24, 25, 1_000, 10**9])
def test_the_weights_of_any_number_of_layers_are_exact_and_few_are_built(layers):
    assert parameters({"type": "stack", "layers": layers}) == 20 * layers
    assert sum(built) <= 24


@pytest.mark.parametrize("layers", [30, 31, 32, 3_001])
def test_layers_that_differ_in_turn_are_exact_by_their_step(layers):
    assert parameters({"type": "turns", "layers": layers}) == 16 * layers + 4 * (layers // 3)
    assert layers < 100 or sum(built) < 40


def test_layers_that_grow_are_built_in_full_since_no_line_goes_through_them():
    assert parameters({"type": "growing", "layers": 30}) == sum((4 + i + 1) * (4 + i + 1) for i in range(30))


def test_a_part_that_needs_several_is_built_with_as_many():
    assert parameters({"type": "choosy", "layers": 10**6, "least": 20}) == 20 * 10**6
    assert max(built) < 40


def test_what_is_wrong_whatever_the_number_is_told_in_its_own_words():
    assert planned({"type": "choosy", "layers": 50, "least": 60}) == (
        "'choosy' cannot take x (4,): layers=50 are fewer than least=60"
    )


def test_an_option_that_does_not_say_it_repeats_ends_at_a_limit_and_names_the_mark(monkeypatch):
    monkeypatch.setattr("policysmith.graph.measure.MAX_OPERATIONS", 200)
    found = planned({"type": "silent", "layers": 10**9})
    assert isinstance(found, str) and "more than 200 operations" in found and "policysmith.types.Repeats" in found


def test_repeats_within_repeats_multiply():
    def mixture(layers: int, experts: int) -> int:
        feedforward = {"type": "moe", "experts": experts, "expert": {"type": "mlp", "hidden": 5}}
        stack = {"type": "gtrxl", "dim": 4, "layers": layers, "context": 3, "attention": {"type": "mha", "heads": 2}}
        return parameters({**stack, "feedforward": feedforward})

    small = {(layers, experts): mixture(layers, experts) for layers in (2, 3) for experts in (3, 4)}
    of_layer, of_expert = small[3, 3] - small[2, 3], small[2, 4] - small[2, 3]
    assert small[3, 4] - small[2, 4] == of_layer + of_expert // 2  # an expert more in each layer
    assert mixture(40, 1_000) == small[2, 3] + 38 * of_layer + (1_000 - 3) * of_expert // 2 * 40


def test_the_state_of_many_layers_is_named_and_shaped_as_theirs():
    options = {"type": "transformer_memory", "dim": 4, "context": 3, "attention": {"type": "mha", "heads": 2}}
    plan = planned({**options, "layers": 30})
    assert isinstance(plan, Plan)
    node = plan.node("part")
    with torch.device("meta"):
        real = node.part.build(**node.context).initial_state(1)
    assert [(n, s.shape, s.dtype) for n, s in node.measure.state] == [
        (name, tuple(t.shape[1:]), t.dtype) for name, t in real.items()
    ]


def test_a_model_without_room_is_refused_with_what_it_needs_and_what_there_is():
    assert planned({"type": "stack", "layers": 10**6}, Limits(memory=2**20, modules=10**9)) == (
        "'stack' needs 76.3 MiB for weights, there are 1.0 MiB (limits.memory)"
    )
    assert planned({"type": "stack", "layers": 10**6}, Limits(memory=2**50)) == (
        "'stack' has 3,000,001 modules and tensors of weights, allowed are 100,000 (limits.modules)"
    )
    assert max(built) <= 24


def test_a_size_that_64_bits_do_not_hold_is_told_in_plain_words():
    found = planned({"type": "nn.Linear", "out_features": 10**30})
    assert found == "'nn.Linear' cannot take x (4,): a tensor of it would need more than 8 EiB"


def test_a_wrapped_part_is_multiplied_too():
    plain = {"type": "stack", "layers": 10**6}
    assert parameters({**plain, "wrappers": ["regularized"]}) == parameters(plain)
    assert sum(built) <= 48


def test_the_output_of_one_row_counts():
    found = planned({"type": "expand", "size": 10**13}, Limits())
    assert isinstance(found, str) and "TiB for one row of its outputs" in found


def test_tensors_move_through_a_part_that_was_multiplied():
    plan = planned({"type": "stack", "layers": 30})
    assert isinstance(plan, Plan)
    module: Any = plan.node("part").component(plan.node("part").part.build(**plan.node("part").context))
    result: Tensor = module({"x": torch.zeros(2, 4)})["part"]
    assert tuple(result.shape[1:]) == plan.edges["part"].shape
