"""What schema version 1 builds: networks, their weights and names, and calls in every form."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import nn
from torch.nn.parameter import is_lazy

from policysmith.errors import ShapeError
from policysmith.graph import GraphModel, TensorSpec, build_model
from policysmith.registry import default_registry

X = torch.linspace(-1, 1, 12).view(3, 4)
LINEAR = {"_type_": "nn.Linear", "_args_": [4, 4]}

TEXT = """\
schema_version: 1
params: {width: 8, act: {_type_: nn.SiLU}}
templates:
  dense: {_type_: nn.Linear, in_features: 4, out_features: "${params.width}"}
model:
  graph:
    inputs: [x, y]
    modules:
      left: {_template_: dense}
      right: {_template_: dense, bias: false}
      act: ${params.act}
      head: {_type_: nn.Linear, _args_: ["${params.width}"], _kwargs_: {out_features: 2}, _name_: head}
    nodes:
      - {name: a, call: module:left, args: [$x]}
      - {name: b, call: module:right, kwargs: {input: $y}}
      - {name: c, call: op:mul, args: [$a, $b]}
      - {name: d, call: module:act, args: [$c]}
      - {name: e, call: op:add, args: [$d, 1.0]}
      - {name: f, call: module:head, args: [$e]}
      - {name: g, call: module:act, args: [$f]}
    outputs: {logits: $f, value: g}
"""


def graph(**changes: Any) -> dict[str, Any]:
    return {"schema_version": 1, "model": {"graph": changes}}


def sequential(*layers: Any, **changes: Any) -> dict[str, Any]:
    return {"schema_version": 1, "model": {"sequential": {"layers": list(layers), **changes}}}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "graph.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- the network -------------------------------------------------------------------------------------------------


def test_a_graph_computes_what_its_text_says(file):
    model = build_model(file, seed=0)
    modules: Any = model.graph_modules
    hidden = F.silu(modules.left(X) * modules.right(2 * X)) + 1.0
    logits = modules.head(hidden)
    for _ in range(2):  # the first call, and the emitted code
        found = model(X, 2 * X)
        assert list(found) == ["logits", "value"]
        torch.testing.assert_close(found["logits"], logits, rtol=0, atol=1e-6)
        torch.testing.assert_close(found["value"], F.silu(logits), rtol=0, atol=1e-6)
    assert type(model) is GraphModel
    assert modules.right.bias is None


def test_the_emitted_code_is_inlined_and_equals_the_slow_twin_in_values_and_gradients(file):
    model = build_model(file, seed=0)
    model(X, X)
    assert model.code.count("linear(") == 3 and "m0(" not in model.code
    gradients = []
    for run in (model, model.slow, model.bound()):
        model.zero_grad()
        found = run(X, 2 * X)
        (found["logits"].square().sum() + found["value"].sum()).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_weights_have_the_names_of_the_original():
    model = build_model(sequential(LINEAR, {"_type_": "nn.ReLU"}, LINEAR))
    assert list(model.state_dict()) == [f"graph_modules.layer{i}.{n}" for i in (0, 2) for n in ("weight", "bias")]
    assert model.inputs == ("x",)
    assert set(build_model(sequential(LINEAR), inputs={"x": [4]}).plan.edges) == {"x", "h0"}


def test_blocks_have_the_names_of_the_original():
    block = {"_type_": "residual_block", "in_channels": 3, "out_channels": 5}
    names = set(build_model(sequential(block)).state_dict())
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {
        f"{part}.{name}"
        for part in ("main1", "main2", "skip")
        for name in ("conv.weight", *(f"norm.{n}" for n in norm))
    }
    assert names == {f"graph_modules.layer0.{name}" for name in expected}
    mlp = build_model(sequential({"_type_": "mlp", "dims": [4, 8, 2], "dropout": 0.1}))
    assert list(mlp.state_dict()) == [f"graph_modules.layer0.net.{i}.{n}" for i in (0, 3) for n in ("weight", "bias")]


def test_sequential_in_all_its_forms():
    layers = [LINEAR, {"_type_": "nn.ReLU"}]
    x = build_model(sequential(*layers), seed=0)
    named = build_model(
        sequential(*layers, inputs=["obs"], outputs={"first": "$h0", "last": "h1", "in": "obs"}), seed=0
    )
    several = build_model(sequential(*layers, outputs=["h1", "h0"]), seed=0)
    one = build_model(sequential(*layers, outputs=["h1"], **{"return": "tuple"}), seed=0)
    assert torch.equal(named(obs=X)["last"], x(X)) and torch.equal(named(X)["in"], X)
    assert torch.equal(several(X)[0], x(X)) and isinstance(several(X), tuple)
    assert isinstance(one(X), tuple) and len(one(X)) == 1


def test_steps_nodes_and_a_mapping_with_its_order_are_one_graph():
    nodes = [
        {"name": "h", "call": "module:a", "args": ["$x"]},
        {"name": "z", "call": "op:cat", "args": [["$h", "$x"]], "kwargs": {"dim": 1}},
    ]
    common = {"inputs": ["x"], "modules": {"a": LINEAR}, "outputs": ["z"]}
    steps = [{**{k: v for k, v in n.items() if k != "name"}, "out": n["name"]} for n in nodes]
    mapping = {n["name"]: {k: v for k, v in n.items() if k != "name"} for n in reversed(nodes)}
    models = [
        build_model(graph(**common, **form), seed=0)
        for form in ({"nodes": nodes}, {"steps": steps}, {"nodes": mapping, "order": ["h", "z"]})
    ]
    assert all(torch.equal(m(X), models[0](X)) for m in models)
    assert models[0](X).shape == (3, 8)


def test_results_are_taken_apart_by_place_and_by_key():
    registry = default_registry.copy()
    registry.register("halves", slot="op")(lambda x: x.chunk(2, -1))
    registry.register("named", slot="op")(lambda x, by: {"twice": by * x, "rest": x})
    config = graph(
        inputs=["x"],
        nodes=[
            {"name": "n", "call": "op:halves", "args": ["$x"], "out": ["left", "right"]},
            {"name": "m", "call": "op:named", "args": ["$left"], "kwargs": {"by": 2},
             "out": {"twice": "t", "rest": "r"}},
            {"name": "q", "call": "op:stack", "args": [["$t", "$right"]], "kwargs": {"dim": 0}},
            {"name": "k", "call": "op:getitem", "args": ["$q", 1]},
        ],
        outputs=["q", "r", "k"],
    )  # fmt: skip
    model = build_model(config, registry)
    for _ in range(2):
        q, r, k = model(X)
        assert torch.equal(q, torch.stack([2 * X[:, :2], X[:, 2:]]))
        assert torch.equal(r, X[:, :2]) and torch.equal(k, X[:, 2:])


def test_an_operation_of_the_users_is_called_and_not_traced_through():
    registry = default_registry.copy()
    seen = []

    def positive(x):
        seen.append(type(x))
        return x if x.sum() > 0 else -x

    registry.register("positive", slot="op")(positive)
    model = build_model(
        graph(inputs=["x"], nodes=[{"name": "p", "call": "op:positive", "args": ["$x"]}], outputs=["p"]), registry
    )
    for x in (X + 1, X - 1, X - 1):
        assert model(x).sum() > 0
    assert seen == [torch.Tensor] * 3


def test_the_escape_is_a_plain_dollar_and_works_when_run():
    registry = default_registry.copy()
    texts = []
    registry.register("note", slot="op")(lambda x, *words, **named: (texts.append((words, named)), x)[1])
    node = {
        "name": "n",
        "call": "op:note",
        "args": ["$x", "$$x", "$$", "a$b", ["$$$y"]],
        "kwargs": {"k": {"deep": "$$x"}},
    }
    model = build_model(graph(inputs=["x"], nodes=[node], outputs=["n"]), registry)
    model(X), model(X)
    assert texts == [(("$x", "$", "a$b", ["$$y"]), {"k": {"deep": "$x"}})] * 2


def test_a_module_that_is_called_twice_has_one_set_of_weights():
    nodes = [{"name": "h", "call": "module:a", "args": ["$x"]}, {"name": "k", "call": "module:a", "args": ["$h"]}]
    model = build_model(graph(inputs=["x"], modules={"a": LINEAR}, nodes=nodes, outputs=["k"]))
    a = model.graph_modules["a"]
    assert len(list(model.parameters())) == 2
    for _ in range(2):
        torch.testing.assert_close(model(X), a(a(X)), rtol=0, atol=1e-6)
    model(X).sum().backward()
    expected = torch.autograd.grad(a(a(X)).sum(), a.weight)[0]
    torch.testing.assert_close(a.weight.grad, expected, rtol=0, atol=1e-5)


def test_registered_types_of_ours_and_of_the_users_are_types_here():
    registry = default_registry.copy()

    class Times(nn.Module):
        def __init__(self, inner: nn.Module, by: float = 2.0) -> None:
            super().__init__()
            self.inner, self.by = inner, by

        def forward(self, x):
            return self.by * self.inner(x)

    registry.register("times")(Times)
    model = build_model(
        sequential(
            {"_type_": "times", "inner": {"_type_": "nn.Tanh"}, "by": 3},
            {"_type_": "nn.RMSNorm", "normalized_shape": 4},
        ),
        registry,
    )
    torch.testing.assert_close(model(X), F.rms_norm(3 * X.tanh(), (4,)), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="unknown module type 'times'"):
        build_model(sequential({"_type_": "times"}))


def test_a_users_type_under_a_name_of_version_1_is_the_users():
    registry = default_registry.copy()
    registry.register("conv_bn_act")(nn.Tanh)
    assert torch.equal(build_model(sequential({"_type_": "conv_bn_act"}), registry)(X), X.tanh())


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ({"_type_": "nn.Identity"}, (4,)),
        ({"_type_": "nn.Linear", "_args_": [4, 3]}, (4,)),
        ({"_type_": "nn.LazyLinear", "out_features": 3, "bias": False}, (4,)),
        ({"_type_": "nn.Conv1d", "_args_": [2, 3, 3], "padding": "same"}, (2, 6)),
        ({"_type_": "nn.Conv2d", "_args_": [2, 4, [3, 3]], "padding": [1, 1], "padding_mode": "reflect"}, (2, 5, 5)),
        ({"_type_": "nn.LazyConv2d", "out_channels": 3, "kernel_size": 3}, (2, 5, 5)),
        ({"_type_": "nn.BatchNorm1d", "num_features": 4, "momentum": None}, (4,)),
        ({"_type_": "nn.BatchNorm2d", "num_features": 2, "track_running_stats": False}, (2, 5, 5)),
        ({"_type_": "nn.LayerNorm", "normalized_shape": [2, 6], "eps": 1e-3}, (2, 6)),
        ({"_type_": "nn.GroupNorm", "num_groups": 2, "num_channels": 4}, (4, 3)),
        ({"_type_": "nn.ReLU", "inplace": False}, (4,)),
        ({"_type_": "nn.GELU", "approximate": "tanh"}, (4,)),
        ({"_type_": "nn.SiLU"}, (4,)),
        ({"_type_": "nn.Dropout", "p": 0.5}, (4,)),
        ({"_type_": "nn.Dropout2d", "p": 0.5}, (2, 5, 5)),
        ({"_type_": "nn.Flatten", "start_dim": 1}, (2, 6)),
        ({"_type_": "conv_bn_act", "in_channels": None, "out_channels": 3}, (2, 5, 5)),
        ({"_type_": "mlp", "dims": [None, 5, 2], "final_activation": {"_type_": "nn.Tanh"}}, (4,)),
        ({"_type_": "residual_block", "in_channels": 2, "stride": 2}, (2, 6, 6)),
    ],
    ids=lambda value: value["_type_"] if isinstance(value, dict) else "",
)  # fmt: skip
def test_every_type_of_the_list_builds_runs_and_plans_what_it_gives(spec, shape):
    model = build_model(sequential(spec), inputs={"x": shape}, seed=0).eval()
    x = torch.linspace(-1, 1, 3 * torch.Size(shape).numel()).view(3, *shape)
    first, second = model(x), model.slow(x)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)
    assert model.plan.edges["h0"].shape == first.shape[1:]


# --- weights -----------------------------------------------------------------------------------------------------


def test_weights_are_those_that_torch_draws():
    torch.manual_seed(3)
    model = build_model(sequential(LINEAR, {"_type_": "nn.Conv2d", "_args_": [2, 3, 3]}))
    torch.manual_seed(3)
    linear, conv = nn.Linear(4, 4), nn.Conv2d(2, 3, 3)
    assert same_weights(model.graph_modules["layer0"], linear) and same_weights(model.graph_modules["layer1"], conv)


def test_with_a_seed_a_further_module_leaves_the_others_as_they_were():
    first = build_model(sequential(LINEAR, LINEAR), seed=3)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    second = build_model(sequential(LINEAR, LINEAR, LINEAR), seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())
    assert not same_weights(first.graph_modules["layer0"], first.graph_modules["layer1"])
    assert not same_weights(first, build_model(sequential(LINEAR, LINEAR), seed=4))


def test_lazy_modules_are_made_by_inputs_or_by_the_first_call_with_the_same_weights():
    config = sequential({"_type_": "mlp", "dims": [None, 8, 2]}, {"_type_": "nn.LazyLinear", "out_features": 3})
    waiting, planned = build_model(config, seed=0), build_model(config, seed=0, inputs={"x": TensorSpec((4,))})
    assert any(is_lazy(p) for p in waiting.parameters()) and not any(is_lazy(p) for p in planned.parameters())
    assert sum(p.numel() for p in planned.parameters()) == 4 * 8 + 8 + 8 * 2 + 2 + 2 * 3 + 3
    with pytest.raises(ShapeError, match="call the model once, or build it with inputs="):
        _ = waiting.code
    state = torch.get_rng_state()
    assert torch.equal(waiting(X), planned(X))
    assert torch.equal(torch.get_rng_state(), state)
    assert same_weights(waiting, planned) and waiting.plan == planned.plan
    assert type(waiting.graph_modules["layer1"]) is nn.Linear
    copied = copy.deepcopy(build_model(config, seed=0))
    assert torch.equal(copied(X), planned(X))


def test_lazy_weights_can_be_loaded_before_there_are_inputs():
    config = sequential({"_type_": "nn.LazyLinear", "out_features": 3})
    trained = build_model(config, inputs={"x": [4]}, seed=1)
    fresh = build_model(config)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(X), trained(X))


def test_planning_touches_neither_statistics_nor_modes():
    config = sequential({"_type_": "nn.BatchNorm1d", "num_features": 4}, {"_type_": "nn.Dropout", "p": 0.5})
    torch.manual_seed(1)
    state = torch.get_rng_state()
    model = build_model(config, inputs={"x": [4]}, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training and int(model.graph_modules["layer0"].num_batches_tracked) == 0
    model(X)
    assert int(model.graph_modules["layer0"].num_batches_tracked) == 1
    model.eval()
    model(X)
    assert int(model.graph_modules["layer0"].num_batches_tracked) == 1


def test_a_convolution_under_a_norm_has_no_bias_unless_it_is_asked_for():
    spec = {"_type_": "conv_bn_act", "in_channels": 2, "out_channels": 3}
    assert build_model(sequential(spec)).graph_modules["layer0"].conv.bias is None
    assert build_model(sequential({**spec, "bias": True})).graph_modules["layer0"].conv.bias is not None


def test_each_layer_of_an_mlp_has_an_activation_of_its_own():
    model = build_model(sequential({"_type_": "mlp", "dims": [4, 4, 4, 4], "activation": {"_type_": "nn.PReLU"}}))
    slopes = [m for m in model.modules() if isinstance(m, nn.PReLU)]
    assert len({id(m) for m in slopes}) == len({m.weight.data_ptr() for m in slopes}) == 2


def test_two_builds_share_nothing():
    config = sequential({"_type_": "mlp", "dims": [4, 4, 4], "activation": {"_type_": "nn.PReLU"}})
    first, second = build_model(config, seed=0), build_model(config, seed=0)
    assert not {id(m) for m in first.modules()} & {id(m) for m in second.modules()}
    assert same_weights(first, second)


# --- calls and copies --------------------------------------------------------------------------------------------


def test_inputs_are_taken_by_place_and_by_name_and_wrong_ones_refused(file):
    model = build_model(file, seed=0)
    expected = model(X, 2 * X)["value"]
    for found in (model(X, y=2 * X), model(y=2 * X, x=X)):
        assert torch.equal(found["value"], expected)
    for args, kwargs, text in [
        ((X,), {}, "missing input 'y'"),
        ((X, X, X), {}, "3 positional inputs for 2"),
        ((X, X), {"z": X}, "unexpected input 'z'"),
    ]:
        with pytest.raises(ShapeError, match=text):
            model(*args, **kwargs)


def test_copies_exports_and_compiled_models_compute_the_same(file):
    model = build_model(file, inputs={"x": [4], "y": [4]}, seed=0).eval()
    expected = model(X, 2 * X)
    exported = torch.export.export(model, (X, 2 * X)).module()
    unseen = build_model(file, seed=0).eval()
    compiled = torch.compile(unseen, fullgraph=True, backend="aot_eager")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), exported, compiled):
        found = other(X, 2 * X)
        assert list(found) == list(expected)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-6)


def test_hooks_swaps_and_steps_of_an_optimiser_reach_the_code(file):
    model = build_model(file, seed=0)
    model(X, X)
    seen = []
    handle = model.graph_modules["head"].register_forward_hook(lambda *_: seen.append(1))
    model(X, X)
    handle.remove()
    assert seen == [1]
    model.graph_modules["head"] = nn.Linear(8, 2)
    torch.testing.assert_close(model(X, X)["logits"], model.slow(X, X)["logits"], rtol=0, atol=1e-6)
    before = model(X, X)["logits"]
    with torch.no_grad():
        model.graph_modules["left"].weight.mul_(2)
    assert not torch.equal(model(X, X)["logits"], before)


def test_an_output_may_be_an_input_and_inputs_need_no_batch_axis():
    model = build_model(
        graph(inputs=["x", "s"], nodes=[{"name": "y", "call": "op:mul", "args": ["$x", "$s"]}], outputs=["y", "x"])
    )
    for _ in range(2):
        y, x = model(X, torch.tensor(3.0))
        assert torch.equal(y, 3 * X) and torch.equal(x, X)
    assert model.plan.edges["s"].shape == ()


# --- sources -----------------------------------------------------------------------------------------------------


def test_a_file_a_mapping_and_a_dictconfig_are_alike(file):
    data = OmegaConf.to_container(OmegaConf.load(file))
    models = [build_model(source, seed=0) for source in (file, str(file), data, OmegaConf.create(data))]
    assert all(same_weights(m, models[0]) for m in models)
    assert torch.equal(build_model("graph.yaml", base_dir=file.parent, seed=0)(X, X)["value"], models[0](X, X)["value"])


def test_both_grammars_give_one_kind_of_model(tmp_path):
    native = {
        "format": 1,
        "inputs": {"x": [4]},
        "components": {"layer0": {"type": "nn.Linear", "in_keys": "x", "out_features": 3}},
    }
    ours, theirs = (
        build_model(native, seed=0),
        build_model(sequential({"_type_": "nn.Linear", "_args_": [4, 3]}), seed=0),
    )
    assert type(ours) is type(theirs)
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(X), theirs(X))


SCRIPT = """
import hashlib, sys, policysmith
model = policysmith.build_model(sys.argv[1], seed=0)
text = repr([(n, t.tolist()) for n, t in model.state_dict().items()])
print(list(model.state_dict())[0], hashlib.sha256(text.encode()).hexdigest())
"""


@pytest.mark.slow
def test_order_and_weights_after_a_merge_depend_on_no_hash_seed(tmp_path):
    base = {f"m{i}": {"_type_": "nn.Linear", "_args_": [2, 2]} for i in (3, 1, 2)}
    over = {f"m{i}": {"_type_": "nn.Linear", "_args_": [2, 2]} for i in (9, 4, 1)}
    nodes = [{"name": f"h{i}", "call": f"module:m{i}", "args": ["$x"]} for i in (1, 2, 3, 4, 9)]
    (tmp_path / "base.yaml").write_text(json.dumps({"model": {"graph": {"modules": base}}}), encoding="utf-8")
    config = {"defaults": ["base.yaml"], **graph(inputs=["x"], modules=over, nodes=nodes, outputs=["h1"])}
    (tmp_path / "v1.yaml").write_text(json.dumps(config), encoding="utf-8")
    model = build_model(tmp_path / "v1.yaml")
    assert list(model.graph_modules) == ["m3", "m1", "m2", "m9", "m4"]  # the base's order, then the upper one's
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "v1.yaml")],
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    first, second = (run.communicate()[0] for run in runs)
    assert first == second and first.startswith("graph_modules.m3")
