"""The plan: shapes, costs and errors before a weight is allocated."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
import torch
from torch import nn

from policysmith.config.limits import Limits
from policysmith.graph import Plan, TensorSpec
from policysmith.graph.assemble import build_modules
from policysmith.graph.plan import make_plan
from policysmith.graph.spec import decode_components
from policysmith.registry import Infer, Registry, default_registry

X = TensorSpec((4,))
IMAGE = TensorSpec((3, 8, 8))
LINEAR = {"type": "nn.Linear", "in_keys": "x", "out_features": 3}


def planned(
    components: Any,
    registry: Registry = default_registry,
    context: Any = None,
    limits: Any = None,
    **inputs: TensorSpec,
) -> Plan:
    found: list[object] = []
    specs = decode_components(components, registry).components
    plan = make_plan(specs, inputs, lambda *problem: found.append(problem), context, limits)
    assert plan is not None and not found, found
    return plan


def problems(
    components: Any, registry: Registry = default_registry, context: Any = None, **inputs: TensorSpec
) -> dict[tuple[str, ...], str]:
    found: dict[tuple[str, ...], str] = {}
    specs = decode_components(components, registry).components
    assert make_plan(specs, inputs, found.__setitem__, context) is None
    return found


def registry_with(name: str, part: Any) -> Registry:
    registry = default_registry.copy()
    registry.register(name)(part)
    return registry


# --- what a plan knows -------------------------------------------------------------------------------------------


def test_every_edge_has_a_shape_and_a_dtype():
    plan = planned({"a": LINEAR, "b": {"type": "to_float", "in_keys": "n"}}, x=X, n=TensorSpec((2,), torch.int64))
    assert plan.edges == {
        "x": X,
        "n": TensorSpec((2,), torch.int64),
        "a": TensorSpec((3,), torch.float32),
        "b": TensorSpec((2,), torch.float32),
    }
    assert [node.name for node in plan.nodes] == ["a", "b"]
    assert plan.inputs == {"x": X, "n": TensorSpec((2,), torch.int64)}


def test_parameters_flops_and_bytes_are_those_of_one_row():
    measure = planned({"a": LINEAR}, x=X).node("a").measure
    assert measure.parameters == 15
    assert measure.parameter_bytes == 60
    assert measure.flops == 2 * 4 * 3
    assert measure.activation_bytes == 3 * 4
    assert (measure.buffers, measure.buffer_bytes) == (0, 0)


def test_a_spec_knows_its_size():
    assert TensorSpec((3, 4), torch.uint8).features == 12
    assert TensorSpec((3, 4), torch.uint8).bytes == 12
    assert TensorSpec(()).features == 1
    assert TensorSpec((), torch.int64).bytes == 8


def test_planning_costs_no_memory_even_for_a_giant():
    wide = {"type": "nn.Linear", "in_keys": "x", "out_features": 2_000_000}
    room = Limits(memory=2**50)
    plan = planned({"a": wide, "b": {"type": "nn.Linear", "in_keys": "a", "out_features": 2_000_000}}, limits=room, x=X)
    assert plan.parameter_count == 4 * 2_000_000 + 2_000_000 + 2_000_000 * 2_000_000 + 2_000_000


def test_planning_draws_no_random_number():
    before = torch.get_rng_state()
    planned({"a": {**LINEAR, "out_features": 17}}, x=X)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_inferred_argument_follows_the_inputs():
    plan = planned(
        {
            "joined": {"type": "mlp", "in_keys": ["x", "image"], "hidden": [5]},
            "norm": {"type": "nn.BatchNorm2d", "in_keys": "image"},
            "film": {"type": "film", "in_keys": ["image", "x"]},
            "table": {"type": "embedding", "in_keys": "c", "dim": 2},
        },
        x=X,
        image=IMAGE,
        c=TensorSpec((2,), torch.int64, (5, 7)),
    )
    assert plan.node("joined").context == {"flat_features": 4 + 3 * 64}
    assert plan.node("joined").event_ndims == (1, 3)
    assert plan.node("norm").context == {"channels": 3}
    assert plan.node("norm").event_ndims is None
    assert plan.node("film").context == {"event_shapes": ((3, 8, 8), (4,))}
    assert plan.node("table").context["categories"] == (5, 7)


def test_the_callers_context_is_inferred_too():
    plan = planned({"head": {"type": "action_head", "in_keys": "x"}}, context={"action_layout": ((2, 2),)}, x=X)
    assert plan.edges["head"].shape == (4,)
    assert plan.node("head").role == "policy"


def test_a_plan_is_remembered_for_equal_parts():
    built: list[int] = []

    class Counting(nn.Linear):
        def __init__(self, in_features: Annotated[int, Infer("features")], out_features: int = 2) -> None:
            built.append(1)
            super().__init__(in_features, out_features)

    registry = registry_with("counting", Counting)
    for _ in range(3):
        planned({"a": {"type": "counting", "in_keys": "x"}, "b": {"type": "counting", "in_keys": "x"}}, registry, x=X)
    assert len(built) == 1
    planned({"a": {"type": "counting", "in_keys": "x"}}, registry, x=TensorSpec((5,)))
    assert len(built) == 2


def test_registries_with_different_parts_of_one_name_share_no_plan():
    first = registry_with("part", lambda: nn.Linear(4, 2))
    second = registry_with("part", lambda: nn.Linear(4, 9))
    part = {"a": {"type": "part", "in_keys": "x"}}
    assert planned(part, first, x=X).edges["a"].shape == (2,)
    assert planned(part, second, x=X).edges["a"].shape == (9,)


# --- errors name the edge and the shapes -------------------------------------------------------------------------


def test_a_part_that_cannot_take_its_input_names_edge_and_shape():
    found = problems({"a": {"type": "nn.Conv2d", "in_keys": "x", "out_channels": 4, "kernel_size": 3}}, x=X)
    assert found["a",].startswith("'nn.Conv2d' cannot take x (4,): ")


def test_what_cannot_be_inferred_is_said_with_the_shape():
    assert problems({"a": {"type": "conv", "in_keys": "x"}}, x=X) == {
        ("a",): "'conv' needs an image (C, H, W); it reads x (4,)"
    }
    assert problems({"a": {"type": "embedding", "in_keys": "x"}}, x=X) == {
        ("a",): "'embedding' needs category indices: a Discrete or MultiDiscrete observation; it reads x (4,)"
    }
    assert "needs features, found a scalar" in problems({"a": LINEAR}, x=TensorSpec(()))["a",]


def test_two_inputs_that_do_not_fit_are_both_shown():
    found = problems({"a": {"type": "sum", "in_keys": ["x", "y"]}}, x=X, y=TensorSpec((5,)))
    assert found == {("a",): "'sum' cannot take x (4,), y (5,): sum needs inputs of one shape, found (4,), (5,)"}


@pytest.mark.parametrize("shape", [(84, 84, 3), (210, 160, 1), (64, 64, 4)])
def test_channels_at_the_end_are_suspected(shape):
    part = {"type": "conv", "in_keys": "x", "channels": [8], "kernel_size": 8, "stride": 8}
    found = problems({"a": part}, x=TensorSpec(shape))
    assert found["a",].endswith("(looks like NHWC; expected channels first)")


def test_a_narrow_map_within_a_network_is_not_taken_for_channels_at_the_end():
    found = problems(
        {"a": {"type": "conv", "in_keys": "x", "channels": [8], "kernel_size": 8}}, x=TensorSpec((64, 3, 3))
    )
    assert "cannot take x (64, 3, 3)" in found["a",] and "NHWC" not in found["a",]


def test_a_map_that_is_too_small_is_no_matter_of_layout():
    found = problems({"a": {"type": "nature", "in_keys": "x"}}, x=TensorSpec((3, 20, 20)))
    assert "too small for kernel_size=" in found["a",]
    assert "NHWC" not in found["a",]


def test_a_part_that_loses_the_batch_axis_is_refused():
    class Mean(nn.Module):
        """Forgets the rows."""

        def forward(self, x):
            return x.mean()

    found = problems({"a": {"type": "forgetful", "in_keys": "x"}}, registry_with("forgetful", Mean), x=X)
    assert "its output () lost the batch axis" in found["a",]


def test_a_part_that_mixes_the_batch_axis_into_the_event_is_refused():
    class Swapped(nn.Module):
        """Puts features first."""

        def forward(self, x):
            return x.movedim(0, -1)

    found = problems(
        {"a": {"type": "swapped", "in_keys": "x"}}, registry_with("swapped", Swapped), x=TensorSpec((2, 3))
    )
    assert "lost the batch axis" in found["a",]


def test_a_part_that_gives_no_tensor_is_refused_with_a_sentence():
    class Nothing(nn.Module):
        """Gives a dict."""

        def forward(self, x):
            return {"y": x}

    found = problems({"a": {"type": "nothing", "in_keys": "x"}}, registry_with("nothing", Nothing), x=X)
    assert "'nothing'" in found["a",] and "dict" in found["a",]


def test_a_part_may_make_tensors_without_naming_a_device():
    class Ramp(nn.Module):
        """Adds 0, 1, 2, 3."""

        def forward(self, x):
            return x + torch.arange(4)

    assert planned({"a": {"type": "ramp", "in_keys": "x"}}, registry_with("ramp", Ramp), x=X).edges["a"].shape == (4,)


def test_the_number_of_outputs_is_compared():
    class Two(nn.Module):
        """Two halves."""

        def forward(self, x):
            return x.chunk(2, -1)

    registry = registry_with("two", Two)
    one_name = problems({"a": {"type": "two", "in_keys": "x"}}, registry, x=X)
    assert one_name == {("a", "out_keys"): "1 names for 2 outputs of 'two'"}
    three = problems({"a": {"type": "two", "in_keys": "x", "out_keys": ["p", "q", "r"]}}, registry, x=X)
    assert three == {("a", "out_keys"): "3 names for 2 outputs of 'two'"}
    plan = planned({"a": {"type": "two", "in_keys": "x", "out_keys": ["p", "q"]}}, registry, x=X)
    assert plan.edges["q"].shape == (2,)


def test_a_part_that_needs_more_context_than_there_is_says_which():
    found = problems({"a": {"type": "action_head", "in_keys": "x"}}, x=X)
    assert "needs 'layout' (action_layout), which nothing supplies here" in found["a",]


def test_a_failure_hides_no_other_and_repeats_nothing():
    found = problems(
        {
            "bad": {"type": "conv", "in_keys": "x"},
            "after": {"type": "mlp", "in_keys": "bad"},
            "other": {"type": "embedding", "in_keys": "x"},
        },
        x=X,
    )
    assert set(found) == {("bad",), ("other",)}


def test_problems_of_the_wiring_come_through():
    assert problems({"a": {"type": "mlp", "in_keys": "y"}}, x=X)["a", "in_keys"].startswith("nothing produces 'y'")


def test_an_argument_that_the_part_does_not_have_is_refused():
    found = problems({"a": {"type": "film", "in_keys": {"x": "x", "conditoin": "x"}}}, x=X)
    assert "conditoin" in found["a",]


# --- stated though inferred --------------------------------------------------------------------------------------


def test_a_stated_argument_is_compared_with_what_is_inferred():
    assert planned({"a": {**LINEAR, "in_features": 4}}, x=X).edges["a"].shape == (3,)
    assert problems({"a": {**LINEAR, "in_features": 5}}, x=X) == {
        ("a", "in_features"): "stated as 5, but the inputs give 4"
    }


def test_all_stated_arguments_that_differ_are_reported():
    class Both(nn.Module):
        """Two inferred arguments."""

        def __init__(self, a: Annotated[int, Infer("features")], b: Annotated[int, Infer("flat_features")]) -> None:
            super().__init__()

        def forward(self, x):
            return x

    found = problems({"p": {"type": "both", "in_keys": "x", "a": 1, "b": 2}}, registry_with("both", Both), x=X)
    assert set(found) == {("p", "a"), ("p", "b")}


@pytest.mark.parametrize(
    ("part", "option", "right", "wrong"),
    [
        ({"type": "conv", "in_keys": "image"}, "image_shape", [3, 8, 8], [8, 8, 3]),
        ({"type": "flatten", "in_keys": "image"}, "event_shape", [3, 8, 8], [3, 8, 9]),
        ({"type": "embedding", "in_keys": "c"}, "categories", [5, 7], [5, 8]),
        ({"type": "concat", "in_keys": ["x", "image"]}, "event_shapes", [[4], [3, 8, 8]], [[4], [3]]),
    ],
)
def test_a_stated_shape_is_a_list_and_compared_too(part, option, right, wrong):
    inputs = {"x": X, "image": IMAGE, "c": TensorSpec((2,), torch.int64, (5, 7))}
    planned({"a": {**part, option: right}}, **inputs)
    (path,) = problems({"a": {**part, option: wrong}}, **inputs)
    assert path == ("a", option)


# --- sharing -----------------------------------------------------------------------------------------------------


def test_shared_parameters_count_once():
    plan = planned({"a": LINEAR, "b": {"use": "a", "in_keys": "y"}}, x=X, y=X)
    assert plan.parameter_count == 15
    modules = build_modules(plan, 0)
    assert modules["a"] is modules["b"]
    assert plan.edges["b"].shape == (3,)


def test_a_share_may_be_declared_before_its_owner():
    plan = planned({"b": {"use": "a", "in_keys": "y"}, "a": LINEAR}, x=X, y=X)
    modules = build_modules(plan, 0)
    assert [node.name for node in plan.nodes] == ["b", "a"]
    assert modules["b"] is modules["a"]
    assert torch.equal(modules["a"].weight, build_modules(planned({"a": LINEAR}, x=X), 0)["a"].weight)


def test_shared_weights_do_not_fit_an_input_of_another_width():
    found = problems({"a": LINEAR, "b": {"use": "a", "in_keys": "y"}}, x=X, y=TensorSpec((7,)))
    assert set(found) == {("b",)}
    assert "7" in found["b",] and "'a'" in found["b",]


def test_a_shared_mlp_does_not_fit_more_inputs_than_its_owner():
    mlp = {"type": "mlp", "in_keys": "x"}
    found = problems({"a": mlp, "b": {"use": "a", "in_keys": ["x", "y"]}}, x=X, y=X)
    assert set(found) == {("b",)}


@pytest.mark.parametrize(
    ("use", "text"),
    [("nobody", "which does not exist"), ("b", "'b', which shares itself"), ("c", "'c', which shares itself")],
)
def test_only_a_part_of_its_own_can_be_shared(use, text):
    components = {"a": LINEAR, "b": {"use": use, "in_keys": "x"}, "c": {"use": "a", "in_keys": "x"}}
    found = problems(components, x=X)
    assert text in found["b", "use"]


def test_a_misspelt_share_has_a_suggestion():
    found = problems({"trunk": LINEAR, "b": {"use": "trnuk", "in_keys": "x"}}, x=X)
    assert "did you mean 'trunk'?" in found["b", "use"]
