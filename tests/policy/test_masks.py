"""Legal masks: illegal actions are never chosen, and a row without a legal action is quiet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor
from torch.distributions import Categorical

from policysmith.errors import ShapeError
from policysmith.ops import sample
from policysmith.policy import ActionDistribution, build_policy
from policysmith.registry import default_registry
from tests.laws.policies import BATCH, batch_of, leaves, lively, policy_of

DISCRETE = ["discrete", "discrete_start", "multidiscrete", "multidiscrete_2d", "multibinary", "multibinary_2d"]
every_discrete = pytest.mark.parametrize("action", DISCRETE)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def width_of(policy: Any) -> int:
    return policy.actions.leaves[0].mask_width


def random_mask(policy: Any, batch: int = BATCH, seed: int = 0) -> Tensor:
    """A mask with at least one legal choice for each variable, and some illegal ones."""
    generator = torch.Generator().manual_seed(seed)
    sizes = policy.actions.leaves[0].sizes
    parts = [torch.rand(batch, n, generator=generator) < 0.5 for n in sizes]
    for part in parts:
        legal = torch.randint(part.shape[-1], (batch,), generator=generator)
        part[torch.arange(batch), legal] = True
    return torch.cat(parts, -1)


def is_legal(actions: ActionDistribution, chosen: Tensor, mask: Tensor) -> bool:
    """Whether every variable's choice is legal, told from the definition of the mask."""
    leaf = actions.leaves[0]
    index = (chosen - leaf.start).reshape(len(chosen), -1)
    offsets = np.cumsum([0, *leaf.sizes[:-1]])
    columns = index + torch.as_tensor(offsets)
    return bool(mask.expand(len(chosen), -1).gather(1, columns).all())


# --- rows without a legal action ---------------------------------------------------------------------------------


@every_discrete
def test_a_row_without_a_legal_action_is_the_first_action_with_log_prob_and_entropy_zero(action):
    policy = lively(policy_of("vector", action))
    obs = batch_of(policy)
    mask = torch.ones(BATCH, width_of(policy), dtype=torch.bool)
    mask[1] = False
    first = torch.as_tensor(np.asarray(getattr(policy.actions.space, "start", 0)))
    for deterministic in (False, True):
        chosen, log_prob, _ = policy.get_action_and_value(obs, mask, deterministic)
        again, entropy, _ = policy.evaluate_actions(obs, chosen, mask)
        assert (chosen[1] == first).all()
        assert log_prob[1] == again[1] == entropy[1] == 0
        assert (entropy[[0, 2, 3]] > 0).all()
    assert policy.actions.space.contains(policy.actions.to_environment(chosen)[1])


@every_discrete
def test_a_row_without_a_legal_action_gives_log_prob_zero_to_any_action(action):
    policy = lively(policy_of("vector", action))
    obs = batch_of(policy)
    policy.actions.space.seed(0)
    stored = torch.as_tensor(np.stack([policy.actions.space.sample() for _ in range(BATCH)]))
    log_prob, entropy, _ = policy.evaluate_actions(obs, stored, torch.zeros(BATCH, width_of(policy)))
    assert not log_prob.any()
    assert not entropy.any()


@every_discrete
def test_a_row_without_a_legal_action_sends_no_gradient_and_leaves_others_alone(action):
    actions = policy_of("vector", action).actions
    width = actions.leaves[0].mask_width
    start = torch.randn(3, actions.num_parameters)
    partly, fully = torch.ones(3, width, dtype=torch.bool), torch.ones(3, width, dtype=torch.bool)
    partly[1] = False
    results = []
    for mask in (partly, fully):
        params = start.clone().requires_grad_()
        torch.manual_seed(0)
        chosen, log_prob = actions.choose(params, [mask])
        again, entropy = actions.evaluate(params, chosen, [mask])
        (log_prob + again * 2 + entropy * 3).sum().backward()
        results.append((chosen[0], log_prob, again, entropy, params.grad))
    quiet, usual = results
    assert not quiet[-1][1].any()
    for found, expected in zip(quiet, usual, strict=True):
        assert torch.equal(found[[0, 2]], expected[[0, 2]])


def test_a_variable_without_a_legal_choice_leaves_the_others_of_its_row_alone():
    actions = ActionDistribution(spaces.MultiDiscrete([2, 3], start=[5, 7]))
    params = torch.randn(1, 5)
    mask = torch.tensor([[False, False, True, False, True]])
    chosen, log_prob = actions.choose(params, [mask])
    (again, entropy) = actions.evaluate(params, chosen, [mask])
    legal = Categorical(logits=params[0, [2, 4]])
    assert chosen[0][0, 0] == 5
    assert chosen[0][0, 1] in (7, 9)
    torch.testing.assert_close(log_prob[0], legal.logits[(chosen[0][0, 1] - 7) // 2])
    torch.testing.assert_close(entropy[0], legal.entropy())
    assert torch.equal(again, log_prob)


# --- forms of a mask ---------------------------------------------------------------------------------------------


@every_discrete
@pytest.mark.parametrize("kind", ["bool", "int8", "int64", "float32", "float64", "numpy bool", "numpy int8", "list"])
def test_bool_integer_and_float_masks_are_one(action, kind):
    policy = lively(policy_of("vector", action))
    obs = batch_of(policy)
    mask = random_mask(policy)
    forms = {
        "numpy bool": lambda: mask.numpy(),
        "numpy int8": lambda: mask.numpy().astype(np.int8),
        "list": lambda: mask.int().tolist(),
    }
    form = forms[kind]() if kind in forms else mask.to(getattr(torch, kind))
    torch.manual_seed(0)
    found = policy.get_action_and_value(obs, form)
    torch.manual_seed(0)
    expected = policy.get_action_and_value(obs, mask)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert is_legal(policy.actions, found[0], mask)


@every_discrete
def test_one_mask_broadcasts_to_every_row(action):
    policy = lively(policy_of("vector", action))
    obs = batch_of(policy)
    mask = random_mask(policy, 1)
    torch.manual_seed(0)
    expected = policy.get_action_and_value(obs, mask.expand(BATCH, -1))
    for form in (mask[0], mask, mask[0].numpy(), mask[0].tolist()):
        torch.manual_seed(0)
        chosen, log_prob, _ = policy.get_action_and_value(obs, form)
        assert torch.equal(chosen, expected[0])
        assert torch.equal(log_prob, expected[1])
        assert torch.equal(policy.evaluate_actions(obs, chosen, form)[0], log_prob)


@every_discrete
@pytest.mark.parametrize("surplus", [-1, 1])
def test_a_mask_of_the_wrong_width_is_refused_with_both_shapes(action, surplus):
    policy = policy_of("vector", action)
    obs = batch_of(policy)
    width = width_of(policy)
    for mask in (torch.ones(BATCH, width + surplus), torch.ones(width + surplus), torch.ones(())):
        with pytest.raises(ShapeError, match=rf"\({width},\)") as caught:
            policy.get_action_and_value(obs, mask)
        assert str(tuple(mask.shape)) in str(caught.value)
        with pytest.raises(ShapeError):
            policy.evaluate_actions(obs, policy.get_action_and_value(obs)[0], mask)


@every_discrete
def test_a_mask_of_another_batch_is_refused(action):
    policy = policy_of("vector", action)
    with pytest.raises(ShapeError, match="mask"):
        policy.get_action_and_value(batch_of(policy), torch.ones(BATCH - 1, width_of(policy)))


def test_a_multidiscrete_mask_may_be_a_tuple_with_one_array_for_each_variable():
    """The form that gymnasium's `MultiDiscrete.sample(mask=…)` takes, for one observation and for a batch."""
    policy = lively(policy_of("vector", "multidiscrete"))
    obs = batch_of(policy)
    one = (np.array([1, 0], np.int8), np.array([0, 1, 0, 0, 1], np.int8), np.array([1, 1, 0], np.int8))
    flat = torch.as_tensor(np.concatenate(one)).bool()
    for form in (one, tuple(np.stack([part] * BATCH) for part in one), tuple(torch.as_tensor(part) for part in one)):
        torch.manual_seed(0)
        chosen, log_prob, _ = policy.get_action_and_value(obs, form)
        torch.manual_seed(0)
        expected = policy.get_action_and_value(obs, flat)
        assert torch.equal(chosen, expected[0])
        assert torch.equal(log_prob, expected[1])
        assert is_legal(policy.actions, chosen, flat)


def test_a_multidiscrete_mask_lists_the_values_of_each_variable_in_turn():
    actions = ActionDistribution(spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[1, 0], [0, 5]]))
    mask = torch.tensor([0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0], dtype=torch.bool)
    (chosen,), log_prob = actions.choose(torch.randn(8, 11), [mask.unsqueeze(0)])
    assert chosen.tolist() == [[[2, 2], [1, 5]]] * 8
    torch.testing.assert_close(log_prob, torch.zeros(8))


def test_a_multibinary_mask_holds_a_pair_for_each_bit():
    actions = ActionDistribution(spaces.MultiBinary((2, 2)))
    mask = torch.tensor([1, 0, 0, 1, 1, 1, 0, 1], dtype=torch.bool)  # off; on; free; on
    (chosen,), _ = actions.choose(torch.randn(200, 4), [mask.unsqueeze(0)])
    assert not chosen[:, 0, 0].any()
    assert chosen[:, 0, 1].all()
    assert 50 < chosen[:, 1, 0].sum() < 150
    assert chosen[:, 1, 1].all()


# --- composite spaces --------------------------------------------------------------------------------------------


def hybrid() -> Any:
    policy = lively(policy_of("vector", "hybrid"))
    return policy, batch_of(policy, 64)


def test_a_composite_mask_has_the_structure_of_the_space():
    policy, obs = hybrid()
    mask = {
        "move": torch.tensor([0, 1, 0]),
        "inner": (torch.tensor([0, 1, 1, 0, 0, 1, 1, 0]), torch.tensor([1, 0, 0, 0, 1])),
    }
    chosen, log_prob, _ = policy.get_action_and_value(obs, mask)
    assert (chosen["move"] == 2).all()
    assert chosen["inner"][0].tolist() == [[[1, 0], [1, 0]]] * 64
    assert chosen["inner"][1].tolist() == [[0, 2]] * 64
    look = policy.distribution(obs).parameters["look"]
    torch.testing.assert_close(
        log_prob, torch.distributions.Normal(look["loc"], look["scale"]).log_prob(chosen["look"]).sum(-1)
    )
    assert torch.equal(policy.evaluate_actions(obs, chosen, mask)[0], log_prob)


@pytest.mark.parametrize(
    "mask",
    [
        {"move": torch.tensor([0, 1, 0])},
        {"move": torch.tensor([0, 1, 0]), "inner": ()},
        {"move": torch.tensor([0, 1, 0]), "inner": (None, torch.ones(5))},
        {"move": torch.tensor([0, 1, 0]), "look": None},
    ],
    ids=["missing key", "short tuple", "None in a tuple", "None for a Box"],
)
def test_what_a_composite_mask_leaves_out_is_all_legal(mask):
    policy, obs = hybrid()
    full = {"move": mask["move"], "inner": (torch.ones(8), torch.ones(5))}
    torch.manual_seed(0)
    chosen, log_prob, _ = policy.get_action_and_value(obs, mask)
    torch.manual_seed(0)
    expected = policy.get_action_and_value(obs, full)
    assert (chosen["move"] == 2).all()
    assert all(torch.equal(a, b) for a, b in zip(leaves(chosen), leaves(expected[0]), strict=True))
    assert torch.equal(log_prob, expected[1])


@pytest.mark.parametrize(
    "mask",
    [{"mvoe": torch.ones(3)}, torch.ones(16), np.ones(16), {"inner": torch.ones(13)}, {"move": {"x": torch.ones(3)}}],
    ids=["a misspelt key", "a flat tensor", "a flat array", "flat where a tuple is", "deeper than the space"],
)
def test_a_mask_that_is_not_of_the_spaces_structure_is_refused_not_ignored(mask):
    policy, obs = hybrid()
    with pytest.raises(ShapeError, match="mask"):
        policy.get_action_and_value(obs, mask)


# --- masks inside observations -----------------------------------------------------------------------------------


def masked_policy(action_space: Any = None, **more: Any) -> Any:
    space = spaces.Dict(state=spaces.Box(-1, 1, (3,), np.float32), action_mask=spaces.MultiBinary(4), **more)
    spec = default_registry.decode("model", {"type": "mlp", "hidden": [8]})
    return lively(build_policy(spec, space, action_space or spaces.Discrete(4), default_registry, seed=0).eval())


def test_the_observations_own_mask_is_used_by_default():
    policy = masked_policy()
    mask = torch.tensor([[0, 0, 1, 0]], dtype=torch.int8).expand(64, -1)
    obs = {"state": torch.randn(64, 3), "action_mask": mask}
    chosen, log_prob, _ = policy.get_action_and_value(obs)
    assert (chosen == 2).all()
    assert not log_prob.any()
    assert not policy.evaluate_actions(obs, chosen)[1].any()
    assert (policy.acting()(obs)[0] == 2).all()
    assert (policy.distribution(obs).sample() == 2).all()
    assert not policy.distribution(obs).entropy().any()
    array, _ = policy.predict({"state": np.zeros(3, np.float32), "action_mask": np.array([0, 0, 0, 1], np.int8)})
    assert array == 3


def test_an_explicit_mask_goes_before_the_observations_own():
    policy = masked_policy()
    obs = {"state": torch.randn(8, 3), "action_mask": torch.tensor([[0, 0, 1, 0]]).expand(8, -1)}
    assert (policy.get_action_and_value(obs, torch.tensor([0, 1, 0, 0]))[0] == 1).all()


def test_the_network_never_reads_the_mask():
    policy = masked_policy()
    assert list(policy.plan.inputs) == ["observation.state"]
    state = torch.randn(8, 3)
    legal = {"state": state, "action_mask": torch.ones(8, 4, dtype=torch.int8)}
    illegal = {"state": state, "action_mask": torch.zeros(8, 4, dtype=torch.int8)}
    for found, expected in zip(policy(legal), policy(illegal), strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(policy.get_value(legal), policy.get_value(illegal))


def test_a_mask_in_a_tensordict_is_used():
    policy = lively(policy_of("vector", "discrete"))
    mask = torch.tensor([[0, 0, 0, 1]], dtype=torch.bool).expand(8, -1)
    data = policy.get_action_and_value(TensorDict({"observation": torch.randn(8, 4), "action_mask": mask}, [8]))
    assert (data["action"] == 3).all()
    assert not data["action_log_prob"].any()


# --- what a mask does to the distribution ------------------------------------------------------------------------


@every_discrete
def test_an_illegal_action_is_never_drawn_in_ten_thousand(action):
    policy = lively(policy_of("vector", action))
    mask = random_mask(policy, 10_000)
    torch.manual_seed(0)
    params = torch.randn(10_000, policy.actions.num_parameters) * 5
    for deterministic in (False, True):
        (chosen,), log_prob = policy.actions.choose(params, [mask], deterministic)
        assert is_legal(policy.actions, chosen, mask)
        assert log_prob.isfinite().all()


def test_an_illegal_action_is_not_drawn_even_when_its_clock_shows_zero(monkeypatch):
    """In float16 five of 10⁸ exponential draws are 0, and argmax takes 0/0 for the greatest number."""
    monkeypatch.setattr(
        torch.Tensor, "exponential_", lambda self: self.zero_().add_(torch.tensor([0, 1, 1, 0]).to(self))
    )
    logits = torch.zeros(1, 4, dtype=torch.float16)
    legal = torch.tensor([[False, True, True, False]])
    log_probs = torch.log_softmax(sample.mask_logits(logits, legal), -1)
    assert sample.categorical_sample(log_probs).item() in (1, 2)


@pytest.mark.parametrize("action", ["discrete", "discrete_start"])
def test_entropy_and_log_prob_are_those_of_the_legal_actions(action):
    policy = lively(policy_of("vector", action))
    obs = batch_of(policy, 32)
    mask = random_mask(policy, 32)
    logits, _ = policy(obs)
    chosen, log_prob, _ = policy.get_action_and_value(obs, mask)
    entropy = policy.evaluate_actions(obs, chosen, mask)[1]
    start = int(policy.actions.space.start)
    for row in range(32):
        legal = Categorical(logits=logits[row][mask[row]])
        place = int(mask[row][: chosen[row] - start].sum())
        torch.testing.assert_close(entropy[row], legal.entropy())
        torch.testing.assert_close(log_prob[row], legal.log_prob(torch.tensor(place)))


def test_entropy_of_several_variables_is_the_sum_over_their_legal_choices():
    actions = ActionDistribution(spaces.MultiDiscrete([2, 3]))
    params = torch.randn(1, 5)
    mask = torch.tensor([[True, True, True, False, True]])
    _, entropy = actions.evaluate(params, [torch.tensor([[0, 0]])], [mask])
    expected = Categorical(logits=params[0, :2]).entropy() + Categorical(logits=params[0, [2, 4]]).entropy()
    torch.testing.assert_close(entropy[0], expected)


@every_discrete
def test_a_mask_of_ones_is_no_mask(action):
    policy = lively(policy_of("vector", action))
    obs = batch_of(policy)
    torch.manual_seed(0)
    found = policy.get_action_and_value(obs, torch.ones(width_of(policy)))
    torch.manual_seed(0)
    expected = policy.get_action_and_value(obs)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    masked = policy.evaluate_actions(obs, found[0], torch.ones(width_of(policy)))
    for a, b in zip(masked, policy.evaluate_actions(obs, found[0]), strict=True):
        torch.testing.assert_close(a, b)


@every_discrete
def test_illegal_choices_get_no_gradient(action):
    policy = policy_of("vector", action)
    actions, mask = policy.actions, random_mask(policy)
    params = torch.randn(BATCH, actions.num_parameters, requires_grad=True)
    chosen, _ = actions.choose(params.detach(), [mask])
    log_prob, entropy = actions.evaluate(params, chosen, [mask])
    (log_prob + entropy).sum().backward()
    if actions.leaves[0].binary:
        free = mask.unflatten(-1, (-1, 2)).all(-1)
        assert torch.equal(params.grad != 0, free)
    else:
        assert not params.grad[~mask].any()
        assert params.grad.any()


@every_discrete
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_no_nan(action, dtype):
    policy = policy_of("vector", action)
    actions, mask = policy.actions, random_mask(policy, 1000)
    mask[0] = False
    params = (torch.randn(1000, actions.num_parameters) * 20).to(dtype).requires_grad_()
    for deterministic in (False, True):
        chosen, log_prob = actions.choose(params, [mask], deterministic)
        again, entropy = actions.evaluate(params, chosen, [mask])
        assert is_legal(actions, chosen[0][1:], mask[1:])
        assert log_prob.isfinite().all() and entropy.isfinite().all()
        assert torch.equal(log_prob, again)
        assert (entropy >= -1e-2).all()
    (gradient,) = torch.autograd.grad((again + entropy).float().sum(), params)
    assert gradient.isfinite().all()


def test_the_log_prob_of_an_illegal_action_is_low_and_finite():
    actions = ActionDistribution(spaces.Discrete(3))
    mask = torch.tensor([[True, True, False]])
    log_prob, _ = actions.evaluate(torch.randn(1, 3), [torch.tensor([2])], [mask])
    assert log_prob.isfinite().all()
    assert log_prob < -1e30


@every_discrete
def test_masks_change_between_calls(action):
    policy = lively(policy_of("vector", action))
    obs = batch_of(policy)
    for seed in range(5):
        mask = random_mask(policy, seed=seed)
        assert is_legal(policy.actions, policy.get_action_and_value(obs, mask)[0], mask)
    assert policy.get_action_and_value(obs)[0].shape[0] == BATCH


@every_discrete
def test_strict_masks_refuse_a_row_without_a_legal_action(action):
    policy = lively(policy_of("vector", action))
    obs, mask = batch_of(policy), random_mask(policy)
    policy.strict_masks = True
    assert is_legal(policy.actions, policy.get_action_and_value(obs, mask)[0], mask)
    mask[2] = False
    with pytest.raises(ValueError, match="no legal action in row 2"):
        policy.get_action_and_value(obs, mask)
