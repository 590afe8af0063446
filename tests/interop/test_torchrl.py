"""Number for number what torchrl's own losses say; run by `make test-interop` in an environment of its own."""

import pytest
import torch

pytestmark = pytest.mark.interop

torchrl = pytest.importorskip("torchrl", reason="torchrl is installed by `make test-interop`")

from gymnasium import spaces
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule

import policysmith
from policysmith.training.ppo.advantages import generalized_advantages
from policysmith.training.ppo.loss import ppo_terms

STEPS, ENVS = 16, 4


def _policy():
    return policysmith.build(
        {"model": {"type": "mlp", "hidden": [16]}}, spaces.Box(-1, 1, (4,)), spaces.Discrete(3), seed=0
    )


def _critic(policy):
    return TensorDictModule(
        lambda obs: policy.get_value(obs.reshape(-1, 4)).view(*obs.shape[:-1], 1), ["observation"], ["state_value"]
    )


def _rollout(policy, seed=0):
    torch.manual_seed(seed)
    obs = torch.randn(ENVS, STEPS + 1, 4)
    terminated = torch.rand(ENVS, STEPS, 1) < 0.1
    done = terminated | (torch.rand(ENVS, STEPS, 1) < 0.1)
    action, log_prob, value = policy.get_action_and_value(obs[:, :-1].reshape(-1, 4))
    next_td = {"observation": obs[:, 1:], "reward": torch.randn(ENVS, STEPS, 1), "done": done, "terminated": terminated}
    return TensorDict(
        {
            "observation": obs[:, :-1],
            "action": action.view(ENVS, STEPS),
            "action_log_prob": log_prob.detach().view(ENVS, STEPS),
            "state_value": value.detach().view(ENVS, STEPS, 1),
            "next": TensorDict(next_td, [ENVS, STEPS]),
        },
        [ENVS, STEPS],
    )


def _ours(policy, td):
    next_values = policy.get_value(td["next", "observation"].reshape(-1, 4)).view(ENVS, STEPS).detach()
    columns = [td["next", "reward"], td["state_value"], next_values.unsqueeze(-1)]
    flags = [td["next", "terminated"].float(), td["next", "done"].float()]
    return generalized_advantages(*[c.squeeze(-1).T for c in (*columns, *flags)], 0.99, 0.95).T


def test_advantages_equal_torchrls_gae():
    from torchrl.objectives.value import GAE

    policy = _policy()
    td = _rollout(policy)
    theirs = td.exclude("state_value")
    GAE(gamma=0.99, lmbda=0.95, value_network=_critic(policy), average_gae=False)(theirs)
    torch.testing.assert_close(_ours(policy, td), theirs["advantage"].squeeze(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value_clip", [None, 0.2])
def test_the_objective_equals_torchrls_clip_ppo_loss(value_clip):
    from torch.distributions import Categorical
    from torchrl.objectives import ClipPPOLoss

    policy = _policy()
    td = _rollout(policy).detach()
    td["advantage"] = _ours(policy, td).unsqueeze(-1)
    td["value_target"] = td["advantage"] + td["state_value"]
    torch.manual_seed(1)
    for parameter in policy.parameters():  # move, so that ratios are not all one
        parameter.data += 0.1 * torch.randn_like(parameter)

    actor = ProbabilisticTensorDictSequential(
        TensorDictModule(
            lambda obs: policy(obs.reshape(-1, 4))[0].view(*obs.shape[:-1], -1), ["observation"], ["logits"]
        ),
        ProbabilisticTensorDictModule(["logits"], ["action"], distribution_class=Categorical, return_log_prob=True),
    )
    options = {"clip_epsilon": 0.2, "normalize_advantage": False, "loss_critic_type": "l2", "entropy_bonus": True}
    loss = ClipPPOLoss(actor, _critic(policy), clip_value=value_clip, **options)(td.clone())

    flat = td.reshape(-1)
    log_prob, entropy, value = policy.evaluate_actions(flat["observation"], flat["action"])
    targets = [flat[key].squeeze(-1) for key in ("advantage", "value_target", "state_value")]
    ours = ppo_terms(log_prob, entropy, value, flat["action_log_prob"], *targets, clip=0.2, value_clip=value_clip)
    torch.testing.assert_close(ours.policy, loss["loss_objective"].squeeze(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.entropy, loss["entropy"].squeeze(), rtol=1e-5, atol=1e-6)
    factor = 2.0  # torchrl's l2 loss has no ½
    torch.testing.assert_close(factor * ours.value, loss["loss_critic"].squeeze(), rtol=1e-5, atol=1e-6)


def test_a_policy_is_a_tensordict_module_with_torchrls_keys():
    policy = _policy()
    td = TensorDict({"observation": torch.randn(5, 4)}, [5])
    out = policy.get_action_and_value(policy(td))
    assert {"logits", "state_value", "action", "action_log_prob"} <= set(out.keys())
    assert torch.equal(policy.critic(td.clone())["state_value"].squeeze(-1), policy.get_value(td["observation"]))
