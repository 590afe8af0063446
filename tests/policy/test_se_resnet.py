"""The KataGo-like network: the original's parameters and outputs, on any board."""

import copy
import pickle

import pytest
import torch
from gymnasium import spaces

import policysmith
from policysmith import model_factory
from policysmith.errors import ConfigError, ShapeError
from policysmith.policy import ActorCritic
from policysmith.policy.factory import make_blueprint
from policysmith.registry import default_registry
from tests.reference.se_resnet import SEResNet, our_name

SMALL = {
    "num_blocks": 2,
    "channels": 8,
    "se_reduction": 4,
    "global_pool_channels": 6,
    "policy_channels": 5,
    "value_fc_size": 7,
    "score_fc_size": 4,
}
EDGES = ("value_logits", "score_lead")


def spaces_of(planes, board, moves):
    return spaces.Box(-1, 1, (planes, *board)), spaces.Discrete(board[0] * board[1] * moves)


def network(planes=5, board=(4, 3), moves=3, seed=0, **options):
    model = {"type": "se_resnet", **SMALL, **options}
    return policysmith.build({"model": model, "seed": seed}, *spaces_of(planes, board, moves))


def planned(planes=50, board=(9, 9), moves=139, **options):
    """The plan alone: nothing is allocated."""
    model = default_registry.decode("model", {"type": "se_resnet", **options})
    return make_blueprint(model, *spaces_of(planes, board, moves), pytest.fail, default_registry).plan


def closed_form(planes, moves, o):
    """Parameters by layer; convolutions have no bias, except for the last of the policy."""
    c, hidden, pooled = o["channels"], o["channels"] // o["se_reduction"], o["global_pool_channels"]
    bias = 3 * c * pooled + pooled + pooled * c + c
    gates = c * hidden + hidden + 2 * hidden * c + 2 * c
    block = 2 * (9 * c * c + 2 * c) + bias + gates
    policy = c * o["policy_channels"] + 2 * o["policy_channels"] + (o["policy_channels"] + 1) * moves
    value = (3 * c + 1) * o["value_fc_size"] + 3 * (o["value_fc_size"] + 1)
    score = (3 * c + 1) * o["score_fc_size"] + o["score_fc_size"] + 1
    return 9 * planes * c + 2 * c + o["num_blocks"] * block + policy + value + score


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 53_422_511),
        ({"num_blocks": 20, "channels": 128}, 7_506_383),
        ({"num_blocks": 10, "channels": 128}, 3_860_863),
        ({"num_blocks": 60, "channels": 320}, 122_247_135),
        ({"num_blocks": 80, "channels": 384}, 231_138_479),
    ],
)
def test_the_plan_has_the_parameters_of_the_original(options, parameters):
    assert planned(**options).parameter_count == parameters


@pytest.mark.parametrize("board", [(9, 9), (8, 8), (3, 7), (1, 1)])
@pytest.mark.parametrize("changes", [{}, {"num_blocks": 1, "channels": 4}, {"se_reduction": 8}, {"se_reduction": 3}])
def test_parameters_follow_the_closed_form_on_any_board(board, changes):
    options = {**SMALL, **changes}
    expected = closed_form(5, 3, options)
    assert planned(5, board, 3, **options).parameter_count == expected
    assert sum(p.numel() for p in network(board=board, **changes).parameters()) == expected


def test_the_plan_shows_every_head():
    shapes = {name: spec.shape for name, spec in planned(num_blocks=1, channels=16).edges.items()}
    heads = {"policy": (11_259,), "pooled": (48,), "value_logits": (3,), "score_lead": (1,), "state_value": ()}
    assert shapes == {"observation": (50, 9, 9), "trunk": (16, 9, 9), **heads}


def test_the_names_of_stored_weights_are_the_original_ones():
    slow = SEResNet(5, 3, **SMALL)
    ours = network().state_dict()
    assert {our_name(name): t.shape for name, t in slow.state_dict().items()} == {n: t.shape for n, t in ours.items()}
    for name in ("trunk.blocks.1.global_fc.2.bias", "policy.conv2.bias", "value_logits.fc2.weight"):
        assert f"components.{name}" in ours


def pair(board, **options):
    """The slow twin with lively weights and statistics, and ours with the same."""
    torch.manual_seed(3)
    slow = SEResNet(5, 3, **SMALL).double()
    with torch.no_grad():
        for name, tensor in slow.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) if "running_var" in name else 0.2 * torch.randn_like(tensor))
    ours = network(board=board, **options).double()
    ours.load_state_dict({our_name(name): tensor for name, tensor in slow.state_dict().items()})
    return ours, slow


def slow_value(outcome, score, blend):
    chances = outcome.exp() / outcome.exp().sum(-1, keepdim=True)
    return (1 - blend) * (chances[:, 0] - chances[:, 2]) + blend * torch.clip(score[:, 0], -1, 1)


@pytest.mark.parametrize("board", [(9, 9), (4, 3)])
@pytest.mark.parametrize("blend", [0.0, 0.3])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_weights_of_the_original_give_its_outputs_gradients_and_statistics(board, blend, training):
    ours, slow = (model.train(training) for model in pair(board, score_blend=blend))
    x, action = torch.randn(6, 5, *board, dtype=torch.float64), torch.arange(6)
    moves, outcome, score = slow(x)
    value = slow_value(outcome, score, blend)
    log_prob = moves.flatten(1).log_softmax(-1)[torch.arange(6), action]
    expected = (log_prob, value, outcome, score)
    mine, _, my_value, my_outcome, my_score = ours.evaluating(extra=EDGES)(x, action)
    for a, b in zip((mine, my_value, my_outcome, my_score), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    for tensors in (expected, (mine, my_value, my_outcome, my_score)):
        sum(t.square().mean() for t in tensors).backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    for name, parameter in slow.named_parameters():
        torch.testing.assert_close(gradients[our_name(name)], parameter.grad, rtol=1e-8, atol=1e-11, msg=name)
    state = ours.state_dict()
    for name, tensor in slow.state_dict().items():
        torch.testing.assert_close(state[our_name(name)], tensor, rtol=1e-11, atol=1e-11, msg=name)
    params, again = ours.eval()(x)
    slow_moves, outcome, score = slow.eval()(x)
    torch.testing.assert_close(params.view(6, *board, 3), slow_moves, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(again, slow_value(outcome, score, blend), rtol=1e-11, atol=1e-11)


def test_layers_start_by_their_roles():
    state = network(moves=2).state_dict()
    gains = {"trunk.input_conv": 2**0.5, "trunk.blocks.1.conv2": 2**0.5, "policy.conv2": 0.01, "value_logits.fc2": 1.0}
    for name, gain in gains.items():
        values = torch.linalg.svdvals(state[f"components.{name}.weight"].flatten(1))
        torch.testing.assert_close(values, torch.full_like(values, gain))
    assert not any(t.any() for n, t in state.items() if n.endswith(("fc1.bias", "fc2.bias", "conv2.bias")))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("masked", [True, False])
def test_acting_and_evaluating_agree_to_the_last_bit(training, masked):
    model = network().train(training)
    obs, mask = torch.randn(6, 5, 4, 3), torch.rand(6, 36) < 0.5 if masked else None
    for deterministic in (True, False):
        action, log_prob, value = model.get_action_and_value(obs, mask, deterministic)
        again, entropy, value_again = model.evaluate_actions(obs, action, mask)
        assert torch.equal(log_prob, again) and torch.equal(value, value_again)
        assert log_prob.shape == entropy.shape == value.shape == (6,)
        assert torch.equal(value, model.get_value(obs))


def test_empty_boards_learn_with_finite_gradients():
    """Constant planes everywhere: deviations are zero at the first layer and after."""
    model = network().train()
    log_prob, entropy, value = model.evaluate_actions(torch.zeros(4, 5, 4, 3), torch.zeros(4, dtype=torch.int64))
    (log_prob.sum() + entropy.sum() + value.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_a_wrong_observation_is_explained():
    with pytest.raises(
        ShapeError, match=r"shape \(2, 4, 3, 5\), expected \(B, 5, 4, 3\) \(looks like NHWC; expected ch"
    ):
        network().eval()(torch.randn(2, 4, 3, 5))


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_computes_the_same(copier):
    model, obs = network().eval(), torch.randn(3, 5, 4, 3)
    model(obs)
    assert torch.equal(copier(model)(obs)[0], model(obs)[0])


def test_it_is_stored_and_loaded(tmp_path):
    model, obs = network(score_blend=0.5).eval(), torch.randn(3, 5, 4, 3)
    policysmith.save(model, tmp_path / "network")
    loaded = policysmith.load(tmp_path / "network")
    assert all(torch.equal(a, b) for a, b in zip(loaded(obs), model(obs), strict=True))


def test_a_file_of_two_options_builds(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text("model: {type: se_resnet, num_blocks: 10, channels: 128}\n")
    boards = spaces_of(50, (9, 9), 139)
    assert policysmith.check(path, observation_space=boards[0], action_space=boards[1]) == []
    policy = policysmith.build(path, *boards)
    assert type(policy) is ActorCritic
    assert sum(p.numel() for p in policy.parameters()) == 3_860_863


def test_the_factory_makes_it_from_its_own_options():
    model = model_factory("se_resnet", (5, 4, 3), 36, **SMALL)
    assert isinstance(model, ActorCritic)
    assert {n: t.shape for n, t in model.state_dict().items()} == {
        n: t.shape for n, t in network().state_dict().items()
    }
    with pytest.raises(ConfigError, match=r"unknown argument of model 'se_resnet'.*did you mean 'num_blocks'\?"):
        model_factory("se_resnet", (5, 4, 3), 36, num_block=2)
    with pytest.raises(ValueError, match="35 actions are no multiple of the 4 · 3 = 12 points"):
        model_factory("se_resnet", (5, 4, 3), 35, **SMALL)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        *(({name: 0}, f"model.{name}: must be > 0, found 0") for name in SMALL),
        ({"se_reduction": 9}, "model.se_reduction: must be ≤ channels=8, found 9: channels // se_reduction is the gat"),
        ({"score_blend": 1.5}, "model.score_blend: must be ≤ 1, found 1.5"),
        ({"tower_depth": 2}, "model.tower_depth: unknown option of 'se_resnet'"),
    ],
)
def test_what_is_out_of_range_is_refused(changes, problem):
    with pytest.raises(ValueError) as caught:
        network(**changes)
    assert str(caught.value).startswith(problem)
