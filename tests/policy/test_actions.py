"""Action distributions against `torch.distributions`, their slow twin."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Bernoulli,
    Categorical,
    Independent,
    Normal,
    TanhTransform,
    TransformedDistribution,
)

from policysmith.errors import ConfigError
from policysmith.policy import ActionDistribution, ActionHead
from policysmith.policy.distributions import DistributionView
from policysmith.registry import default_registry
from tests.laws.policies import ACTIONS, batch_of, leaves, lively, policy_of

BOX = spaces.Box(np.array([-2, 0, 1], np.float32), np.array([1, 10, 3], np.float32))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def params_of(actions: ActionDistribution, batch: int = 16, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, actions.num_parameters, generator=generator)


def gaussian(params: Tensor) -> Independent:
    loc, log_std = params.chunk(2, -1)
    return Independent(Normal(loc, log_std.exp()), 1)


def squashed(params: Tensor, box: spaces.Box) -> TransformedDistribution:
    low, high = (torch.as_tensor(bound.astype(np.float32)).flatten() for bound in (box.low, box.high))
    transforms = [TanhTransform(cache_size=1), AffineTransform((low + high) / 2, (high - low) / 2, event_dim=1)]
    return TransformedDistribution(gaussian(params), transforms)


def gradient(value: Tensor, params: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), params, retain_graph=True)[0]


# --- against torch.distributions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, -3, 7])
def test_discrete_is_a_categorical(start):
    actions = ActionDistribution(spaces.Discrete(5, start=start))
    params = params_of(actions).requires_grad_()
    twin = Categorical(logits=params)
    (chosen,), drawn = actions.choose(params)
    log_prob, entropy = actions.evaluate(params, [chosen])
    torch.testing.assert_close(drawn, twin.log_prob(chosen - start))
    torch.testing.assert_close(log_prob, twin.log_prob(chosen - start))
    torch.testing.assert_close(entropy, twin.entropy())
    torch.testing.assert_close(gradient(log_prob, params), gradient(twin.log_prob(chosen - start), params))
    torch.testing.assert_close(gradient(entropy, params), gradient(twin.entropy(), params))
    assert torch.equal(actions.choose(params, deterministic=True)[0][0], params.argmax(-1) + start)


@pytest.mark.parametrize("space", [spaces.MultiDiscrete([2, 5, 3]), spaces.MultiDiscrete([4, 4], start=[1, -9])])
def test_multidiscrete_is_independent_categoricals(space):
    actions = ActionDistribution(space)
    params = params_of(actions).requires_grad_()
    twins = [Categorical(logits=part) for part in params.split(space.nvec.tolist(), -1)]
    (chosen,), drawn = actions.choose(params)
    log_prob, entropy = actions.evaluate(params, [chosen])
    index = chosen - torch.as_tensor(space.start)
    expected = sum(twin.log_prob(index[:, i]) for i, twin in enumerate(twins))
    torch.testing.assert_close(drawn, expected)
    torch.testing.assert_close(log_prob, expected)
    torch.testing.assert_close(entropy, sum(twin.entropy() for twin in twins))
    torch.testing.assert_close(gradient(log_prob, params), gradient(expected, params))


def test_multibinary_is_independent_bernoullis_of_its_logits():
    actions = ActionDistribution(spaces.MultiBinary((2, 3)))
    params = params_of(actions).requires_grad_()
    twin = Bernoulli(logits=params)
    (chosen,), drawn = actions.choose(params)
    log_prob, entropy = actions.evaluate(params, [chosen])
    assert chosen.shape == (16, 2, 3)
    expected = twin.log_prob(chosen.flatten(1).float()).sum(-1)
    torch.testing.assert_close(drawn, expected)
    torch.testing.assert_close(log_prob, expected)
    torch.testing.assert_close(entropy, twin.entropy().sum(-1))
    assert torch.equal(actions.choose(params, deterministic=True)[0][0].flatten(1), (params > 0).long())


@pytest.mark.parametrize("shape", [(3,), (2, 2), (), (1,)])
def test_box_is_a_diagonal_gaussian(shape):
    actions = ActionDistribution(spaces.Box(-1, 1, shape, np.float32))
    params = params_of(actions).requires_grad_()
    twin = gaussian(params)
    (chosen,), drawn = actions.choose(params.detach())
    log_prob, entropy = actions.evaluate(params, [chosen])
    assert chosen.shape == (16, *shape)
    expected = twin.log_prob(chosen.reshape(16, -1))
    torch.testing.assert_close(drawn, expected)
    torch.testing.assert_close(log_prob, expected)
    torch.testing.assert_close(entropy, twin.entropy())
    torch.testing.assert_close(gradient(log_prob, params), gradient(expected, params))
    torch.testing.assert_close(actions.choose(params, deterministic=True)[0][0].reshape(16, -1), twin.mean)


def test_a_squashed_box_is_a_gaussian_through_tanh_and_an_affine_map():
    actions = ActionDistribution(BOX, squash=True)
    params = params_of(actions).requires_grad_()
    (chosen,), drawn = actions.choose(params.detach())
    twin = squashed(params, BOX)
    log_prob, _ = actions.evaluate(params, [chosen])
    expected = twin.log_prob(chosen)
    inside = ((chosen - actions.leaves[0].centre) / actions.leaves[0].half_range).abs().amax(-1) < 0.999
    assert inside.sum() > 8  # nearer to the edge float32 itself loses the digits
    torch.testing.assert_close(drawn[inside], expected[inside], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(log_prob[inside], expected[inside], rtol=1e-3, atol=1e-3)
    twin, kept = squashed(params[inside], BOX), chosen[inside]  # others' gradients are NaN in torch's, even times zero
    fast, slow = gradient(log_prob[inside], params), gradient(twin.log_prob(kept), params)
    torch.testing.assert_close(fast, slow, rtol=1e-2, atol=1e-2)


def test_a_squashed_box_in_double_precision_is_exact():
    actions = ActionDistribution(BOX, squash=True).double()
    params = params_of(actions).double()
    (chosen,), drawn = actions.choose(params)
    expected = squashed(params, BOX).log_prob(chosen)
    kept = expected.isfinite()  # torch's own makes NaN of an action that was rounded to its limit
    assert drawn.isfinite().all() and kept.sum() > 12
    torch.testing.assert_close(drawn[kept], expected[kept], rtol=1e-4, atol=1e-4)


def test_the_entropy_of_a_squashed_box_is_that_of_many_draws():
    actions = ActionDistribution(BOX, squash=True)
    params = params_of(actions, 6) * torch.tensor([1, 1, 1, 0.3, 0.3, 0.3])
    _, entropy = actions.evaluate(params, [torch.as_tensor(BOX.low + 0.5).expand(6, -1)])
    torch.manual_seed(0)
    loc, log_std = params.double().chunk(2, -1)
    u = loc + log_std.exp() * torch.randn(100_000, 6, 3, dtype=torch.float64)
    slope = 2 * (math.log(2) - u - F.softplus(-2 * u)) + actions.leaves[0].half_range.double().log()
    drawn = (slope - Normal(loc, log_std.exp()).log_prob(u)).sum(-1).mean(0)
    torch.testing.assert_close(entropy.double(), drawn, rtol=0, atol=0.05)


def test_squashed_actions_stay_finite_at_the_edge_of_the_box():
    actions = ActionDistribution(BOX, squash=True)
    params = torch.tensor([[50.0, -50.0, 0.0, 1.0, 1.0, -20.0]]).requires_grad_()
    (chosen,), log_prob = actions.choose(params)
    again, entropy = actions.evaluate(params, [torch.as_tensor(BOX.high).unsqueeze(0)])
    assert all(t.isfinite().all() for t in (chosen, log_prob, again, entropy))
    assert gradient(again + entropy, params).isfinite().all()
    assert BOX.contains(actions.to_environment(chosen)[0])


# --- sampling ----------------------------------------------------------------------------------------------------


def chi_square(counts: Tensor, probabilities: Tensor) -> float:
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("mask", [None, [True, True, False, True, True]], ids=["free", "masked"])
def test_a_discrete_action_is_drawn_as_often_as_it_is_likely(mask):
    actions = ActionDistribution(spaces.Discrete(5, start=2))
    logits = torch.tensor([[1.0, -1.0, 0.0, 2.0, -2.0]])
    torch.manual_seed(0)
    legal = torch.tensor([mask]) if mask else None
    (chosen,), _ = actions.choose(logits.expand(20_000, -1), [] if legal is None else [legal])
    likely = logits if legal is None else logits.masked_fill(~legal, -math.inf)
    probabilities = likely.softmax(-1)[0]
    counts = torch.bincount(chosen - 2, minlength=5).float()
    kept = probabilities > 0
    assert not counts[~kept].any()
    assert chi_square(counts[kept], probabilities[kept]) < 18.5  # 0.1 % of fair samplers, 4 degrees of freedom


def test_variables_of_a_multidiscrete_are_drawn_as_often_as_likely_and_independently():
    actions = ActionDistribution(spaces.MultiDiscrete([2, 3]))
    params = torch.tensor([[0.5, -0.5, 1.0, 0.0, -1.0]])
    torch.manual_seed(0)
    (chosen,), _ = actions.choose(params.expand(20_000, -1))
    joint = params[0, :2].softmax(-1).unsqueeze(1) * params[0, 2:].softmax(-1)
    counts = torch.bincount(chosen[:, 0] * 3 + chosen[:, 1], minlength=6).float()
    assert chi_square(counts, joint.flatten()) < 20.5  # 5 degrees of freedom


def test_bits_of_a_multibinary_are_drawn_as_often_as_likely():
    actions = ActionDistribution(spaces.MultiBinary(3))
    params = torch.tensor([[1.0, 0.0, -2.0]])
    torch.manual_seed(0)
    (chosen,), _ = actions.choose(params.expand(20_000, -1))
    torch.testing.assert_close(chosen.float().mean(0), params[0].sigmoid(), rtol=0, atol=0.015)


@pytest.mark.parametrize("squash", [False, True])
def test_a_box_is_drawn_with_its_mean_and_deviation(squash):
    actions = ActionDistribution(BOX, squash=squash)
    params = torch.tensor([[0.3, -0.2, 0.0, -0.5, 0.1, -1.0]])
    torch.manual_seed(0)
    (chosen,), _ = actions.choose(params.expand(50_000, -1))
    if squash:
        assert ((chosen >= torch.as_tensor(BOX.low)) & (chosen <= torch.as_tensor(BOX.high))).all()
        leaf = actions.leaves[0]
        chosen = torch.atanh(((chosen - leaf.centre) / leaf.half_range).clamp(-0.999999, 0.999999))
    torch.testing.assert_close(chosen.mean(0), params[0, :3], rtol=0, atol=0.03)
    torch.testing.assert_close(chosen.std(0), params[0, 3:].exp(), rtol=0.03, atol=0)


def test_rows_are_drawn_independently():
    actions = ActionDistribution(spaces.Discrete(2))
    torch.manual_seed(0)
    (chosen,), _ = actions.choose(torch.zeros(10_000, 2))
    assert 0.47 < (chosen[1:] == chosen[:-1]).float().mean() < 0.53


# --- composites, structure, environment --------------------------------------------------------------------------


def test_a_composite_adds_up_its_leaves():
    space = ACTIONS["hybrid"]()
    actions = ActionDistribution(space)
    params = params_of(actions)
    parts = [ActionDistribution(leaf) for leaf in (space["inner"][0], space["inner"][1], space["look"], space["move"])]
    order = {"inner": parts[:2], "look": parts[2:3], "move": parts[3:]}
    singles = [part for key in space.spaces for part in order[key]]
    chosen, log_prob = actions.choose(params)
    again, entropy = actions.evaluate(params, chosen)
    pieces = params.split([part.num_parameters for part in singles], -1)
    results = [part.evaluate(p, [action]) for part, p, action in zip(singles, pieces, chosen, strict=True)]
    torch.testing.assert_close(log_prob, sum(r[0] for r in results))
    torch.testing.assert_close(again, log_prob)
    torch.testing.assert_close(entropy, sum(r[1] for r in results))


def test_a_composite_action_has_the_structure_of_the_space():
    policy = policy_of("vector", "hybrid")
    chosen, _, _ = policy.get_action_and_value(batch_of(policy))
    assert set(chosen) == {"move", "look", "inner"}
    assert isinstance(chosen["inner"], tuple)
    assert [tuple(leaf.shape) for leaf in leaves({k: chosen[k] for k in sorted(chosen)})] == [
        (4, 2, 2),
        (4, 2),
        (4, 2),
        (4,),
    ]


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_for_the_environment_are_arrays_of_the_spaces_dtype(action):
    policy = policy_of("vector", action)
    chosen, _, _ = policy.get_action_and_value(batch_of(policy))
    arrays = policy.actions.to_environment(chosen)
    for leaf, array in zip(policy.actions.leaves, leaves(arrays), strict=True):
        assert isinstance(array, np.ndarray)
        assert array.dtype == leaf.space.dtype
        assert array.shape == (4, *(leaf.space.shape or ()))


def test_box_actions_are_clipped_for_the_environment_only():
    actions = ActionDistribution(spaces.Box(-1, 1, (2,), np.float32))
    chosen = torch.tensor([[5.0, -0.5]])
    assert actions.to_environment(chosen).tolist() == [[1.0, -0.5]]
    assert chosen.tolist() == [[5.0, -0.5]]


def test_a_box_without_bounds_is_not_clipped():
    actions = ActionDistribution(spaces.Box(-np.inf, np.inf, (1,), np.float32))
    assert actions.to_environment(torch.tensor([[1e6]])).tolist() == [[1e6]]


@pytest.mark.parametrize(
    ("space", "named"),
    [
        (spaces.Discrete(3), {"logits": (4, 3)}),
        (spaces.MultiDiscrete([2, 3]), {"logits": (4, 5)}),
        (spaces.MultiBinary(3), {"logits": (4, 3)}),
        (spaces.Box(-1, 1, (2,)), {"loc": (4, 2), "scale": (4, 2)}),
    ],
)
def test_parameters_have_the_usual_names(space, named):
    actions = ActionDistribution(space)
    view = DistributionView(actions, params_of(actions, 4))
    assert {name: tuple(t.shape) for name, t in view.parameters.items()} == named
    if "scale" in named:
        assert (view.parameters["scale"] > 0).all()


# --- heads -------------------------------------------------------------------------------------------------------


def test_an_independent_deviation_is_one_free_parameter_a_dimension():
    policy = policy_of("vector", "box", std="independent", initial_std=0.5)
    head = policy.components["policy"].module
    assert isinstance(head, ActionHead)
    assert head.out.out_features == 3
    torch.testing.assert_close(head.log_std.exp(), torch.full((3,), 0.5))
    scale = policy.distribution(batch_of(policy)).parameters["scale"]
    torch.testing.assert_close(scale, torch.full((4, 3), 0.5))


def test_a_dependent_deviation_follows_the_state_within_bounds():
    policy = lively(policy_of("vector", "box", std="dependent"))
    head = policy.components["policy"].module
    assert head.log_std is None
    assert head.out.out_features == 6
    scale = policy.distribution(batch_of(policy)).parameters["scale"]
    assert not torch.equal(scale[0], scale[1])
    with torch.no_grad():
        head.out.bias.fill_(1000.0)
    torch.testing.assert_close(
        policy.distribution(batch_of(policy)).parameters["scale"], torch.full((4, 3), math.exp(2))
    )
    with torch.no_grad():
        head.out.bias.fill_(-1000.0)
    torch.testing.assert_close(
        policy.distribution(batch_of(policy)).parameters["scale"], torch.full((4, 3), math.exp(-20))
    )


def test_a_dependent_deviation_starts_at_initial_std():
    policy = policy_of("vector", "box", std="dependent", initial_std=0.5)
    scale = policy.distribution(batch_of(policy)).parameters["scale"]
    torch.testing.assert_close(scale, torch.full((4, 3), 0.5), rtol=0.1, atol=0)


@pytest.mark.parametrize("std", ["independent", "dependent"])
def test_a_head_gives_each_leaf_of_a_composite_its_own_parameters(std):
    policy = policy_of("vector", "hybrid", std=std, initial_std=0.25)
    params, _ = policy(batch_of(policy))
    assert params.shape == (4, policy.actions.num_parameters)
    named = policy.distribution(batch_of(policy)).parameters
    assert named["move"]["logits"].shape == (4, 3)
    assert named["look"]["scale"].shape == (4, 2)
    if std == "independent":
        torch.testing.assert_close(named["look"]["scale"], torch.full((4, 2), 0.25))
        assert policy.components["policy"].module.log_std.shape == (2,)


def test_a_fresh_policy_is_almost_uniform():
    policy = policy_of("vector", "discrete")
    probabilities = policy(batch_of(policy))[0].softmax(-1)
    torch.testing.assert_close(probabilities, torch.full_like(probabilities, 0.25), rtol=0, atol=0.02)


# --- what is refused ---------------------------------------------------------------------------------------------


def build_with(space: Any, **options: Any) -> str:
    from policysmith.policy import build_policy

    spec = default_registry.decode("model", {"type": "mlp", **options})
    with pytest.raises(ConfigError) as caught:
        build_policy(spec, spaces.Box(-1, 1, (2,)), space, default_registry, seed=0)
    return str(caught.value)


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (spaces.Text(5), "has a Text at its root: text has no fixed size"),
        (
            spaces.Graph(spaces.Box(-1, 1, (2,)), None),
            "has a Graph at its root: graphs vary in size: turn it into a fixed",
        ),
        (spaces.Sequence(spaces.Discrete(2)), "has a Sequence at its root: sequences vary in length: pad it"),
        (spaces.OneOf((spaces.Discrete(2), spaces.Discrete(3))), "use a Dict with a Discrete selector"),
        (spaces.Box(0, 5, (2,), np.int64), "is not continuous: declare it as MultiDiscrete"),
        (spaces.Box(0, 255, (2,), np.uint8), "is not continuous: declare it as MultiDiscrete"),
    ],
    ids=["Text", "Graph", "Sequence", "OneOf", "int64 Box", "uint8 Box"],
)
def test_what_can_be_no_action_is_refused_with_advice(space, sentence):
    assert sentence in build_with(space)


def test_a_refused_leaf_is_named():
    text = build_with(spaces.Dict(say=spaces.Tuple((spaces.Discrete(2), spaces.Text(3)))))
    assert "the action space has a Text at say.1" in text


@pytest.mark.parametrize(
    "space",
    [spaces.Text(5), spaces.Dict(say=spaces.Text(5)), spaces.Sequence(spaces.Discrete(2))],
    ids=["Text", "nested Text", "Sequence"],
)
def test_the_advice_for_actions_is_not_that_for_observations(space):
    assert "exclude" not in build_with(space)  # one can leave an observation out, not an action


@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (0, np.inf), (-np.inf, 1)])
def test_squash_needs_finite_bounds(bounds):
    text = build_with(spaces.Box(*bounds, (2,), np.float32), squash=True)
    assert "squash needs an action space with finite bounds; set squash: false" in text


def test_squash_of_a_box_without_width_is_refused():
    text = build_with(spaces.Box(np.array([0, 1], np.float32), np.array([1, 1], np.float32)), squash=True)
    assert "bounds" in text


@pytest.mark.parametrize("start", [0, 3])
def test_a_distribution_can_be_made_on_the_meta_device(start):
    with torch.device("meta"):
        made = ActionDistribution(spaces.Discrete(4, start=start))
    assert made.layout == ActionDistribution(spaces.Discrete(4, start=start)).layout
