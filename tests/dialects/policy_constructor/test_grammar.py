"""Graphs of the original policy constructor, with their weights: in our grammar, or told why not."""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from torch import nn

from policysmith.dialects.policy_constructor.grammar import import_graph, read, write_graph
from policysmith.errors import CheckpointError, ConfigError
from policysmith.graph import build_model

X = torch.linspace(-1, 1, 12).view(3, 4)
GRAPH: dict[str, Any] = {
    "schema_version": 1,
    "params": {"width": 5},
    "model": {
        "graph": {
            "inputs": ["x", "y"],
            "modules": {
                "fc": {"_type_": "nn.LazyLinear", "out_features": "${params.width}"},
                "act": {"_type_": "nn.ReLU", "inplace": True},
                "head": {"_type_": "nn.Linear", "_args_": [10, 2], "_kwargs_": {"bias": False}},
            },
            "nodes": [
                {"name": "a", "call": "module:fc", "args": ["$x"]},
                {"name": "b", "call": "module:act", "args": ["$a"]},
                {"name": "c", "call": "module:fc", "kwargs": {"input": "$y"}},
                {"name": "d", "call": "op:cat", "args": [["$b", "$c"]], "kwargs": {"dim": -1}},
                {"name": "e", "call": "op:identity", "args": ["$d"]},
                {"name": "logits", "call": "module:head", "args": ["$e"]},
                {"name": "twice", "call": "op:add", "args": ["$logits", "$logits"]},
            ],
            "outputs": {"policy": "logits", "sum": "$twice", "wide": "e"},
        }
    },
}
SHAPES = {"x": [4], "y": [4]}


class Malicious:
    """Unpickled, it would make a directory."""

    def __reduce__(self):
        return os.mkdir, ("trace",)


@pytest.fixture
def trained(tmp_path):
    """A model of the configuration, and its weights in a file."""
    model = build_model(GRAPH, inputs=SHAPES, seed=5).eval()
    torch.save(model.state_dict(), tmp_path / "head.pt")
    (tmp_path / "head.yaml").write_text(yaml.safe_dump(GRAPH), encoding="utf-8")
    return model


def test_weights_are_carried_over(trained, tmp_path):
    for inputs in (None, SHAPES):
        model = import_graph(tmp_path / "head.yaml", tmp_path / "head.pt", inputs=inputs)
        assert not model.training
        for name, tensor in model(X, X).items():
            assert torch.equal(tensor, trained(X, X)[name])


def test_what_our_grammar_can_say_is_written_in_it(trained, tmp_path):
    imported = read(tmp_path / "head.yaml", tmp_path / "head.pt", inputs=SHAPES)
    assert imported.obstacles == () and imported.config["format"] == 1
    assert "module 'act': computes out of place" in imported.notes
    stored = write_graph(imported, tmp_path / "new")
    model = build_model(stored / "graph.yaml").eval()
    model.load_state_dict(safetensors.torch.load_file(stored / "model.safetensors"))
    found = model(X, X)
    assert list(found) == ["policy", "sum", "wide"]
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, trained(X, X)[name], rtol=0, atol=1e-6)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in trained.parameters())


def change(**modules: Any) -> dict[str, Any]:
    changed = copy.deepcopy(GRAPH)
    changed["model"]["graph"]["modules"].update(modules)
    return changed


def node(index: int, **changes: Any) -> dict[str, Any]:
    changed = copy.deepcopy(GRAPH)
    changed["model"]["graph"]["nodes"][index].update(changes)
    return changed


@pytest.mark.parametrize(
    ("config", "inputs", "word"),
    [
        (GRAPH, None, "--input"),
        (change(head={"_type_": "mlp", "dims": [10, 2]}), SHAPES, "'mlp' is a type of schema version 1 alone"),
        (change(act={"_type_": "nn.GELU", "approximate": "tanh"}), SHAPES, "approximate"),
        (node(6, call="op:mul"), SHAPES, "op:mul"),
        (node(3, kwargs={"dim": 0}, call="op:stack"), SHAPES, "op:stack"),
        (node(6, args=["$logits", 2.0]), SHAPES, "op:add"),
    ],
    ids=["no shapes", "a block", "an option", "an operation", "stack", "a number"],
)
def test_what_our_grammar_cannot_say_is_told_and_kept_in_the_old_one(config, inputs, word, tmp_path):
    if word == "op:stack":
        config["model"]["graph"]["modules"]["head"]["_args_"] = [5, 2]
    imported = read(config, inputs=inputs)
    assert any(word in obstacle for obstacle in imported.obstacles), imported.obstacles
    assert "params" not in imported.config
    stored = write_graph(imported, tmp_path / "new")
    model = build_model(stored / "graph.yaml").eval()
    if inputs:
        model.load_state_dict(safetensors.torch.load_file(stored / "model.safetensors"))
        for name, tensor in model(X, X).items():
            assert torch.equal(tensor, imported.model(X, X)[name])


def test_a_bias_under_a_batch_norm_is_taken_into_its_mean(tmp_path):
    """The original's convolutions had one; outputs are what they were."""
    conv, norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
    original = nn.Sequential(conv, norm, nn.ReLU())
    for _ in range(3):
        original(torch.randn(8, 2, 6, 6))
    names = {"0": "conv", "1": "norm"}
    state = {f"graph_modules.layer0.{names[n[0]]}{n[1:]}": tensor for n, tensor in original.state_dict().items()}
    torch.save({"model_state_dict": {f"module.{n}": t for n, t in state.items()}, "epoch": 3}, tmp_path / "old.pt")
    layer = {"_type_": "conv_bn_act", "in_channels": 2, "out_channels": 3}
    imported = read({"schema_version": 1, "model": {"sequential": {"layers": [layer]}}}, tmp_path / "old.pt")
    x = torch.randn(4, 2, 6, 6)
    torch.testing.assert_close(imported.model(x), original.eval()(x), rtol=0, atol=1e-5)
    assert any("1 biases under a batch norm" in note for note in imported.notes)
    assert any("left behind: epoch" in note for note in imported.notes)


def test_weights_of_another_graph_are_refused_name_by_name(trained, tmp_path):
    state = trained.state_dict()
    state["graph_modules.head.weights"] = state.pop("graph_modules.head.weight")
    state["graph_modules.fc.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path / "head.yaml", tmp_path / "other.pt", inputs=SHAPES)
    text = str(caught.value)
    assert "graph_modules.head.weight: missing" in text
    assert "graph_modules.head.weights: unexpected (did you mean 'graph_modules.head.weight'?)" in text
    assert "graph_modules.fc.bias: (7,), expected (5,)" in text


def test_code_in_a_checkpoint_is_never_run(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"graph_modules.fc.bias": Malicious()}, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match="refused"):
        read(tmp_path / "head.yaml", tmp_path / "bad.pt")
    assert not (tmp_path / "trace").exists()


def test_our_own_grammar_needs_no_import():
    native = {"format": 1, "inputs": {"x": [4]}, "components": {"a": {"type": "nn.ReLU", "in_keys": "x"}}}
    with pytest.raises(ConfigError, match="needs no import"):
        read(native)


@pytest.mark.parametrize("word", ["0o7", "no", "1e3", "é: x"])
def test_a_text_that_yaml_might_misread_comes_back_as_it_was(word, tmp_path):
    layers = [{"_type_": "nn.Identity", "_name_": word}]
    imported = read({"schema_version": 1, "model": {"sequential": {"layers": layers}}})
    stored = write_graph(imported, tmp_path / "new")
    assert read(stored / "graph.yaml").config == imported.config
