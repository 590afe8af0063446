import pytest
import torch

import policysmith
from policysmith.errors import ConfigError
from policysmith.training.ppo.ppo import PPO

COMPONENTS = {
    "trunk": {"type": "mlp", "in_keys": "observation", "hidden": [8], "norm": "batch"},
    "policy": {"type": "action_head", "in_keys": "trunk"},
    "state_value": {"type": "value_head", "in_keys": "trunk"},
}


def _config(consent):
    model = {"type": "graph", "components": COMPONENTS, **({"batch_coupled": True} if consent else {})}
    training = {"type": "ppo", "total_steps": 512, "rollout_steps": 64}
    return {"environment": {"id": "CartPole-v1", "num_envs": 4}, "model": model, "training": training}


def test_batch_normalisation_needs_consent():
    with pytest.raises(ConfigError, match=r"model\.components\.trunk: batch normalisation .* batch_coupled: true"):
        policysmith.build(_config(consent=False))
    assert policysmith.build(_config(consent=True))


def test_the_first_loss_sees_the_policy_that_acted(monkeypatch):
    """Ratios are exactly one before the first step only if the loss uses the running statistics."""
    ratios, update = [], PPO.update

    def spy(algorithm, policy, optimizer, rollout, progress=0.0):
        batch = algorithm.batches(policy, rollout)
        log_prob, _, _ = policy.evaluating()(*batch.leaves)
        ratios.append((log_prob - batch.columns.log_prob).abs().max().item())
        return update(algorithm, policy, optimizer, rollout, progress)

    monkeypatch.setattr(PPO, "update", spy)
    policy = policysmith.train(_config(consent=True), progress=False, evaluate=False).policy
    assert max(ratios) < 1e-6
    norm = policy.components["trunk"].module[1]
    assert norm.num_batches_tracked == 2 and norm.running_mean.abs().max() > 0, "refreshed once an iteration"
    assert torch.isfinite(norm.running_var).all()
