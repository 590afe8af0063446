"""Experts of flowrl compute the same here, under their own numbers; and nothing but arrays is read."""

import json
import pickle

import numpy as np
import pytest
import safetensors.numpy
import torch

import policysmith
from policysmith.dialects.imported import find_importer
from policysmith.errors import CheckpointError
from policysmith.skills import ActorCriticMoE, Expert, MoECheckpoint, SkillLibrary, load_experts
from policysmith.skills.experts.parameter_names import renumbered
from tests.reference.flowrl_experts import flat, forward, random_params

read = find_importer("flowrl")
REMAP = {
    "global_to_local": {"0": 0, "2": 1, "7": 2},
    "local_to_global": {"0": 0, "1": 2, "2": 7},
    "initial_frame_counts": {"0": 100, "2": 200},
    "skill_name": "Make Pickaxe",
    "global_expert_idx": 7,
    "dependencies": ["Collect Wood", "Collect Stone"],
}


@pytest.fixture
def params():
    return random_params(np.random.default_rng(0), experts=3, features=5, actions=4)


def batch(experts, features=5, rows=24):
    rng = np.random.default_rng(1)
    return rng.normal(size=(rows, features)).astype(np.float32), rng.integers(experts, size=rows)


def compare(policy, params, experts, activation=np.tanh):
    x_BD, task_B = batch(experts)
    given = {"observation": torch.from_numpy(x_BD), "task": torch.from_numpy(task_B)}
    for mine, theirs in zip(policy(given), forward(params, x_BD, task_B, activation), strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["npz", "compressed npz", "safetensors", "mapping"])
def test_experts_compute_what_they_did(params, tmp_path, kind):
    file = tmp_path / f"experts.{kind.split()[-1]}"
    if kind == "safetensors":
        safetensors.numpy.save_file(flat(params), file)
    elif kind != "mapping":
        (np.savez if kind == "npz" else np.savez_compressed)(file, **flat(params))
    imported = read(params if kind == "mapping" else file)
    compare(imported.policy, params, 3)
    assert imported.policy.config["model"]["layer_width"] == 8 and sorted(imported.experts) == [0, 1, 2]


def test_twelve_experts_keep_their_own_weights(tmp_path):
    """1 is not 10, and not 11."""
    params = random_params(np.random.default_rng(2), experts=12, features=5, actions=4)
    imported = read(params)
    compare(imported.policy, params, 12)
    for number, tensors in imported.experts.items():
        original = params["params"]["params"][f"actor_networks_{number}"]["layers_2"]
        assert len(tensors) == 16
        np.testing.assert_array_equal(tensors["actor_network.layers_2.weight"].numpy(), original["kernel"].T)
        np.testing.assert_array_equal(tensors["actor_network.layers_2.bias"].numpy(), original["bias"])


def test_other_depths_activations_and_precisions_are_read():
    for layers in (1, 2, 3):
        params = random_params(np.random.default_rng(layers), 2, 5, 4, width=6, layers=layers)
        compare(read(params, activation="relu").policy, params, 2, lambda x: np.maximum(x, 0))
    double = {name: array.astype(np.float64) for name, array in flat(params).items()}
    imported = read(double, activation="relu")
    assert "weights were float64, and are stored as float32" in imported.notes
    assert {t.dtype for t in imported.experts[0].values()} == {torch.float32}


def test_one_expert_by_itself_is_read():
    params = random_params(np.random.default_rng(3), 1, 5, 4)
    tree = params["params"]["params"]
    alone = {"actor_network": tree["actor_networks_0"], "critic_network": tree["critic_networks_0"]}
    compare(read(alone).policy, params, 1)


def test_a_remap_tells_numbers_names_and_frames(params, tmp_path):
    (tmp_path / "remap.json").write_text(json.dumps(REMAP))
    imported = read(params, remap=tmp_path / "remap.json")
    assert sorted(imported.experts) == [0, 2, 7] and imported.skills == {7: "Make Pickaxe"}
    assert imported.frames == {0: 100, 2: 200} and imported.dependencies == ("Collect Wood", "Collect Stone")
    original = params["params"]["params"]["critic_networks_1"]["layers_6"]["kernel"]
    np.testing.assert_array_equal(imported.experts[2]["critic_network.layers_6.weight"].numpy(), original.T)
    two = random_params(np.random.default_rng(0), 2, 5, 4)
    known = {"local_to_global": {"0": 3, "1": 4}, "skill_name": "B", "global_expert_idx": 4, "dependencies": ["A", "B"]}
    assert read(two, remap=known).skills == {3: "A", 4: "B"}, "the only name left is the only number's"


def test_an_imported_expert_goes_on_in_a_library(params, tmp_path):
    library = SkillLibrary(tmp_path)
    imported = read(params)
    for number, tensors in imported.experts.items():
        library.add(Expert(f"Skill {number}", number, tensors))
    model = ActorCriticMoE(4, 8, num_tasks=1, in_features=5)
    load_experts(model, MoECheckpoint(renumbered(imported.experts[2], 0)))
    x_BD, _ = batch(3)
    wanted, _ = forward(params, x_BD, np.full(len(x_BD), 2))
    logits, _ = model(torch.from_numpy(x_BD), torch.zeros(len(x_BD), dtype=torch.long))
    np.testing.assert_allclose(logits.detach().numpy(), wanted, rtol=0, atol=1e-5)


class TestRefusals:
    """What is not read says how it can be."""

    def test_a_pickle_is_never_read(self, params, tmp_path):
        file = tmp_path / "params.pkl"
        file.write_bytes(pickle.dumps(params))
        with pytest.raises(CheckpointError, match=r"a pickle is never read; .*numpy\.savez"):
            read(file)
        np.savez(tmp_path / "objects.npz", **{"params/params/actor_networks_0/layers_0/kernel": np.array([object()])})
        with pytest.raises(CheckpointError, match="cannot be read as arrays"):
            read(tmp_path / "objects.npz")

    @pytest.mark.parametrize(("name", "what"), [("_METADATA", "an orbax checkpoint"), ("notes.txt", "a directory")])
    def test_an_orbax_folder_is_told_how_to_export(self, tmp_path, name, what):
        (tmp_path / name).write_text("{}")
        with pytest.raises(CheckpointError, match=rf"is {what}, .*flatten_dict\(params, sep='/'\)"):
            read(tmp_path)

    @pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 nothing"])
    def test_a_damaged_file_is_named(self, tmp_path, content):
        if content is not None:
            (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"a\.npz: cannot be read as arrays"):
            read(tmp_path / "a.npz")

    def test_everything_that_does_not_fit_is_named_at_once(self, params):
        tree = params["params"]["params"]
        del tree["actor_networks_1"]["layers_2"]["bias"]
        tree["critic_networks_2"]["layers_0"]["kernel"] = np.zeros((9, 8), np.float32)
        tree["my_actor_networks_1"] = {"kernel": np.zeros(2, np.float32)}
        with pytest.raises(CheckpointError) as caught:
            read(params)
        told = str(caught.value)
        assert "actor_networks_1/layers_2/bias: missing" in told and "my_actor_networks_1/kernel: unexpected" in told
        assert "critic_networks_2/layers_0/kernel: float32 (9, 8), expected float (5, 8)" in told

    def test_experts_with_a_gap_and_layers_of_odd_numbers_are_told(self, params):
        tree = params["params"]["params"]
        tree["actor_networks_5"] = tree.pop("actor_networks_1")
        tree["critic_networks_5"] = tree.pop("critic_networks_1")
        with pytest.raises(CheckpointError, match="experts are numbered 0, 2, 5"):
            read(params)
        odd = {name.replace("layers_6", "layers_7"): array for name, array in flat(params).items()}
        with pytest.raises(CheckpointError, match="numbered"):
            read(odd)
        one = flat(random_params(np.random.default_rng(0), 1, 5, 4))
        with pytest.raises(CheckpointError, match="layers_7: layers have even numbers"):
            read({name.replace("layers_6", "layers_7"): array for name, array in one.items()})

    def test_what_holds_no_experts_is_told(self):
        with pytest.raises(CheckpointError, match=r"holds no experts: expected .* found weights"):
            read({"weights": np.zeros(3, np.float32)})
        with pytest.raises(CheckpointError, match="holds int64"):
            read({"params": {"actor_networks_0": np.zeros(3, np.int64)}})
        with pytest.raises(CheckpointError, match="is there twice"):
            read({"a/b": np.zeros(1, np.float32), "params/a/b": np.zeros(1, np.float32)})

    @pytest.mark.parametrize(
        ("change", "told"),
        [({"local_to_global": {"0": 0, "1": 2}}, "the arrays hold experts"),
         ({"local_to_global": {"0": 0, "1": 2, "2": 2}}, "the arrays hold experts"),
         ({"local_to_global": {"0": 0, "1": "x", "2": 7}}, "expected indices to indices"),
         ({"local_to_global": None}, "expected indices to indices")],
    )  # fmt: skip
    def test_a_remap_of_another_run_is_told(self, params, change, told):
        with pytest.raises(CheckpointError, match=told):
            read(params, remap={**REMAP, **change})


def test_the_policy_is_stored_as_any_other(params, tmp_path):
    policysmith.save(read(params).policy, tmp_path / "policy")
    compare(policysmith.load(tmp_path / "policy"), params, 3)
