"""Weights of keisei's networks give the outputs that they gave there, or every reason why they cannot be had."""

import json
import subprocess
import sys

import pytest
import safetensors.torch
import torch

import policysmith
from policysmith.dialects.keisei import import_checkpoint, read
from policysmith.dialects.keisei.weights import gate_ratio, gate_reduction
from policysmith.errors import CheckpointError, ConfigError
from policysmith.registry import Registry
from tests.reference.res_tower import ResTower
from tests.reference.se_resnet import SEResNet

EXACT = {"rtol": 0, "atol": 1e-6}
ELSEWHERE = """
import sys, torch, policysmith
given = torch.load("given.pt")
with torch.no_grad():
    torch.save({place: policysmith.load(place)(obs) for place, obs in given.items()}, "found.pt")
"""


def lively(model, seed=3):
    """The model in eval mode, every weight and statistic of it away from where it started."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_((torch.rand(tensor.shape, generator=generator) - 0.5) * 0.4)
            else:
                tensor.fill_(7)
    return model.eval()


def tower(channels=5, actions=11, depth=2, width=8, se_ratio=0.25, board=(9, 9)):
    torch.manual_seed(0)
    return lively(ResTower(channels, actions, depth, width, se_ratio, board))


def se_resnet(channels=5, moves=7, blocks=2, width=12, reduction=4):
    torch.manual_seed(0)
    return lively(SEResNet(channels, moves, blocks, width, reduction, 6, 4, 10, 9))


def stored(path, model_or_state):
    state = model_or_state if isinstance(model_or_state, dict) else model_or_state.state_dict()
    torch.save(state, path)
    return path


def expected(model, obs):
    """Policy output and value as the protocol gives them."""
    with torch.no_grad():
        out = model(obs)
    if len(out) == 2:
        return out
    moves, outcome, _ = out
    win, _, loss = outcome.softmax(-1).unbind(-1)
    return moves.flatten(1), win - loss


def assert_same(policy, model, obs):
    with torch.no_grad():
        found = policy(obs)
    for mine, theirs in zip(found, expected(model, obs), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


TWINS = {
    "tower": (tower, (9, 9), {}),
    "tower without gates": (lambda: tower(se_ratio=None), (9, 9), {}),
    "tower with one hidden unit": (lambda: tower(se_ratio=0.01, width=6), (9, 9), {}),
    "tower without blocks": (lambda: tower(depth=0), (9, 9), {}),
    "tower of eleven blocks": (lambda: tower(depth=11, width=4), (9, 9), {}),
    "tower on a small board": (lambda: tower(board=(5, 5)), (5, 5), {}),
    "tower on an oblong board": (lambda: tower(board=(4, 7)), (4, 7), {"board_size": (4, 7)}),
    "tower on an oblong board of square area": (lambda: tower(board=(4, 9)), (4, 9), {"board_size": (4, 9)}),
    "se_resnet": (se_resnet, (9, 9), {}),
    "se_resnet of one block": (lambda: se_resnet(blocks=1, width=5, reduction=2), (9, 9), {}),
    "se_resnet on another board": (se_resnet, (5, 7), {"board_size": (5, 7)}),
}


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """By name: the original, its checkpoint, an observation, options."""
    place = tmp_path_factory.mktemp("old")
    made = {name: (make(), torch.randn(4, 5, *board), options) for name, (make, board, options) in TWINS.items()}
    return {
        name: (model, stored(place / f"{name}.pt", model), obs, options) for name, (model, obs, options) in made.items()
    }


@pytest.fixture(scope="module")
def elsewhere(twins, tmp_path_factory):
    """Outputs of every twin, computed by a fresh interpreter that knows only what was stored."""
    place = tmp_path_factory.mktemp("new")
    for name, (_, file, _, options) in twins.items():
        policysmith.save(import_checkpoint(file, **options), place / name)
    torch.save({name: obs for name, (_, _, obs, _) in twins.items()}, place / "given.pt")
    subprocess.run([sys.executable, "-W", "error", "-c", ELSEWHERE], cwd=place, check=True, timeout=200)
    return torch.load(place / "found.pt")


@pytest.mark.parametrize("name", TWINS)
def test_a_policy_computes_what_the_original_computed(name, twins):
    model, file, obs, options = twins[name]
    policy = import_checkpoint(file, **options)
    assert not policy.training
    assert_same(policy, model, obs)


@pytest.mark.parametrize("name", TWINS)
def test_so_does_what_was_stored_in_a_new_process(name, twins, elsewhere):
    model, _, obs, _ = twins[name]
    for mine, theirs in zip(elsewhere[name], expected(model, obs), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


@pytest.mark.parametrize("make", [tower, se_resnet])
def test_every_number_is_carried_over_and_it_can_be_trained(make, tmp_path):
    model = make()
    policy = import_checkpoint(stored(tmp_path / "old.pt", model))
    total = sum(tensor.double().sum() for tensor in model.state_dict().values())
    assert sum(tensor.double().sum() for tensor in policy.state_dict().values()) == pytest.approx(float(total))
    assert len(policy.state_dict()) == len(model.state_dict())
    assert all(count == 7 for name, count in policy.state_dict().items() if name.endswith("num_batches_tracked"))
    policy.train()(torch.randn(4, 5, 9, 9))[1].sum().backward()
    assert all(p.grad is not None for p in policy.components["trunk"].parameters())


def test_sizes_spaces_and_configuration_follow_from_the_shapes(tmp_path):
    policy = import_checkpoint(stored(tmp_path / "old.pt", tower(6, 13, 3, 16, 0.25)))
    model = {"type": "resnet", "tower_depth": 3, "tower_width": 16, "se_ratio": 0.25, "dropout_rate": 0.0}
    assert policy.config["model"] == model and policy.config["format"] == 1
    assert not {"environment", "training"} & set(policy.config)
    assert policy.observations.space.shape == (6, 9, 9) and policy.actions.space.n == 13


def test_sizes_of_se_resnet_follow_from_the_shapes(tmp_path):
    policy = import_checkpoint(stored(tmp_path / "old.pt", se_resnet(6, 7, 2, 12, 5)), board_size=(3, 4))
    model = dict(policy.config["model"])
    assert model["channels"] // model.pop("se_reduction") == 12 // 5
    assert model == {
        "type": "se_resnet",
        "num_blocks": 2,
        "channels": 12,
        "global_pool_channels": 6,
        "policy_channels": 4,
        "value_fc_size": 10,
        "score_fc_size": 9,
        "score_blend": 0.0,
    }
    assert policy.observations.space.shape == (6, 3, 4) and policy.actions.space.n == 3 * 4 * 7


def test_the_artifact_is_one_like_any_other(tmp_path):
    place = policysmith.save(import_checkpoint(stored(tmp_path / "old.pt", tower())), tmp_path / "new")
    config = json.loads((place / "config.json").read_text())
    assert config["observation_space"]["shape"] == [5, 9, 9] and config["action_space"]["n"] == 11
    assert policysmith.describe(place)["totals"]["parameters"] == sum(p.numel() for p in tower().parameters())
    with pytest.raises(ConfigError, match="has no environment to evaluate it in"):
        policysmith.evaluate(place)
    assert policysmith.check(config["experiment"], **spaces_of(policysmith.load(place))) == []


def spaces_of(policy):
    return {"observation_space": policy.observations.space, "action_space": policy.actions.space}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_of_every_kind_hold_the_same_policy(tmp_path, suffix, prefix):
    model, file = tower(), tmp_path / f"old{suffix}"
    state = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, file)
    else:
        torch.save({"model_state_dict": state, "optimizer_state_dict": {"state": {}}, "global_timestep": 5}, file)
    imported = read(file)
    assert_same(imported.policy, model, torch.randn(2, 5, 9, 9))
    left = ("left behind: optimizer_state_dict, global_timestep",) if suffix == ".pth" else ()
    assert imported.notes == left


@pytest.mark.parametrize("make", [tower, se_resnet])
def test_importing_leaves_the_file_and_the_global_generator_alone(make, tmp_path):
    file = stored(tmp_path / "old.pt", make())
    content, state = file.read_bytes(), torch.get_rng_state()
    policy = import_checkpoint(file)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
    assert file.read_bytes() == content and torch.equal(torch.get_rng_state(), state)


def test_other_precisions_are_stored_as_float32(tmp_path):
    model = tower()
    half = read(stored(tmp_path / "half.pt", tower().half()))
    assert half.notes == ("weights were float16, and are stored as float32",)
    assert {p.dtype for p in half.policy.parameters()} == {torch.float32}
    assert_same(half.policy, model.half().float(), torch.randn(2, 5, 9, 9))
    assert_same(import_checkpoint(stored(tmp_path / "double.pt", tower().double())), tower(), torch.randn(2, 5, 9, 9))


class TestInput:
    """Planes are added or cut off when that is asked for, and only then."""

    @pytest.mark.parametrize("make", [tower, se_resnet])
    def test_planes_added_change_no_output_whatever_they_hold(self, make, tmp_path):
        model = make()
        imported = read(stored(tmp_path / "old.pt", model), input_channels=8, resize_input=True)
        obs = torch.randn(4, 8, 9, 9)
        with torch.no_grad():
            found = imported.policy(obs)
        for mine, theirs in zip(found, expected(model, obs[:, :5]), strict=True):
            torch.testing.assert_close(mine, theirs, **EXACT)
        assert imported.notes[0].startswith("planes 5 to 7 were added with zero weights")

    @pytest.mark.parametrize("make", [tower, se_resnet])
    def test_planes_cut_off_are_those_at_the_end(self, make, tmp_path):
        model = make()
        imported = read(stored(tmp_path / "old.pt", model), input_channels=3, resize_input=True)
        obs = torch.randn(4, 5, 9, 9)
        obs[:, 3:] = 0  # what the missing planes amount to
        with torch.no_grad():
            found = imported.policy(obs[:, :3])
        for mine, theirs in zip(found, expected(model, obs), strict=True):
            torch.testing.assert_close(mine, theirs, **EXACT)
        assert imported.notes[0].startswith("planes 3 to 4 were cut off")

    def test_another_number_is_refused_unless_resizing_is_asked_for(self, tmp_path):
        file = stored(tmp_path / "old.pt", tower())
        with pytest.raises(CheckpointError, match="the weights read 5 planes, and 8 were asked for; --resize-input"):
            import_checkpoint(file, input_channels=8)

    @pytest.mark.parametrize("resize", [True, False])
    def test_the_number_that_is_there_is_fine(self, tmp_path, resize):
        imported = read(stored(tmp_path / "old.pt", tower()), input_channels=5, resize_input=resize)
        assert imported.notes == ()
        assert_same(imported.policy, tower(), torch.randn(2, 5, 9, 9))


class TestBoard:
    """The board is a square unless told."""

    def test_an_oblong_board_must_be_told(self, tmp_path):
        file = stored(tmp_path / "old.pt", tower(board=(4, 7)))
        with pytest.raises(CheckpointError, match=r"read 28 points, which is no square board; .*--board-size"):
            import_checkpoint(file)

    def test_a_board_of_another_area_is_refused(self, tmp_path):
        with pytest.raises(CheckpointError, match="8×8 has 64 points, and the heads read 81"):
            import_checkpoint(stored(tmp_path / "old.pt", tower()), board_size=(8, 8))

    def test_of_se_resnet_the_board_of_shogi_is_taken_and_said(self, tmp_path):
        imported = read(stored(tmp_path / "old.pt", se_resnet()))
        assert imported.notes == ("a board of 9×9 was taken: the weights fit any (--board-size)",)
        assert read(tmp_path / "old.pt", board_size=(9, 9)).notes == ()


class TestMismatches:
    """Every problem is named at once, and nothing is loaded."""

    def refused(self, tmp_path, state, **options):
        with pytest.raises(CheckpointError) as caught:
            import_checkpoint(stored(tmp_path / "old.pt", state), **options)
        first, *lines = str(caught.value).splitlines()
        assert first.startswith(f"{tmp_path / 'old.pt'}: cannot be imported as keisei's ")
        return [line.removeprefix("  ") for line in lines]

    def test_missing_misshapen_and_unexpected_tensors_are_listed_together(self, tmp_path):
        state = tower().state_dict()
        state["res_blocks.0.conv1.weigth"] = state.pop("res_blocks.0.conv1.weight")
        del state["stem.bias"]
        state["policy_head.4.weight"] = torch.zeros(11, 160)
        state["res_blocks.1.bn2.bias"] = torch.zeros(9)
        state["bn_stem.num_batches_tracked"] = torch.tensor(1.0)
        state["value_head.4.bias"] = torch.zeros(1, dtype=torch.int64)
        state["frobnicate"] = torch.zeros(2)
        assert self.refused(tmp_path, state) == [
            "stem.bias: missing",
            "res_blocks.0.conv1.weight: missing",
            "bn_stem.num_batches_tracked: float32 (), expected integer ()",
            "res_blocks.1.bn2.bias: float32 (9,), expected float (8,)",
            "value_head.4.weight: float32 (1, 162), expected float (1, 160)",
            "value_head.4.bias: int64 (1,), expected float (1,)",
            "res_blocks.0.conv1.weigth: unexpected (did you mean 'res_blocks.0.conv1.weight'?)",
            "frobnicate: unexpected",
            "board size: the heads read 80 points, which is no square board; tell its sides with --board-size HxW "
            "(board_size=(H, W))",
        ]

    def test_what_was_asked_for_is_checked_along_with_the_tensors(self, tmp_path):
        state = tower().state_dict()
        del state["stem.bias"]
        lines = self.refused(tmp_path, state, board_size=(8, 8), input_channels=6)
        assert [line.partition(":")[0] for line in lines] == ["stem.bias", "board size", "input channels"]

    def test_most_tensors_tell_a_size_not_the_first(self, tmp_path):
        state = tower().state_dict()
        state["stem.weight"] = torch.zeros(9, 5, 3, 3)
        assert self.refused(tmp_path, state) == ["stem.weight: float32 (9, 5, 3, 3), expected float (8, 5, 3, 3)"]

    def test_a_gap_between_blocks_is_noticed(self, tmp_path):
        state = {n: t for n, t in tower(depth=3).state_dict().items() if not n.startswith("res_blocks.1.")}
        lines = self.refused(tmp_path, state)
        assert lines and all(line.startswith("res_blocks.1.") and line.endswith(": missing") for line in lines)

    def test_a_block_without_the_others_gates_is_noticed(self, tmp_path):
        state = {n: t for n, t in tower().state_dict().items() if not n.startswith("res_blocks.1.se.")}
        assert self.refused(tmp_path, state) == [
            f"res_blocks.1.se.{name}: missing" for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
        ]

    def test_se_resnet_is_checked_alike(self, tmp_path):
        state = se_resnet().state_dict()
        state["blocks.0.global_fc.0.weight"] = torch.zeros(6, 35)
        state["input_conv.bias"] = torch.zeros(12)
        del state["score_fc2.bias"]
        assert self.refused(tmp_path, state) == [
            "score_fc2.bias: missing",
            "blocks.0.global_fc.0.weight: float32 (6, 35), expected float (6, 36)",
            "input_conv.bias: unexpected",
        ]

    def test_se_resnet_without_blocks_lacks_them(self, tmp_path):
        state = {n: t for n, t in se_resnet().state_dict().items() if not n.startswith("blocks.")}
        assert "blocks.0.conv1.weight: missing" in self.refused(tmp_path, state)

    def test_of_very_many_problems_the_first_are_shown_and_the_rest_counted(self, tmp_path):
        state = {n: t for n, t in tower(depth=9).state_dict().items() if "conv" not in n and "bn1" not in n}
        lines = self.refused(tmp_path, {**state, **{f"odd{i}": torch.zeros(1) for i in range(500)}})
        assert len(lines) == 62 and "and 470 more unexpected" in lines[-1]

    def test_a_block_of_an_absurd_number_costs_nothing(self, tmp_path):
        odd = "res_blocks.999999.conv1.weight"
        assert self.refused(tmp_path, {**tower().state_dict(), odd: torch.zeros(1)}) == [f"{odd}: unexpected"]

    @pytest.mark.parametrize("name", ["stem.weight\x1b[2J\n", "res_blocks." + "9" * 5000, "s" * 5000])
    def test_names_are_made_harmless_in_messages(self, tmp_path, name):
        (line,) = self.refused(tmp_path, {**tower().state_dict(), name: torch.zeros(1)})
        assert line.isprintable() and len(line) < 200

    def test_empty_tensors_are_mismatches(self, tmp_path):
        state = {name: tensor[:0] if tensor.ndim else tensor for name, tensor in tower().state_dict().items()}
        assert "stem.weight: float32 (0, 5, 3, 3), expected float (8, 5, 3, 3)" in self.refused(tmp_path, state)

    def test_gates_that_no_option_gives_are_refused(self, tmp_path):
        assert self.refused(tmp_path, tower(se_ratio=1.5)) == [
            "the gates have 12 hidden units for 8 channels; there may be no more than channels"
        ]
        state = se_resnet().state_dict()
        for index in range(2):
            block = f"blocks.{index}.se_fc"
            state |= {f"{block}1.weight": torch.zeros(5, 12), f"{block}1.bias": torch.zeros(5)}
            state[f"{block}2.weight"] = torch.zeros(24, 5)
        assert self.refused(tmp_path, state) == [
            "the gates have 5 hidden units for 12 channels, which no se_reduction gives"
        ]


@pytest.mark.parametrize("name", ["policy_fc.weight", "other.weight"])
def test_other_networks_are_named_or_shown(tmp_path, name):
    state = {"input_conv.weight" if name == "policy_fc.weight" else "x": torch.zeros(2), name: torch.ones(2)}
    file = stored(tmp_path / "old.pt", state)
    wanted = {
        "policy_fc.weight": "is one of keisei's later models of type resnet, mlp or transformer",
        "other.weight": r"is no network of keisei: .* has stem.weight, .*; found x, other.weight",
    }
    with pytest.raises(CheckpointError, match=wanted[name]):
        import_checkpoint(file)


@pytest.mark.parametrize("size", [(9,), (9, 0), (9, 9.0), (True, 9), "99", 81, (9, 9, 9)])
def test_a_board_is_two_positive_integers(tmp_path, size):
    with pytest.raises(ConfigError, match=r"^board_size: expected \(H, W\), two integers > 0, found "):
        import_checkpoint(tmp_path / "never_read.pt", board_size=size)


def test_every_wrong_argument_is_named(tmp_path):
    with pytest.raises(ConfigError) as caught:
        import_checkpoint(tmp_path / "never_read.pt", board_size=9, input_channels=0)
    assert [p.path for p in caught.value.problems] == ["board_size", "input_channels"]
    with pytest.raises(ConfigError, match="resize_input: says nothing without input_channels"):
        import_checkpoint(tmp_path / "never_read.pt", resize_input=True)


def test_types_are_looked_up_in_the_registry_that_is_given(tmp_path):
    with pytest.raises(CheckpointError, match=r"old\.pt: no policy can be built of it here: .*unknown model 'resnet'"):
        import_checkpoint(stored(tmp_path / "old.pt", tower()), registry=Registry())


def test_a_ratio_is_found_for_every_number_of_hidden_units():
    for width in range(1, 300):
        for hidden in range(1, width + 1):
            ratio = gate_ratio(width, hidden)
            assert 0 < ratio <= 1 and max(1, int(width * ratio)) == hidden


def test_a_reduction_is_found_for_every_number_of_hidden_units_there_can_be():
    for channels in range(1, 300):
        for hidden in {channels // reduction for reduction in range(1, channels + 1)}:
            assert channels // gate_reduction(channels, hidden) == hidden


def test_usual_ratios_come_back_as_they_were():
    for width, ratio in ((256, 0.25), (256, 0.0625), (16, 0.5), (8, 1.0)):
        assert gate_ratio(width, max(1, int(width * ratio))) == ratio
