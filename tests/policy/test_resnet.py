"""The residual tower: the original's parameters, outputs and calls, on any board."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from gymnasium import spaces

import policysmith
from policysmith.dialects.keisei.names import ActorCriticResTower
from policysmith.errors import ConfigError, ShapeError
from policysmith.policy import ActorCritic
from policysmith.policy.factory import make_blueprint
from policysmith.registry import default_registry
from tests.reference.res_tower import ResTower, our_name

SMALL = {"tower_depth": 2, "tower_width": 8, "se_ratio": 0.25}


def tower(channels=5, actions=11, **options):
    return ActorCriticResTower(channels, actions, **{**SMALL, **options})


def planned(model_type, channels, actions, board=(9, 9), **options):
    """Parameters by the plan alone."""
    blueprint = make_blueprint(
        default_registry.decode("model", {"type": model_type, **options}),
        spaces.Box(-1, 1, (channels, *board)),
        spaces.Discrete(actions),
        pytest.fail,
        default_registry,
    )
    return blueprint.plan.parameter_count


def closed_form(channels, actions, board, depth, width, se_ratio):
    """The formulas of contracts/actor-critic-tower.md, §2.4, for any board."""
    points = 2 * board[0] * board[1]
    hidden = max(1, int(width * (se_ratio or 0)))
    gates = 2 * width * hidden + hidden + width if se_ratio else 0
    blocks = depth * (2 * (9 * width**2 + width) + 4 * width + gates)
    heads = 2 * (2 * width + 6) + (points + 1) * (actions + 1)
    return 9 * channels * width + 3 * width + blocks + heads


@pytest.mark.parametrize(
    ("model_type", "channels", "actions", "options", "parameters"),
    [
        ("resnet", 46, 13_527, {"se_ratio": 0.25}, 13_241_300),
        ("resnet", 46, 3_781, {"se_ratio": 0.25}, 11_652_702),
        ("resnet", 46, 13_527, {}, 12_943_508),
        ("resnet", 51, 13_527, {"se_ratio": 0.25}, 13_252_820),
        ("dummy", 46, 13_527, {}, 2_216_516),
        ("dummy", 46, 13_527, {"tower_depth": 9, "tower_width": 256, "se_ratio": 0.25}, 2_216_516),
    ],
)
def test_the_plan_has_the_parameters_of_the_original(model_type, channels, actions, options, parameters):
    assert planned(model_type, channels, actions, **options) == parameters


@pytest.mark.parametrize("board", [(9, 9), (8, 8), (3, 7)])
@pytest.mark.parametrize(("depth", "width", "se_ratio"), [(0, 1, None), (1, 16, 0.0), (3, 12, 0.01), (2, 8, 1.0)])
def test_parameters_follow_the_closed_form_on_any_board(board, depth, width, se_ratio):
    options = {"tower_depth": depth, "tower_width": width, "se_ratio": se_ratio}
    expected = closed_form(5, 11, board, depth, width, se_ratio)
    assert planned("resnet", 5, 11, board, **options) == expected
    built = ActorCriticResTower(5, 11, board_size=board, **options)
    assert sum(p.numel() for p in built.parameters()) == expected


@pytest.mark.parametrize("board", [(9, 9), (8, 8), (3, 7)])
def test_any_board_has_logits_and_values(board):
    model = tower(board_size=board)
    logits, value = model(torch.randn(4, 5, *board))
    assert logits.shape == (4, 11) and value.shape == (4,)


def pair(se_ratio, board):
    """The slow twin with lively weights and statistics, and ours with the same."""
    torch.manual_seed(3)
    slow = ResTower(5, 11, 2, 8, se_ratio, board).double()
    with torch.no_grad():
        for name, tensor in slow.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * 0.3 + ("running_var" in name))
    ours = tower(se_ratio=se_ratio, board_size=board).double()
    ours.load_state_dict({our_name(name): tensor for name, tensor in slow.state_dict().items()})
    return ours, slow


@pytest.mark.parametrize("board", [(9, 9), (8, 6)])
@pytest.mark.parametrize("se_ratio", [None, 0.25])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_weights_of_the_original_give_its_outputs_gradients_and_statistics(board, se_ratio, training):
    ours, slow = (model.train(training) for model in pair(se_ratio, board))
    x = torch.randn(6, 5, *board, dtype=torch.float64)
    for model in (ours, slow):
        logits, value = model(x)
        (logits.square().mean() + value.square().mean()).backward()
    for mine, other in zip(ours(x), slow(x), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    for name, parameter in slow.named_parameters():
        torch.testing.assert_close(gradients[our_name(name)], parameter.grad, rtol=1e-9, atol=1e-12)
    state = ours.state_dict()
    for name, tensor in slow.state_dict().items():
        torch.testing.assert_close(state[our_name(name)], tensor, rtol=1e-12, atol=1e-12)


def test_no_ratio_and_zero_are_no_squeeze_and_excitation():
    assert list(tower(se_ratio=0.0).state_dict()) == list(tower(se_ratio=None).state_dict())
    assert any(".se.fc1." in name for name in tower().state_dict())


def test_dropout_has_no_parameters_and_works_in_training_alone():
    torch.manual_seed(0)
    plain = tower()
    torch.manual_seed(0)
    dropping = tower(dropout_rate=0.5)
    assert list(plain.state_dict()) == list(dropping.state_dict())
    x = torch.randn(4, 5, 9, 9)
    assert torch.equal(plain.eval()(x)[0], dropping.eval()(x)[0])
    dropping.train()
    assert not torch.equal(dropping(x)[0], dropping(x)[0])


def test_layers_start_by_their_roles():
    state = tower(actions=7).state_dict()
    gains = {"trunk.stem": 2**0.5, "trunk.res_blocks.1.conv2": 2**0.5, "policy.4.out": 0.01, "state_value.4.out": 1.0}
    for name, gain in gains.items():
        values = torch.linalg.svdvals(state[f"components.{name}.weight"].flatten(1))
        torch.testing.assert_close(values, torch.full_like(values, gain))
        assert not state[f"components.{name}.bias"].any()


def test_the_global_generator_decides_the_weights():
    def draw(seed):
        torch.manual_seed(seed)
        return tower().state_dict()["components.trunk.stem.weight"]

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("deterministic", [True, False])
def test_acting_and_evaluating_agree_to_the_last_bit(training, masked, deterministic):
    model = tower().train(training)
    obs = torch.randn(6, 5, 9, 9)
    mask = torch.rand(6, 11) < 0.5 if masked else None
    action, log_prob, value = model.get_action_and_value(obs, mask, deterministic)
    again, entropy, value_again = model.evaluate_actions(obs, action, mask)
    assert torch.equal(log_prob, again) and torch.equal(value, value_again)
    assert log_prob.shape == entropy.shape == value.shape == (6,)
    assert torch.equal(value, model.get_value(obs))


def test_illegal_moves_are_never_chosen_and_a_row_without_legal_moves_gives_zeros():
    model = tower(actions=40).eval()
    obs = torch.randn(64, 5, 9, 9)
    mask = torch.rand(64, 40) < 0.1
    mask[0], mask[1:, 7] = False, True
    for _ in range(20):
        action, log_prob, value = model.get_action_and_value(obs, mask)
        assert mask[torch.arange(1, 64), action[1:]].all()
    assert action[0] == 0 and log_prob[0] == 0 and value[0] != 0
    _, entropy, _ = model.evaluate_actions(obs, action, mask)
    assert entropy[0] == 0 and (entropy[1:] <= mask[1:].sum(-1).log() + 1e-5).all()
    one_for_all, _, _ = model.get_action_and_value(obs, mask[1])
    assert mask[1][one_for_all].all()


@pytest.mark.parametrize("call", ["forward", "get_action_and_value", "get_value", "acting", "distribution"])
@pytest.mark.parametrize("called", [True, False])
def test_a_wrong_observation_is_explained(call, called):
    model = tower().eval()
    run = model.acting() if call == "acting" else getattr(model, call)
    if called:
        run(torch.randn(2, 5, 9, 9))
    with pytest.raises(ShapeError, match=r"has shape \(2, 9, 9, 5\), expected \(B, 5, 9, 9\) \(looks like NHWC; exp"):
        run(torch.randn(2, 9, 9, 5))
    for shape in ((5, 9, 9), (2, 5, 8, 8), (2, 4, 9, 9), (5,)):
        with pytest.raises(ShapeError) as caught:
            run(torch.randn(shape))
        assert str(caught.value) == f"observation has shape {shape}, expected (B, 5, 9, 9)"
    with pytest.raises(ShapeError, match="expected channels first"):
        model.evaluate_actions(torch.randn(2, 9, 9, 5), torch.zeros(2, dtype=torch.int64))


def test_every_policy_explains_a_wrong_observation_and_leaves_other_errors_alone():
    space = spaces.Dict(eye=spaces.Box(-1, 1, (4,)), ear=spaces.Box(-1, 1, (3,)))
    model = policysmith.build({"model": {"type": "mlp", "hidden": [8]}}, space, spaces.Discrete(2))
    good = {"eye": torch.randn(2, 4), "ear": torch.randn(2, 3)}
    with pytest.raises(ShapeError, match=r"^observation.ear has shape \(2, 5\), expected \(B, 3\)$"):
        model({**good, "ear": torch.randn(2, 5)})

    def fail(*_):
        raise RuntimeError("out of memory")

    model.components["actor"].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        model(good)


def test_a_trained_tower_gives_the_same_outputs_in_a_new_process(tmp_path):
    torch.manual_seed(0)
    model = tower().train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    obs, mask = torch.randn(6, 5, 9, 9), torch.rand(6, 11) < 0.7
    before = copy.deepcopy(model.state_dict())
    action, _, _ = model.get_action_and_value(obs, mask)
    log_prob, entropy, value = model.evaluate_actions(obs, action, mask)
    (value.square().mean() - log_prob.mean() - entropy.mean()).backward()
    optimizer.step()
    state = model.eval().state_dict()
    assert all(not torch.equal(before[name], tensor) for name, tensor in state.items())
    policysmith.save(model, tmp_path / "tower")
    torch.save((obs, mask), tmp_path / "given.pt")
    code = (
        "import sys, torch, policysmith; here = sys.argv[1]; "
        "model = policysmith.load(f'{here}/tower'); obs, mask = torch.load(f'{here}/given.pt'); "
        "found = [*model(obs), *model.get_action_and_value(obs, mask, deterministic=True)]; "
        "torch.save([t.detach() for t in found], f'{here}/found.pt')"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path)], check=True)
    found = torch.load(tmp_path / "found.pt")
    expected = [*model(obs), *model.get_action_and_value(obs, mask, deterministic=True)]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(expected, found, strict=True))


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_the_same_class_and_computes_the_same(copier):
    model = tower().eval()
    obs = torch.randn(3, 5, 9, 9)
    model(obs)
    twin = copier(model)
    assert type(twin) is ActorCriticResTower
    assert torch.equal(twin(obs)[0], model(obs)[0])


def test_a_configuration_builds_the_same_tower():
    model = {"type": "resnet", **SMALL}
    policy = policysmith.build({"model": model, "seed": 5}, spaces.Box(-1, 1, (5, 9, 9)), spaces.Discrete(11))
    mine = tower()
    assert type(policy) is ActorCritic and isinstance(mine, ActorCritic)
    assert {n: t.shape for n, t in policy.state_dict().items()} == {n: t.shape for n, t in mine.state_dict().items()}
    assert policysmith.describe(mine) == policysmith.describe(policy)


def test_the_tower_is_a_component_like_any_other():
    components = {
        "eye": {"type": "resnet_tower", "in_keys": "observation", "depth": 1, "width": 4, "se_ratio": 0.5},
        "pooled": {"type": "nn.AdaptiveAvgPool2d", "in_keys": "eye", "output_size": 1},
        "policy": {"type": "action_head", "in_keys": "pooled"},
        "state_value": {"type": "board_value_head", "in_keys": "eye"},
    }
    model = {"type": "graph", "components": components}
    boards = spaces.Box(-1, 1, (5, 6, 7)), spaces.Box(-1, 1, (2,))
    with pytest.raises(ConfigError, match=r"eye: batch normalisation(.|\n)*state_value: batch normalisation"):
        policysmith.build({"model": model}, *boards)
    policy = policysmith.build({"model": {**model, "batch_coupled": True}}, *boards)
    params, value = policy(torch.randn(3, 5, 6, 7))
    assert params.shape == (3, 4) and value.shape == (3,)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"tower_depth": -1}, "model.tower_depth: must be ≥ 0, found -1"),
        ({"tower_width": 0}, "model.tower_width: must be > 0, found 0"),
        ({"se_ratio": 1.5}, "model.se_ratio: must be ≤ 1, found 1.5"),
        ({"dropout_rate": 1.0}, "model.dropout_rate: must be < 1, found 1.0"),
        ({"board_size": (9,)}, r"obs_shape: expected \(C, H, W\), three integers > 0, found \(5, 9\)"),
        ({"channels": 0}, r"obs_shape: expected \(C, H, W\), three integers > 0, found \(0, 9, 9\)"),
        ({"actions": 0}, "num_actions: must be > 0, found 0"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments, problem):
    with pytest.raises(ValueError, match=f"^{problem}$"):
        tower(**arguments)
