"""`policysmith swap`: components of a stored policy exchanged, with what of the training still fits."""

import json

import pytest
import torch

import policysmith
from policysmith.store import load_training

OBS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def stored(run, tiny):
    result = run("train", "tiny.yaml", "--output", "runs/a", "--quiet")
    assert result.exit_code == 0, result.stderr
    return "runs/a"


def test_a_component_is_replaced_and_training_goes_on(run, stored):
    before = policysmith.load(stored)
    moments = load_training(stored).tensors
    result = run("swap", stored, "actor={type: mlp, hidden: [16, 8], activation: relu}")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "actor" in result.stdout and "runs/a" in result.stdout
    after = policysmith.load(stored)
    assert torch.equal(before.get_value(OBS), after.get_value(OBS))
    assert after.components["actor"].module[0].out_features == 16
    kept = load_training(stored).tensors
    names = [name for name, _ in after.named_parameters()]
    for index, name in enumerate(n for n, _ in before.named_parameters()):
        key = f"optimizer/others/{names.index(name)}/exp_avg" if name in names else ""
        if ".actor." in name:
            assert key not in kept
        else:
            assert torch.equal(kept[key], moments[f"optimizer/others/{index}/exp_avg"])
    result = run("train", "--resume", stored, "training.total_steps=256", "--quiet")
    assert result.exit_code == 0, result.stderr


def test_a_component_comes_from_another_artifact_with_its_weights(run, stored):
    run("train", "tiny.yaml", "--output", "runs/b", "--seed", "7", "--quiet")
    result = run("swap", stored, "actor=runs/b:actor", "critic=runs/b:critic", "--output", "runs/c")
    assert result.exit_code == 0, result.stderr
    one, other, both = (policysmith.load(f"runs/{name}") for name in "abc")
    for name in ("actor", "critic"):
        assert torch.equal(both.components[name].module[0].weight, other.components[name].module[0].weight)
    weight = both.components["policy"].module.out.weight
    assert torch.equal(weight, one.components["policy"].module.out.weight)


def test_growing_keeps_what_the_policy_does(run, stored):
    want = policysmith.load(stored)(OBS)
    result = run("swap", stored, "actor={type: mlp, hidden: [32]}", "--keep-weights", "--resize")
    assert result.exit_code == 0, result.stderr
    torch.testing.assert_close(policysmith.load(stored)(OBS), want)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["actor"], 2, "is no replacement"),
        (["actr=mlp"], 1, "no component 'actr' to replace (did you mean 'actor'?)"),
        (["actor={type: mlp, hidden: [9]}"], 1, "resize"),
        (["actor=runs/none:actor"], 1, "runs/none"),
        (["actor=runs/a:acter"], 1, "no component 'acter'"),
        (["actor=mlp", "--output", "runs/a"], 1, "holds a policy already"),
    ],
)
def test_what_does_not_fit_changes_nothing(run, stored, tmp_path, words, code, message):
    files = {f: f.read_bytes() for f in (tmp_path / "runs/a").iterdir() if f.is_file()}
    result = run("swap", stored, *words)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.split())
    assert {f: f.read_bytes() for f in (tmp_path / "runs/a").iterdir() if f.is_file()} == files


def test_the_manifest_tells_the_new_component(run, stored, tmp_path):
    hashes = [json.loads((tmp_path / "runs/a/manifest.json").read_text())["components"]]
    run("swap", stored, "actor={type: mlp, hidden: [8], activation: relu}", "--seed", "3")
    hashes.append(json.loads((tmp_path / "runs/a/manifest.json").read_text())["components"])
    assert hashes[0]["actor"] != hashes[1]["actor"] and hashes[0]["critic"] == hashes[1]["critic"]
