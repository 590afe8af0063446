"""Runs stored before optimisers had one form: `frozen/adam`, whose only rule had no name, and `frozen/rules`."""

import shutil
from pathlib import Path

import pytest
import torch

import policysmith
from policysmith import api
from policysmith.registry import default_registry
from policysmith.store import load_training
from policysmith.training.optim.optimizers import stored_state

FROZEN = Path(__file__).parent / "frozen"


@pytest.fixture(params=["adam", "rules"])
def earlier(request, tmp_path):
    shutil.copytree(FROZEN / request.param, tmp_path / "run")
    return tmp_path / "run"


def moments(policy, tensors):
    """Parameter → its moments, as the optimiser of the policy's own algorithm takes them up."""
    algorithm = default_registry.decode("algorithm", policy.config["training"]).build()
    optimizer = algorithm.optimizer(policy)
    optimizer.load_state(stored_state(tensors))
    return {p: entry for inner in optimizer.torch_optimizers.values() for p, entry in inner.state.items()}


def test_every_moment_reaches_its_parameter(earlier):
    policy, tensors = policysmith.load(earlier), load_training(earlier).tensors
    assert any(name.startswith("adam/") for name in tensors)
    found, learning = moments(policy, tensors), [p for p in policy.parameters() if p.requires_grad]
    assert found.keys() == set(learning)
    stored = [t for name, t in tensors.items() if name.startswith("adam/") and t.dim()]
    taken = [t for entry in found.values() for t in entry.values() if t is not None and t.dim()]
    assert len(taken) == len(stored) > 0
    for one in stored:
        assert any(one.shape == other.shape and torch.equal(one, other) for other in taken)
    if earlier.joinpath("config.json").read_text().count("adamw") == 0:  # one rule: in the policy's order
        for index, parameter in enumerate(learning):
            assert torch.equal(found[parameter]["exp_avg"], tensors[f"adam/{index}/exp_avg"])


def test_it_goes_on_and_is_stored_in_todays_form(earlier):
    before = moments(policysmith.load(earlier), load_training(earlier).tensors)
    result = policysmith.train(None, ["training.total_steps=64"], resume=earlier, progress=False, evaluate=False)
    assert result.steps == 64
    tensors = load_training(earlier).tensors
    assert not any(name.startswith("adam/") for name in tensors)
    steps = [t.item() for name, t in tensors.items() if name.startswith("optimizer/") and name.endswith("/step")]
    assert steps == [2 * entry["step"].item() for entry in before.values() if "step" in entry]


def test_its_moments_survive_a_swap(earlier):
    policy, tensors = policysmith.load(earlier), load_training(earlier).tensors
    before = moments(policy, tensors)
    critic = {n: before[p] for n, p in policy.named_parameters() if ".critic." in n}
    api.swap(earlier, {"actor": {"type": "mlp", "hidden": [6]}}, resize=True)
    policy, tensors = policysmith.load(earlier), load_training(earlier).tensors
    assert not any(name.startswith("adam/") for name in tensors)
    after = moments(policy, tensors)
    assert critic
    for name, parameter in policy.named_parameters():
        if ".critic." in name:
            assert torch.equal(after[parameter]["exp_avg"], critic[name]["exp_avg"])
