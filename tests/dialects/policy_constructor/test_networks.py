"""Named networks become one policy: how they join, where their files are, what is stored, and what is refused."""

from __future__ import annotations

import shutil

import pytest
import torch
import yaml
from gymnasium import spaces
from torch import nn

import policysmith
from policysmith.errors import CheckpointError, ConfigError
from policysmith.registry import Registry, default_registry

BACKBONE = {
    "schema_version": 1,
    "params": {"width": 6},
    "model": {
        "sequential": {
            "inputs": ["image"],
            "layers": [
                {"_type_": "nn.Flatten"},
                {"_type_": "nn.Linear", "in_features": 48, "out_features": "${params.width}"},
            ],
        }
    },
}
EMBEDDER = {
    "inputs": {"proprioception": [3]},
    "components": {"embedding": {"type": "mlp", "in_keys": "proprioception", "hidden": [5]}},
}
DECODER = {
    "schema_version": 1,
    "model": {
        "graph": {
            "inputs": ["backbone", "embedding"],
            "modules": {
                "mean": {"_type_": "nn.Linear", "in_features": 11, "out_features": 2},
                "worth": {"_type_": "nn.Linear", "in_features": 11, "out_features": 1},
            },
            "nodes": [
                {"name": "both", "call": "op:cat", "args": [["$backbone", "$embedding"]], "kwargs": {"dim": 1}},
                {"name": "m", "call": "module:mean", "args": ["$both"]},
                {"name": "w", "call": "module:worth", "args": ["$both"]},
            ],
            "outputs": {"policy": "$m", "value": "$w", "features": "$both"},
        }
    },
}
FILES = {"backbone": BACKBONE, "info_embedder": EMBEDDER, "action_decoder": DECODER}
OBSERVATION = spaces.Dict(image=spaces.Box(0, 1, (3, 4, 4)), proprioception=spaces.Box(-1, 1, (3,)))
ACTION = spaces.Discrete(2)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nets").mkdir()
    for name, config in FILES.items():
        (tmp_path / "nets" / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return tmp_path


def experiment(**model) -> dict:
    paths = {name: f"nets/{name}.yaml" for name in FILES}
    return {"model": {"type": "networks", "component_config_paths": paths, **model}}


def built(folder, seed: int = 0, **model):
    return policysmith.build(experiment(**model), OBSERVATION, ACTION, base_dir=folder, seed=seed).eval()


def told(config, **keys) -> str:
    return "\n".join(
        str(p) for p in policysmith.check(config, observation_space=OBSERVATION, action_space=ACTION, **keys)
    )


def batch(rows: int = 4) -> dict:
    return {"image": torch.rand(rows, 3, 4, 4), "proprioception": torch.rand(rows, 3)}


def test_inputs_read_the_outputs_and_leaves_of_their_names(folder):
    policy, obs = built(folder), batch()
    nets = {name: policy.components[name].module for name in FILES}
    hidden = nets["backbone"](obs["image"]), nets["info_embedder"](obs["proprioception"])
    logits, worth, _ = nets["action_decoder"](*hidden)
    found, value = policy(obs)
    assert torch.allclose(found, logits, atol=1e-6) and torch.allclose(value, worth.squeeze(1), atol=1e-6)


def test_weights_have_the_names_of_the_networks_own_files(folder):
    own = policysmith.build_model(DECODER).state_dict()
    names = set(built(folder).state_dict())
    assert {f"components.action_decoder.{name}" for name in own} < names


def test_what_is_stored_needs_no_file(folder, tmp_path):
    policy, obs = built(folder), batch()
    policysmith.save(policy, tmp_path / "stored")
    shutil.rmtree(folder / "nets")
    again = policysmith.load(tmp_path / "stored")
    assert all(torch.equal(a, b) for a, b in zip(again(obs), policy(obs), strict=True))
    assert "params" not in str(policy.config["model"]) and policy.config["model"]["base_dir"] is None


def test_paths_start_at_the_argument_then_at_base_dir_then_beside_the_file(folder, monkeypatch):
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment()))
    assert not told(file)
    (folder / "moved").mkdir()
    (folder / "nets").rename(folder / "moved" / "nets")
    missing = folder / "nets" / "backbone.yaml"
    assert f"there is no file {missing}; relative paths start at {folder}" in told(file)
    assert not told(file, base_dir=folder / "moved")
    file.write_text(yaml.safe_dump(experiment(base_dir="moved")))
    assert not told(file)
    assert str(folder / "else" / "nets" / "backbone.yaml") in told(file, base_dir=folder / "else")


def test_a_path_in_a_file_that_others_build_on_starts_beside_that_file(folder):
    (folder / "below").mkdir()
    (folder / "base.yaml").write_text(yaml.safe_dump(experiment()))
    (folder / "below" / "top.yaml").write_text("defaults: [../base.yaml]\nseed: 3\n")
    assert not told(folder / "below" / "top.yaml")


def test_problems_inside_a_graph_have_the_place_in_its_own_file(folder):
    (folder / "nets" / "backbone.yaml").write_text(
        "schema_version: 1\nmodel: {sequential: {layers: [{_type_: nn.Linaer}]}}\n"
    )
    text = told(experiment(), base_dir=folder)
    assert "backbone.yaml:2:" in text and "model.component_config_paths.backbone.model" in text and "nn.Linear" in text


def test_a_single_network_is_called_main(folder):
    graph = {
        "components": {
            "policy": {"type": "nn.Linear", "in_keys": "observation", "out_features": 2},
            "value": {"type": "nn.Linear", "in_keys": "observation", "out_features": 1},
        },
        "outputs": ["policy", "value"],
    }
    (folder / "one.yaml").write_text(yaml.safe_dump(graph))
    for source in ({"config": graph}, {"config_path": "one.yaml"}):
        config = {"model": {"type": "networks", **source}}
        policy = policysmith.build(config, spaces.Box(-1, 1, (4,)), ACTION, base_dir=folder)
        assert {n.split(".")[1] for n in policy.state_dict()} == {"main"}


def test_heads_can_read_features(folder):
    head, value = {"type": "action_head", "in_keys": "features"}, {"type": "value_head", "in_keys": ["features"]}
    policy = built(folder, policy=head, value=value)
    assert policy(batch())[0].shape == (4, 2)
    assert policy.plan.node("state_value").sources == ("features",)


def test_wiring_says_what_names_do_not(folder):
    (folder / "nets" / "info_embedder.yaml").write_text(
        yaml.safe_dump({"components": {"embedding": {"type": "mlp", "in_keys": "x", "hidden": [5]}}})  # no inputs: x
    )
    wrong = told(experiment(), base_dir=folder)
    assert "input 'x' of 'info_embedder': nothing gives 'x'" in wrong and "wiring: {info_embedder: {x: …}}" in wrong
    policy = built(folder, wiring={"info_embedder": {"x": "observation.proprioception"}})
    assert policy.plan.node("info_embedder").sources == ("observation.proprioception",)


def test_settings_of_a_network_are_keys_of_its_component(folder):
    args = {"backbone": {"freeze": True, "init": "torch"}, "info_embedder": {"online_update": False}}
    policy = built(folder, component_build_args=args)
    assert not any(p.requires_grad for p in policy.components["backbone"].parameters())
    assert not policy.plan.node("info_embedder").spec.online_update


def test_a_network_is_exchanged_in_a_running_policy_and_stored(folder, tmp_path):
    policy, obs = built(folder), batch()
    policy.replace_component("info_embedder", {"type": "mlp", "hidden": [7, 5]})
    policysmith.save(policy, tmp_path / "stored")
    again = policysmith.load(tmp_path / "stored")
    assert all(torch.equal(a, b) for a, b in zip(again(obs), policy(obs), strict=True))


def test_weights_are_loaded_strictly_and_only_into_new_policies(folder, tmp_path):
    graph = policysmith.build_model(folder / "nets" / "backbone.yaml")
    torch.save(graph.state_dict(), folder / "backbone.pt")
    policy = built(folder, component_build_args={"backbone": {"load": "backbone.pt"}})
    for name, tensor in graph.state_dict().items():
        assert torch.equal(policy.components["backbone"].state_dict()[name], tensor)
    policysmith.save(policy, tmp_path / "stored")
    torch.save({"graph_modules.layer1.weight": torch.zeros(2, 2)}, folder / "backbone.pt")
    with pytest.raises(CheckpointError) as caught:
        built(folder, component_build_args={"backbone": {"load": "backbone.pt"}})
    assert "not the weights of component 'backbone'" in str(caught.value)
    assert "layer1.bias: missing" in str(caught.value) and "(2, 2), expected (6, 48)" in str(caught.value)
    (folder / "backbone.pt").unlink()
    with pytest.raises(CheckpointError, match=str(folder / "backbone.pt")):
        built(folder, component_build_args={"backbone": {"load": "backbone.pt"}})
    policysmith.load(tmp_path / "stored")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"wiring": {"backbon": {"image": "image"}}}, "there is no network 'backbon' (did you mean 'backbone'?)"),
        ({"wiring": {"backbone": {"imag": "image"}}}, "'backbone' has no input 'imag' (did you mean 'image'?)"),
        ({"wiring": {"backbone": {"image": "imag"}}}, "input 'image' of 'backbone': nothing gives 'imag'"),
        ({"policy": "polcy"}, "model.policy: nothing gives 'polcy' (did you mean 'policy'?)"),
        ({"value": {"type": "value_head"}}, "model.value.in_keys: required"),
        ({"component_build_args": {"backbone": {"frozen": True}}}, "unknown setting (did you mean 'freeze'?)"),
        ({"config": {"components": {}}}, "at least one component"),
        ({"component_config_paths": {}}, "needs one of component_config_paths, config, config_path; found none"),
    ],
)
def test_what_is_said_wrongly_is_told(folder, model, words):
    assert words in told(experiment(**model), base_dir=folder)


def test_a_name_that_may_mean_two_things_is_an_error(folder):
    (folder / "nets" / "info_embedder.yaml").write_text(
        yaml.safe_dump({**EMBEDDER, "components": {"image": EMBEDDER["components"]["embedding"]}})
    )
    text = told(experiment(wiring={"action_decoder": {"embedding": "info_embedder"}}), base_dir=folder)
    assert "'image' may be 'info_embedder' of network 'info_embedder' or the leaf 'observation.image'" in text


def test_batch_norm_inside_a_graph_needs_consent(folder):
    layers = [*BACKBONE["model"]["sequential"]["layers"], {"_type_": "nn.BatchNorm1d", "num_features": 6}]
    normed = {**BACKBONE, "model": {"sequential": {"inputs": ["image"], "layers": layers}}}
    (folder / "nets" / "backbone.yaml").write_text(yaml.safe_dump(normed))
    assert "consent with batch_coupled: true" in told(experiment(), base_dir=folder)
    assert not told(experiment(batch_coupled=True), base_dir=folder)


class Pair:
    """A model factory of somebody's own: two dense networks."""

    def __init__(self, width: int = 5) -> None:
        self.width = width

    def build(self, model_config, *, base_dir=None):
        names = model_config.get("names", ["policy", "value"])
        return {name: Net(self.width, size) for name, size in zip(names, (2, 1), strict=True)}


class Net(nn.Module):
    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, size))

    def forward(self, observation):
        return self.body(observation)


@pytest.fixture
def registry() -> Registry:
    registry = default_registry
    registry.register("a_pair_of_networks", slot="model_factory")(Pair)
    yield registry
    del registry._entries["model_factory"]["a_pair_of_networks"]


def test_networks_of_a_registered_factory_become_components(registry, tmp_path):
    config = {"model": {"type": "factory", "factory": {"type": "a_pair_of_networks", "width": 7}}}
    policy = policysmith.build(config, spaces.Box(-1, 1, (4,)), ACTION, seed=1).eval()
    x = torch.randn(3, 4)
    assert torch.allclose(policy(x)[0], policy.components["policy"].module(x))
    assert policy.components["value"].module.body[0].weight.shape == (7, 4)
    policysmith.save(policy, tmp_path / "stored")
    assert torch.equal(policysmith.load(tmp_path / "stored")(x)[0], policy(x)[0])


def test_a_factory_gives_what_networks_do(folder):
    paths = {name: f"nets/{name}.yaml" for name in FILES}
    model = {"type": "factory", "factory": "policy_constructor", "config": {"component_config_paths": paths}}
    policy = policysmith.build({"model": model}, OBSERVATION, ACTION, base_dir=folder, seed=0).eval()
    other, obs = built(folder), batch()
    other.load_state_dict(policy.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(policy(obs), other(obs), strict=True))


def test_a_graph_model_adopted_as_it_is_dissolves_too():
    graph = policysmith.build_model({"inputs": {"x": [4]}, "components": {"out": {"type": "mlp", "in_keys": "x"}}})
    components = {
        "trunk": {"type": "mlp", "in_keys": "observation", "hidden": [64]},
        "policy": {"type": "action_head", "in_keys": "trunk"},
        "state_value": {"type": "value_head", "in_keys": "trunk"},
    }
    config = {"model": {"type": "graph", "components": components}}
    policy = policysmith.build(config, spaces.Box(-1, 1, (4,)), ACTION).eval()
    policy.replace_component("trunk", graph)
    x = torch.randn(3, 4)
    before = policy(x)[0]
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.mul_(2.0)
    assert not torch.allclose(policy(x)[0], before)


def test_what_a_factory_does_wrong_is_told(registry, tmp_path):
    config = {"model": {"type": "factory", "factory": "a_pair_of_networks", "config": {"names": ["one"]}}}
    with pytest.raises(ConfigError, match=r"model\.factory: 'a_pair_of_networks' fails: ValueError"):
        policysmith.build(config, spaces.Box(-1, 1, (4,)), ACTION)
    with pytest.raises(ConfigError, match=r"unknown model_factory 'a_pear'"):
        policysmith.build({"model": {"type": "factory", "factory": "a_pear"}}, OBSERVATION, ACTION)
