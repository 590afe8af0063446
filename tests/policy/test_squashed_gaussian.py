"""The Gaussian through tanh in float32: true ratios, densities and entropies, and numbers at every corner."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import policysmith
from policysmith.errors import ConfigError, WiringError
from policysmith.ops import sample
from policysmith.policy.actions import ActionDistribution
from policysmith.policy.log_std import log_std_range
from policysmith.training.ppo.ppo import PPO
from policysmith.training.rollout.collector import Collector
from tests.reference.squashed_gaussian import slow_entropy, slow_log_prob

BOX = spaces.Box(-1, 1, (1,), np.float32)
LOCS = (0.0, 1.0, -3.0, 6.0, -8.0, 10.0, 12.0)


def params_of(loc: float, log_std: float, rows: int = 1) -> torch.Tensor:
    return torch.tensor([[loc, log_std]]).expand(rows, -1)


@pytest.mark.parametrize("loc", LOCS)
def test_the_mean_ratio_is_one_however_flat_tanh_is(loc: float) -> None:
    """E over an old policy of new/old is 1 for any two policies; by the rounded action it was 0.57 at loc 10."""
    actions = ActionDistribution(BOX, squash=True)
    torch.manual_seed(0)
    draws, old = actions.draw(params_of(loc, 0.0, 200_000))
    new, _ = actions.evaluate(params_of(loc + 0.2, 0.0, 200_000), draws, drawn=True)
    assert float((new - old).exp().mean()) == pytest.approx(1.0, abs=0.02)
    params = params_of(loc, 0.0, 200_000).clone().requires_grad_()
    same, _ = actions.evaluate(params, draws, drawn=True)
    assert torch.equal(same, old)
    (score,) = torch.autograd.grad(same.sum(), params)
    assert score.mean(0).abs().max() < 0.02  # the mean score is zero


@pytest.mark.parametrize("loc", [0.0, 3.0, -5.0])
def test_the_action_alone_tells_as_much_as_float32_holds(loc: float) -> None:
    actions = ActionDistribution(BOX, squash=True)
    torch.manual_seed(0)
    chosen, old = actions.choose(params_of(loc, 0.0, 200_000))
    new, _ = actions.evaluate(params_of(loc + 0.2, 0.0, 200_000), chosen)
    assert float((new - old).exp().mean()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("log_std", [-5.0, -2.0, 0.0, 2.0, 10.0])
def test_log_probabilities_are_those_of_double_precision(log_std: float) -> None:
    actions = ActionDistribution(BOX, squash=True)
    torch.manual_seed(0)
    for loc in LOCS:
        params = params_of(loc, log_std, 500)
        (draws,), log_prob = actions.draw(params)
        # Beyond 1,000 (deviations of e^10) a thousandth is more than float32 resolves: there it is a relative one.
        slow = slow_log_prob(draws.numpy(), loc, log_std)
        np.testing.assert_allclose(log_prob.numpy(), slow, rtol=1e-6, atol=1e-3)
        (chosen,), told = actions.choose(params)
        inside = chosen.abs().squeeze(-1) < 1 - 1e-6
        u = np.arctanh(chosen.double().numpy())[inside]
        np.testing.assert_allclose(told[inside].numpy(), slow_log_prob(u, loc, log_std), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("log_std", [-20.0, -4.0, -1.0, 0.0, 0.7, 1.0, 1.5, 2.0, 5.0, 10.0, 20.0])
def test_entropies_are_the_integral(log_std: float) -> None:
    for loc in (0.0, 0.3, -1.0, 4.0, 12.0):
        found = sample.squashed_entropy(torch.tensor([[loc]]), torch.tensor([[log_std]]))
        assert float(found) == pytest.approx(slow_entropy(loc, log_std), abs=1e-3, rel=1e-6)


def test_the_mixture_is_log_cosh() -> None:
    u = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    terms = [
        w * sample._mean_size(u, torch.tensor(s)) for w, s in zip(sample._WEIGHTS, sample._DEVIATIONS, strict=True)
    ]
    exact = u.abs() + torch.log1p((-2 * u.abs()).exp())
    assert (sum(terms) - exact).abs().max() < 4e-5


WIDTHS = {"unit": (-1.0, 1.0), "aside": (0.3, 7.1), "tiny": (0.0, 1e-30), "widest": (-3e38, 3e38)}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("std", ["independent", "dependent"])
def test_no_corner_of_float32_makes_a_nan(width: str, std: str) -> None:
    low, high = WIDTHS[width]
    actions = ActionDistribution(spaces.Box(low, high, (1,), np.float32), True, std == "dependent")
    corners = [0.0, 1.0, 1e-45, 88.0, 1e4, 1e20, 3e38, float("inf")]
    grid = [[s * loc, t * wide] for loc in corners for wide in corners for s in (1, -1) for t in (1, -1)]
    params = torch.tensor(grid).requires_grad_()
    (draws,), drawn = actions.draw(params)
    (chosen,), log_prob = actions.choose(params)
    assert ((chosen >= actions.leaves[0].low) & (chosen <= actions.leaves[0].high)).all()
    assert actions.leaves[0].action_of(draws).isfinite().all()
    given = [*(torch.full_like(chosen, bound) for bound in (low, high, (low + high) / 2)), chosen]
    results = [drawn, log_prob, *actions.evaluate(params, [draws], drawn=True)]
    results += [result for action in given for result in actions.evaluate(params, [action])]
    for result in results:
        assert result.isfinite().all()
        (gradient,) = torch.autograd.grad(result.sum(), params, retain_graph=True)
        assert gradient.isfinite().all()


def test_bounds_hold_and_a_parameter_past_one_comes_back() -> None:
    low, high = -2.0, 0.5
    for std in ("independent", "dependent"):
        actions = ActionDistribution(BOX, True, std == "dependent", 1.0, low, high)
        for value, bound in ((9.0, high), (-9.0, low)):
            params = params_of(0.0, value).clone().requires_grad_()
            log_std = actions.leaves[0].split(params)[1]
            assert float(log_std.detach()) == bound
            (further,) = torch.autograd.grad(-log_std.sum() * value, params, retain_graph=True)
            (back,) = torch.autograd.grad(log_std.sum() * value, params)
            assert further[0, 1] == 0 and back[0, 1] == value  # a descent step goes against the gradient


@pytest.mark.parametrize("squash", [False, True])
def test_an_entropy_bonus_does_not_run_away(squash: bool) -> None:
    config = {"model": {"type": "mlp", "hidden": [8], "squash": squash, "log_std_max": 0.5}}
    policy = policysmith.build(config, spaces.Box(-1, 1, (3,), np.float32), BOX, seed=0)
    optimizer = torch.optim.Adam(policy.parameters(), 0.3)
    obs, act = torch.zeros(4, 3), torch.zeros(4, 1)
    for sign, bound in ((-1.0, 0.5), (1.0, None)):
        for _ in range(60):
            optimizer.zero_grad()
            (sign * torch.distributions.Normal.entropy(_normal(policy, obs)).mean()).backward()
            optimizer.step()
        log_std = float(_normal(policy, obs).scale.detach().log().max())
        assert log_std == pytest.approx(bound) if bound else log_std < 0
    assert all(t.isfinite().all() for t in policy.evaluate_actions(obs, act))


def _normal(policy, obs):
    parts = policy.distribution(obs).parameters
    return torch.distributions.Normal(parts["loc"], parts["scale"])


def test_without_bounds_stated_an_older_policy_acts_as_it_did() -> None:
    independent, dependent = (ActionDistribution(BOX, False, kind) for kind in (False, True))
    for value in (-19.0, 0.0, 2.5, 9.0):
        assert float(independent.leaves[0].split(params_of(0.0, value))[1]) == value
        assert float(dependent.leaves[0].split(params_of(0.0, value))[1]) == min(value, 2.0)
    assert log_std_range("independent", 100.0)[1] > 14 and log_std_range("dependent", 100.0) == (-20.0, 2.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"log_std_min": 1.0, "log_std_max": 1.0}, "log_std_min=1 must be less than log_std_max=1"),
        ({"log_std_max": -1.0}, "initial_std=1 has the logarithm 0, outside log_std_min=-20 and log_std_max=-1"),
        ({"log_std_max": 21.0}, "log_std_max"),
    ],
)
def test_bounds_that_leave_no_room_are_refused(options, said) -> None:
    with pytest.raises(ConfigError, match=said):
        policysmith.build({"model": {"type": "mlp", **options}}, spaces.Box(-1, 1, (3,)), BOX)


def test_a_live_policy_keeps_its_bounds() -> None:
    policy = policysmith.build({"model": {"type": "mlp", "squash": True}}, spaces.Box(-1, 1, (3,)), BOX, seed=0)
    with pytest.raises(WiringError, match=r"policy.log_std_max: a live policy keeps its distribution: None, found 1.0"):
        policy.replace_component("policy", {"type": "action_head", "squash": True, "log_std_max": 1.0})


class Steps(gym.Env):
    """Eight steps of noise; what is done is of no account."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, action_space) -> None:
        self.action_space, self.count = action_space, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        parts = {k: np.asarray(v) for k, v in action.items()} if isinstance(action, dict) else action
        assert self.action_space.contains(parts)
        self.count += 1
        return self.observation_space.sample(), 1.0, self.count == 8, False, {}


MIXED = spaces.Dict(
    steer=spaces.Box(-2, 5, (2,), np.float32), gear=spaces.Discrete(3), gas=spaces.Box(0, 1, (), np.float32)
)
MEMORY = {
    "memory": {"type": "gru", "in_keys": "observation", "hidden_size": 5},
    "policy": {"type": "action_head", "in_keys": "memory", "squash": True},
    "state_value": {"type": "value_head", "in_keys": "memory"},
}


@pytest.mark.parametrize("space", [BOX, MIXED], ids=["box", "composite"])
@pytest.mark.parametrize(
    "model",
    [{"type": "mlp", "hidden": [8], "squash": True}, {"type": "graph", "components": MEMORY}],
    ids=["mlp", "gru"],
)
def test_a_rollout_is_learned_from_by_its_draws(space, model) -> None:
    """The first epoch's ratios are one, also where every action is rounded to its limit."""
    policy = policysmith.build({"model": model}, Steps.observation_space, space, seed=0)
    with torch.no_grad():
        policy.components["policy"].module.out.bias.fill_(20.0)
    environments = gym.vector.SyncVectorEnv([lambda: Steps(space)] * 2)
    algorithm = PPO(rollout_steps=16)
    rollout = algorithm.collector(policy, environments, 0, 0).collect(16)
    environments.close()
    for batch in algorithm.batches(policy, rollout).minibatches(2):
        log_prob = batch.evaluate()[0]
        torch.testing.assert_close(log_prob, batch.columns.log_prob, rtol=1e-5, atol=1e-4)
    for leaf, action, draw in zip(policy.actions.leaves, rollout.actions, rollout.draws, strict=True):
        assert torch.equal(action, leaf.action_of(draw) if leaf.squash else draw)


def test_unsquashed_rollouts_keep_no_draws() -> None:
    policy = policysmith.build({"model": {"type": "mlp", "hidden": [8]}}, Steps.observation_space, BOX, seed=0)
    environments = gym.vector.SyncVectorEnv([lambda: Steps(spaces.Box(-np.inf, np.inf, (1,), np.float32))] * 2)
    assert Collector(policy, environments, 0).collect(4).draws is None
