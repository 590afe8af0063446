"""Checkpoints of experts: only those needed are read, every one whole, and none under another's name."""

import pytest
import torch

import policysmith
from policysmith.errors import CheckpointError, SkillError
from policysmith.skills import (
    ActorCriticMoE,
    Expert,
    MoECheckpoint,
    build_moe_checkpoint,
    load_expert,
    load_experts,
    load_moe_checkpoint,
    moments_of,
    restore_moments,
)
from policysmith.skills.experts import expert_versions as expert_store
from policysmith.skills.experts import moe_checkpoint as checkpoints
from policysmith.skills.experts.expert_versions import save_head, save_version
from policysmith.skills.experts.parameter_names import expert_name, of_expert

from .test_moe_model import CONFIG, SPACES


def model_of(num_tasks, width=8):
    torch.manual_seed(num_tasks)
    return ActorCriticMoE(3, width, num_tasks=num_tasks, in_features=5)


def trained(model, *tasks, steps=2):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        logits, value = model(torch.randn(12, 5), torch.tensor(tasks).repeat(12)[:12])
        optimizer.zero_grad()
        (logits.square().sum() + (value - 1).square().sum()).backward()
        optimizer.step()
    return optimizer


def library(tmp_path, *indices, width=8, moments=True):
    """An expert on disk for each index; → completed skills and the models."""
    completed = {}
    for index in indices:
        model = model_of(1, width)
        optimizer = trained(model, 0, steps=index + 1)
        whole = MoECheckpoint(model.state_dict(), moments_of(optimizer, model) if moments else {}, {0: 100 * index})
        folder = tmp_path / "skills" / f"{index}_Skill" / f"expert_{index}_policy"
        save_head(folder, save_version(folder, whole.expert(0, index, f"Skill {index}")))
        completed[f"Skill {index}"] = {"expert_idx": index, "path": str(folder)}
    return completed


def test_expert_1_is_not_10_or_11():
    model = model_of(12)
    for index in range(12):
        found = of_expert(model.state_dict(), index)
        assert len(found) == 16
        assert torch.equal(
            found["actor_network.layers_0.weight"], model.get_submodule(f"actor_networks_{index}.layers_0").weight
        )
    assert of_expert(model_of(1).state_dict(), 1) == {}


@pytest.mark.parametrize(
    "name",
    ["actor_networks_1", "actor_networks_1.layers_0", "actor_networks_01.layers_0.weight",
     "my_actor_networks_1.layers_0.weight", "actor_networks_1.layers_0.weight\n", "actor_networks_-1.layers_0.weight",
     "components.a.b.actor_networks_1.layers_0.weight"],
)  # fmt: skip
def test_names_are_matched_whole(name):
    assert expert_name(name) is None


def test_a_checkpoint_holds_the_needed_experts_under_local_indices(tmp_path):
    completed = library(tmp_path, 0, 2, 5, 9)
    checkpoint = build_moe_checkpoint(["Skill 0", "Skill 9"], {0: 0, 9: 1, 11: 2}, completed)
    assert checkpoint.experts == [0, 1] and checkpoint.frames == {0: 0, 1: 900}
    nine = load_expert(completed["Skill 9"]["path"])
    for name, tensor in nine.weights.items():
        assert torch.equal(of_expert(checkpoint.weights, 1)[name], tensor)
    assert checkpoint.versions[1] == nine.version and not checkpoint.moments, "dependencies are frozen"


def test_only_the_needed_experts_are_read(tmp_path):
    completed = library(tmp_path, *range(8))
    for index in (1, 2, 3, 4, 6, 7):  # which would fail if they were looked at
        for file in (tmp_path / "skills" / f"{index}_Skill" / f"expert_{index}_policy").glob("*.*"):
            file.write_bytes(b"damaged")
    checkpoint = build_moe_checkpoint(["Skill 0", "Skill 5"], {0: 0, 5: 1}, completed)
    one = (tmp_path / "skills/0_Skill/expert_0_policy/model.safetensors").stat().st_size
    assert checkpoint.bytes_read == 2 * one, "without moments, which nobody asked for"
    with pytest.raises(CheckpointError, match="damaged"):
        build_moe_checkpoint(["Skill 1"], {1: 0}, completed)


def test_single_experts_of_a_big_checkpoint_are_read_lazily(tmp_path, monkeypatch):
    model = model_of(40)
    MoECheckpoint(model.state_dict()).save(tmp_path / "all")
    asked = []
    true_open = checkpoints.safe_open

    class Spy:
        def __init__(self, *args):
            self.file = true_open(*args)

        def __enter__(self):
            self.inner = self.file.__enter__()
            return self

        def __exit__(self, *error):
            return self.file.__exit__(*error)

        def keys(self):
            return self.inner.keys()

        def get_tensor(self, name):
            asked.append(name)
            return self.inner.get_tensor(name)

    monkeypatch.setattr(checkpoints, "safe_open", Spy)
    found = load_moe_checkpoint(tmp_path / "all", {1, 39})
    assert found.experts == [1, 39] and len(asked) == 32 and set(asked) == set(found.weights)
    assert found.bytes_read == 2 * sum(p.nbytes for p in model_of(1).parameters())
    with pytest.raises(SkillError, match="has no expert 40"):
        load_moe_checkpoint(tmp_path / "all", {40})


def test_a_checkpoint_read_in_one_piece_is_what_is_read_one_by_one(tmp_path):
    model = ActorCriticMoE(3, 8, num_tasks=3, in_features=4)
    moments = {"actor_networks_1.layers_0.weight/exp_avg": torch.ones(8, 4)}
    MoECheckpoint(model.state_dict(), moments, {0: 5}).save(tmp_path / "checkpoint")
    whole, single = load_moe_checkpoint(tmp_path / "checkpoint"), load_moe_checkpoint(tmp_path / "checkpoint", range(3))
    assert whole.bytes_read == single.bytes_read and whole.experts == single.experts == [0, 1, 2]
    for found, other in ((whole.weights, single.weights), (whole.moments, single.moments)):
        assert set(found) == set(other) and all(torch.equal(found[name], other[name]) for name in found)


def test_a_continued_expert_is_in_the_seed_with_its_moments(tmp_path):
    completed = library(tmp_path, 0, 2)
    checkpoint = build_moe_checkpoint(["Skill 0"], {0: 0, 2: 1}, completed, trained={2})
    assert checkpoint.experts == [0, 1], "though it is no dependency"
    assert {expert_name(name).number for name in checkpoint.moments} == {1}
    model = model_of(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    load_experts(model, checkpoint)
    assert len(restore_moments(optimizer, model, checkpoint.moments)) == 16
    assert optimizer.state[model.get_submodule("actor_networks_1.layers_0").weight]["step"] == 3
    assert model.get_submodule("actor_networks_0.layers_0").weight not in optimizer.state


@pytest.mark.parametrize("fused", [False, True])
def test_training_goes_on_as_if_it_had_not_stopped(tmp_path, fused):
    def step(model, optimizer, seed):
        torch.manual_seed(seed)
        logits, value = model(torch.randn(12, 5), torch.zeros(12, dtype=torch.long))
        optimizer.zero_grad()
        (logits.square().sum() + value.square().sum()).backward()
        optimizer.step()

    def fresh():
        model = model_of(2)
        return model, torch.optim.Adam(model.parameters(), lr=0.01, fused=fused)

    model, optimizer = fresh()
    for seed in range(3):
        step(model, optimizer, seed)
    MoECheckpoint(model.state_dict(), moments_of(optimizer, model)).save(tmp_path / "1")
    step(model, optimizer, 3)
    again, its_optimizer = fresh()
    stored = load_moe_checkpoint(tmp_path / "1")
    load_experts(again, stored)
    restore_moments(its_optimizer, again, stored.moments)
    step(again, its_optimizer, 3)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_a_partial_load_says_what_is_kept_and_what_is_new(tmp_path):
    checkpoint = build_moe_checkpoint(["Skill 0"], {0: 0, 7: 1}, library(tmp_path, 0))
    model = model_of(2)
    fresh = {name: p.clone() for name, p in model.state_dict().items()}
    report = load_experts(model, checkpoint)
    assert len(report.kept) == len(report.new) == 16 and not report.mismatched
    assert all("_networks_0." in name for name in report.kept)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, checkpoint.weights[name] if name in report.kept else fresh[name])


def test_nothing_is_loaded_by_halves(tmp_path):
    good, model = model_of(3), model_of(2)
    fresh = {name: p.clone() for name, p in model.state_dict().items()}
    weights = dict(good.state_dict())
    weights["actor_networks_1.layers_2.weight"] = torch.zeros(3, 4)
    del weights["critic_networks_1.layers_0.bias"]
    checkpoint = MoECheckpoint(weights)
    with pytest.raises(SkillError, match=r"(?s)nothing was loaded.*18 mismatched") as caught:
        load_experts(model, checkpoint)
    told = str(caught.value)
    assert "actor_networks_1.layers_2.weight: has shape (3, 4), and in the model (8, 8)" in told
    assert "critic_networks_1.layers_0.bias: is missing from the checkpoint" in told
    assert "actor_networks_2.layers_0.weight: is not in the model" in told
    assert all(torch.equal(p, fresh[name]) for name, p in model.state_dict().items())
    report = load_experts(model, checkpoint, strict=False)
    assert all("_networks_0." in name for name in report.kept) and len(report.kept) == 16
    for name, p in model.state_dict().items():
        assert torch.equal(p, good.state_dict()[name] if "_networks_0." in name else fresh[name])


def test_a_policy_from_a_configuration_takes_the_same_checkpoints(tmp_path):
    policy = policysmith.build(CONFIG, **SPACES)
    twin = policysmith.build({**CONFIG, "seed": 1}, **SPACES)
    MoECheckpoint(policy.state_dict()).save(tmp_path / "1")
    assert len(load_experts(twin, load_moe_checkpoint(tmp_path / "1")).kept) == 36
    assert all(torch.equal(p, twin.state_dict()[name]) for name, p in policy.state_dict().items())


def test_what_is_no_expert_is_told(tmp_path):
    completed = library(tmp_path, 0, 1)
    wrong = {"Skill 0": {"expert_idx": 3, "path": completed["Skill 0"]["path"]}}
    with pytest.raises(SkillError, match="holds expert 0, but is registered as expert 3"):
        build_moe_checkpoint(["Skill 0"], {3: 0}, wrong)
    with pytest.raises(SkillError, match="holds no expert"):
        build_moe_checkpoint(["a"], {3: 0}, {"a": {"expert_idx": 3, "path": tmp_path / "nowhere"}})
    with pytest.raises(SkillError, match="has no path"):
        build_moe_checkpoint(["a"], {3: 0}, {"a": {"expert_idx": 3}})
    twice = {**completed, "other": {"expert_idx": 0, "path": completed["Skill 1"]["path"]}}
    with pytest.raises(SkillError, match="expert 0 lies in different places for 'Skill 0', 'other'"):
        build_moe_checkpoint([], {0: 0}, twice)
    assert build_moe_checkpoint(["Skill 0"], {0: 0}, twice).experts == [0], "dependencies decide"
    other = library(tmp_path / "other", 4, width=16)
    with pytest.raises(SkillError, match="experts 4 and 0 are of different shapes"):
        build_moe_checkpoint(["Skill 0", "Skill 4"], {0: 0, 4: 1}, {**completed, **other})
    with pytest.raises(SkillError, match="holds no checkpoint"):
        load_moe_checkpoint(tmp_path)
    with pytest.raises(SkillError, match="'bias' is no parameter of an expert"):
        MoECheckpoint({"bias": torch.zeros(2)}).save(tmp_path / "x")
    with pytest.raises(SkillError, match="give in_features"):
        load_experts(ActorCriticMoE(3, 8, num_tasks=2), MoECheckpoint({}))
    with pytest.raises(SkillError, match="Linear has no experts"):
        load_experts(torch.nn.Linear(2, 2), MoECheckpoint({}))
    with pytest.raises(SkillError, match="fit no parameter"):
        model = model_of(1)
        restore_moments(
            torch.optim.Adam(model.parameters()), model, {"actor_networks_3.layers_0.bias/exp_avg": torch.zeros(8)}
        )


def test_a_head_that_changes_while_it_is_read_is_read_anew(tmp_path, monkeypatch):
    weights = {"actor_network.layers_0.weight": torch.ones(2, 2)}
    versions = [save_version(tmp_path, Expert("Skill", 3, {n: w * k for n, w in weights.items()})) for k in (1, 2)]
    save_head(tmp_path, versions[0])
    true_metadata, read = expert_store.read_metadata, []

    def interrupted(directory):
        found = true_metadata(directory)
        if not read:
            read.append(1)
            save_head(tmp_path, versions[1])
        return found

    monkeypatch.setattr(expert_store, "read_metadata", interrupted)
    assert load_expert(tmp_path).version == versions[1]


def test_a_version_is_the_hash_of_its_weights(tmp_path):
    weights = {"actor_network.layers_0.weight": torch.ones(2, 2), "critic_network.layers_0.weight": torch.zeros(2)}
    expert = Expert("Skill", 3, weights, frames=7)
    version = save_version(tmp_path, expert)
    again = save_version(tmp_path, Expert("Skill", 3, dict(reversed(weights.items())), frames=99))
    assert version == again == expert.version and load_expert(tmp_path / "versions" / version).frames == 7
    other = save_version(tmp_path, Expert("Skill", 3, {**weights, "critic_network.layers_0.weight": torch.ones(2)}))
    assert other != version and {p.name for p in (tmp_path / "versions").iterdir()} == {version, other}
    save_head(tmp_path, version)
    save_head(tmp_path, other)
    assert load_expert(tmp_path).version == other and load_expert(tmp_path / "versions" / version).version == version
