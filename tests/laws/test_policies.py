"""The laws of policies, over every pair of observation and action space."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from policysmith.errors import ConfigError
from policysmith.policy import ActorCritic, ActorCriticProtocol
from tests.thinning import thinned

from .policies import (
    ACTIONS,
    BATCH,
    DISTINCT,
    MODELS,
    OBSERVATIONS,
    action_for,
    batch_of,
    leaves,
    lively,
    observations_for,
    policy_of,
    rows,
)

every_pair = pytest.mark.parametrize(("observation", "action"), [(o, a) for o in OBSERVATIONS for a in ACTIONS])
chosen_pairs = pytest.mark.parametrize(
    ("observation", "action"),
    [*(("vector", a) for a in ACTIONS), *((o, "hybrid") for o in OBSERVATIONS if o != "vector")],
)
every_action = pytest.mark.parametrize("action", ACTIONS)
every_model = pytest.mark.parametrize("model", MODELS)


def same(found: Any, expected: Any) -> bool:
    pairs = zip(leaves(found), leaves(expected), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def close(found: Any, expected: Any) -> None:
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@every_pair
def test_acting_and_evaluating_agree_to_the_last_bit(observation, action):
    policy = lively(policy_of(observation, action))
    obs = batch_of(policy)
    for deterministic in (False, True):
        chosen, log_prob, value = policy.get_action_and_value(obs, deterministic=deterministic)
        again, entropy, value_again = policy.evaluate_actions(obs, chosen)
        assert log_prob.shape == value.shape == entropy.shape == (BATCH,)
        assert torch.equal(log_prob, again)
        assert torch.equal(value, value_again)
        assert torch.equal(value, policy.get_value(obs))
        assert log_prob.isfinite().all() and entropy.isfinite().all()


@every_pair
def test_sampled_actions_are_in_the_space(observation, action):
    policy = lively(policy_of(observation, action))
    obs = batch_of(policy, 32)
    for deterministic in (False, True):
        chosen, _, _ = policy.get_action_and_value(obs, deterministic=deterministic)
        arrays = policy.actions.to_environment(chosen)
        for row in range(32):
            one = rows(arrays, (row, ...))  # an array, not a NumPy scalar
            assert policy.actions.space.contains(one), one


@every_action
@pytest.mark.parametrize("std", ["independent", "dependent"])
def test_the_distribution_agrees_with_the_calls(action, std):
    policy = lively(policy_of("vector", action, std=std))
    obs = batch_of(policy)
    view = policy.distribution(obs)
    chosen, log_prob, _ = policy.get_action_and_value(obs)
    close(view.log_prob(chosen), log_prob)
    close(view.entropy(), policy.evaluate_actions(obs, chosen)[1])
    torch.manual_seed(5)
    drawn = view.sample()
    torch.manual_seed(5)
    assert same(drawn, policy.get_action_and_value(obs)[0])
    assert not any(leaf.requires_grad for leaf in leaves(drawn))


@every_action
@pytest.mark.parametrize("std", ["independent", "dependent"])
def test_deterministic_is_the_mode(action, std):
    policy = lively(policy_of("vector", action, std=std))
    obs = batch_of(policy)
    best, log_prob, _ = policy.get_action_and_value(obs, deterministic=True)
    assert same(best, policy.distribution(obs).mode)
    if action.startswith("squashed"):
        return  # there the image of the mean, which is not where the density is highest
    torch.manual_seed(0)
    for _ in range(50):
        other = policy.get_action_and_value(obs)[0]
        assert (policy.evaluate_actions(obs, other)[0] <= log_prob + 1e-6).all()


@chosen_pairs
def test_a_row_alone_is_the_row_in_the_batch(observation, action):
    policy = lively(policy_of(observation, action))
    obs = batch_of(policy)
    chosen, _, _ = policy.get_action_and_value(obs)
    together = policy.evaluate_actions(obs, chosen)
    for row in range(BATCH):
        one = slice(row, row + 1)
        close(policy.evaluate_actions(rows(obs, one), rows(chosen, one)), tuple(t[one] for t in together))


@chosen_pairs
def test_emitted_code_equals_the_slow_twin(observation, action):
    fast = lively(policy_of(observation, action))
    slow = copy.deepcopy(fast)
    obs = batch_of(fast)
    tensors = fast.observations.read(obs)
    assert same(fast(obs), slow.slow("forward", *tensors))
    assert same(fast.get_value(obs), slow.slow("value", *tensors))
    torch.manual_seed(2)
    chosen, log_prob, value = fast.get_action_and_value(obs)
    torch.manual_seed(2)
    assert same((fast.actions.leaves_of(chosen), log_prob, value), slow.slow("act", *tensors))
    flat = [leaf.detach() for leaf in fast.actions.leaves_of(chosen)]
    chosen = fast.actions.structure(flat)
    for policy, found in ((fast, fast.evaluate_actions(obs, chosen)), (slow, slow.slow("evaluate", *tensors, *flat))):
        sum(t.sum() for t in found).backward()
        policy.found = found
    assert same(fast.found, slow.found)
    for (name, a), b in zip(fast.named_parameters(), slow.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name


@chosen_pairs
def test_every_parameter_gets_a_finite_gradient(observation, action):
    policy = lively(policy_of(observation, action)).train()
    obs = batch_of(policy, 16)
    with torch.no_grad():
        chosen = policy.get_action_and_value(obs)[0]
    log_prob, entropy, value = policy.evaluate_actions(obs, chosen)
    (log_prob.square().sum() + entropy.sum() + value.square().sum()).backward()
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@every_action
def test_the_log_prob_of_a_sampled_action_has_the_gradient_of_the_score(action):
    """As with `sample()` in CleanRL and SB3: else a loss of log_prob · advantage would not move a Gaussian's mean."""
    sampler = lively(policy_of("vector", action))
    evaluator = copy.deepcopy(sampler)
    obs = batch_of(sampler)
    chosen, log_prob, _ = sampler.get_action_and_value(obs)
    flat = [leaf.detach() for leaf in sampler.actions.leaves_of(chosen)]
    again = evaluator.evaluate_actions(obs, evaluator.actions.structure(flat))[0]
    weights = torch.arange(1.0, BATCH + 1)
    (log_prob * weights).sum().backward()
    (again * weights).sum().backward()
    for (name, a), b in zip(sampler.named_parameters(), evaluator.parameters(), strict=True):
        if "actor" in name or "policy" in name:
            torch.testing.assert_close(a.grad, b.grad, msg=name)


@every_action
def test_acting_is_get_action_and_value_without_gradients(action):
    policy = lively(policy_of("vector", action))
    obs = batch_of(policy)
    for deterministic in (False, True):
        act = policy.acting(deterministic)
        torch.manual_seed(3)
        found = act(obs)
        torch.manual_seed(3)
        assert same(found, policy.get_action_and_value(obs, deterministic=deterministic))
        assert not any(leaf.requires_grad for leaf in leaves(found))


@chosen_pairs
def test_one_observation_gives_one_action_and_a_batch_a_batch(observation, action):
    policy = lively(policy_of(observation, action))
    space = policy.observations.space
    space.seed(0)
    one, state = policy.predict(space.sample())
    assert state is None
    assert policy.actions.space.contains(one), one
    assert leaves(batch_of(policy))[0].shape[0] == BATCH


@pytest.mark.parametrize("called", [False, True], ids=["fresh", "called"])
@chosen_pairs
def test_copies_compute_the_same_and_are_independent(observation, action, called):
    policy = lively(policy_of(observation, action))
    obs = batch_of(policy)
    if called:
        policy.get_action_and_value(obs)
    expected = [t.detach().clone() for t in policy(obs)]
    for twin in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert same(twin(obs), expected)
        assert same(
            twin.get_action_and_value(obs, deterministic=True), policy.get_action_and_value(obs, deterministic=True)
        )
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.fill_(float("nan"))
        assert all(t.isnan().all() for t in twin(obs)[1:])
        assert same(policy(obs), expected)


@chosen_pairs
def test_state_is_named_by_component_and_nothing_else_is_stored(observation, action):
    policy = policy_of(observation, action)
    names = {name.split(".")[1] for name in policy.state_dict() if name.startswith("components.")}
    assert {"actor", "critic", "policy", "state_value"} <= names <= set(policy.components)
    assert all(name.startswith("components.") for name in policy.state_dict())
    assert [n for n, _ in policy.named_parameters()] == [
        n for n in policy.state_dict() if n in dict(policy.named_parameters())
    ]
    assert policy.plan.parameter_count == sum(p.numel() for p in policy.parameters())


@every_model
@every_action
def test_every_model_offers_the_protocol(model, action):
    observation, taken = observations_for(model)[0], action_for(model, action)
    if taken != action:
        with pytest.raises(ConfigError, match=r"model\.policy: .*Discrete action space|no multiple of"):
            policy_of(observation, action, model)
    policy = policy_of(observation, taken, model)
    assert isinstance(policy, ActorCritic)
    assert isinstance(policy, ActorCriticProtocol)
    obs = batch_of(policy)
    params, value = policy(obs)
    assert params.shape == (BATCH, policy.actions.num_parameters)
    assert value.shape == (BATCH,)


@pytest.mark.parametrize(("model", "observation"), [(m, o) for m in MODELS for o in observations_for(m)])
def test_every_model_takes_every_observation_space_that_it_is_for(model, observation):
    policy = policy_of(observation, action_for(model, "discrete"), model)
    obs = batch_of(policy)
    chosen, log_prob, value = policy.get_action_and_value(obs)
    assert torch.equal(policy.evaluate_actions(obs, chosen)[0], log_prob)
    assert torch.equal(policy.get_value(obs), value)


@pytest.mark.parametrize(
    ("model", "observation"),
    [
        (m, o)
        for m in DISTINCT
        for o in observations_for(m)
        if o in ("vector", "image_hwc", "discrete", "planes", "dict", "window")
    ],
)
def test_forward_is_exported(model, observation):
    policy = policy_of(observation, action_for(model, "hybrid"), model)
    obs = batch_of(policy)
    close(torch.export.export(policy, (obs,)).module()(obs), policy(obs))


@pytest.mark.parametrize("model", thinned(DISTINCT, 3))
@pytest.mark.parametrize("action", ["discrete", "hybrid"])
def test_acting_and_evaluating_compile_whole(model, action):
    policy = lively(policy_of(observations_for(model)[0], action_for(model, action), model))
    obs = batch_of(policy)
    torch._dynamo.reset()
    act = torch.compile(
        lambda o: policy.get_action_and_value(o, deterministic=True), fullgraph=True, backend="aot_eager"
    )
    evaluate = torch.compile(policy.evaluate_actions, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        found = act(obs)
        close(found, policy.get_action_and_value(obs, deterministic=True))
        close(evaluate(obs, found[0]), policy.evaluate_actions(obs, found[0]))
