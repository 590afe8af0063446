"""How leaves of an observation are read: what the space tells, what the file says, and what stays as it was stored."""

from __future__ import annotations

import json
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import policysmith
from policysmith.errors import CheckpointError, ConfigError
from policysmith.policy.observations import Observations
from policysmith.policy.readings import Reading, reading_of, reading_of_0_1, stored_reading
from policysmith.training.environments.known_leaves import known_leaves

TWO = spaces.Discrete(2)


def bytes_of(*shape, high=255):
    return spaces.Box(0, high, shape, np.uint8)


@pytest.mark.parametrize("shape", [(128,), (6, 9), (9, 9, 3), (3, 9, 9), (4, 9, 9, 3), (4, 3, 9, 9), (2, 2, 2, 2, 2)])
def test_bytes_are_scaled_whatever_their_rank(shape):
    assert reading_of(bytes_of(*shape)).scale == 255.0
    policy = policysmith.build({"model": {"type": "mlp", "hidden": [4]}}, bytes_of(*shape), TWO, seed=0)
    encoder = policy.components["observation_encoder"].module
    whole = torch.full((1, *shape), 255, dtype=torch.uint8)
    assert torch.equal(encoder(whole), torch.ones_like(encoder(whole)))


def test_bytes_are_divided_by_the_largest_that_the_space_allows():
    assert reading_of(bytes_of(9, 9, 3, high=1)).scale == 1.0
    assert reading_of(bytes_of(9, high=16)).scale == 16.0
    assert reading_of(spaces.Box(0, 200, (9,), np.int16)).scale == 1.0  # not bytes: numbers as they are


@pytest.mark.parametrize(("shape", "layout"), [
    ((9, 8), "hw"), ((9, 9, 3), "hwc"), ((3, 9, 9), "chw"), ((4, 9, 8, 3), "thwc"), ((4, 3, 9, 8), "tchw"),
    ((9,), None),
])  # fmt: skip
def test_axes_of_bytes_follow_from_the_shape(shape, layout):
    assert reading_of(bytes_of(*shape)).layout == layout


def test_float_images_and_stacks_have_a_layout_and_a_scale():
    space = spaces.Box(0, 1, (9, 8, 3), np.float32)
    assert reading_of(space) == Reading("numbers")
    policy = policysmith.build(
        {"model": {"type": "mlp"}, "observation": {"layout": {"observation": "hwc"}, "scale": {"observation": 2.0}}},
        space,
        TWO,
    )
    x = torch.rand(5, 9, 8, 3)
    assert torch.equal(policy.components["observation_encoder"].module(x), x.permute(0, 3, 1, 2) / 2)
    stack = reading_of(spaces.Box(0, 1, (4, 9, 8, 3), np.float32), layout="thwc")
    assert (stack.kind, stack.layout, stack.scale) == ("image", "thwc", 1.0)


@pytest.mark.parametrize(("options", "said"), [
    ({"layout": {"camera": "hw"}}, r"observation.layout: camera: layout 'hw' names 2 axes, for a leaf of shape \(9, 9"),
    ({"codes": {"camera": [3, 2]}}, r"observation.codes: camera: 2 numbers of codes, for 3 channels of a leaf"),
    ({"codes": {"speed": [3]}}, r"observation.codes: speed: codes are whole numbers, and this leaf has float32"),
    ({"layout": {"camra": "hwc"}}, r"no observation 'camra' \(did you mean 'camera'\?\)"),
])  # fmt: skip
def test_what_does_not_fit_a_leaf_is_refused(options, said):
    space = spaces.Dict(camera=bytes_of(9, 9, 3), speed=spaces.Box(-1, 1, (2,), np.float32))
    with pytest.raises(ConfigError, match=said):
        policysmith.build({"model": {"type": "mlp"}, "observation": options}, space, TWO)


def test_names_are_taken_with_and_without_their_prefix():
    space = spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Box(-1, 1, (3,)), c=bytes_of(4))
    plain = Observations(space, exclude=["a"], scale={"c": 4.0}, normalize=["b"])
    prefixed = Observations(space, ["observation.a"], {"observation.c": 4.0}, ["observation.b"])
    assert plain.told() == prefixed.told()
    assert list(plain.told()) == ["observation.b", "observation.c"]


def test_a_leaf_that_is_called_observation_keeps_its_own_name():
    space = spaces.Dict({"observation": spaces.Dict(x=spaces.Box(-1, 1, (2,))), "x": spaces.Box(-1, 1, (3,))})
    assert list(Observations(space, exclude=["observation.x"]).told()) == ["observation.x"]


def test_categories_that_a_component_takes_itself_are_told():
    space = spaces.Dict(room=spaces.Discrete(5), speed=spaces.Box(-1, 1, (2,)))
    components = {
        "room": {"type": "embedding", "in_keys": "observation.room", "dim": 3},
        "body": {"type": "mlp", "in_keys": ["room", "observation.speed"], "hidden": [4]},
        "policy": {"type": "action_head", "in_keys": "body"},
        "value": {"type": "value_head", "in_keys": "body"},
    }
    policy = policysmith.build({"model": {"type": "graph", "components": components}}, space, TWO)
    assert policysmith.describe(policy)["observation"] == {
        "observation.room": "one int64: categories, as they are into room",
        "observation.speed": "2 float32: numbers",
    }


def test_codes_are_read_one_hot_by_channel():
    space = bytes_of(2, 2, 2, high=3)
    policy = policysmith.build(
        {"model": {"type": "mlp"}, "observation": {"codes": {"observation": [4, 2]}}}, space, TWO
    )
    cells = torch.tensor([[[[0, 1], [3, 0]], [[2, 1], [1, 7]]]], dtype=torch.uint8)
    planes = policy.components["observation_encoder"].module(cells)
    assert planes.shape == (1, 6, 2, 2)
    expected = torch.zeros(1, 6, 2, 2)
    for (row, column), (first, second) in {(0, 0): (0, 1), (0, 1): (3, 0), (1, 0): (2, 1), (1, 1): (1, None)}.items():
        expected[0, first, row, column] = 1
        if second is not None:  # 7 is none of the two codes
            expected[0, 4 + second, row, column] = 1
    assert torch.equal(planes, expected)


class TestStored:
    """What was decided is stored with a policy, and one that says nothing is read as version 0.1.0 read it."""

    @pytest.mark.parametrize("options", [
        {}, {"scale": {"a": 3.0}}, {"layout": {"a": "chw"}}, {"codes": {"a": [2, 3, 4]}},
    ])  # fmt: skip
    def test_it_comes_back_as_it_was(self, tmp_path, options):
        space = spaces.Dict(a=bytes_of(4, 4, 3), b=bytes_of(5), c=TWO)
        policy = policysmith.build({"model": {"type": "mlp"}, "observation": options}, space, TWO, seed=0)
        loaded = policysmith.load(policysmith.save(policy, tmp_path / "policy"))
        assert loaded.observations.readings == policy.observations.readings
        obs = policy.prepare(space.sample())
        assert all(torch.equal(a, b) for a, b in zip(policy(obs), loaded(obs), strict=True))

    def test_a_policy_of_0_1_is_read_as_it_was_trained(self):
        space = spaces.Dict(ram=bytes_of(8), image=bytes_of(4, 4, 3, high=1), stack=bytes_of(2, 4, 4, 3))
        old = Observations(space, stored={})
        assert {name: (r.kind, r.scale) for name, r in old.readings.items()} == {
            "image": ("image", 255.0), "ram": ("numbers", 1.0), "stack": ("numbers", 1.0)
        }  # fmt: skip
        new = Observations(space)
        assert {name: (r.kind, r.scale) for name, r in new.readings.items()} == {
            "image": ("image", 1.0), "ram": ("numbers", 255.0), "stack": ("image", 255.0)
        }  # fmt: skip

    @pytest.mark.parametrize("data", [
        {}, 7, {"kind": "sound", "scale": 1.0}, {"kind": "image", "scale": "1", "layout": "hwc"},
        {"kind": "image", "scale": 1.0, "layout": "w"}, {"kind": "image", "scale": 1.0, "layout": "hw"},
        {"kind": "image", "scale": 1.0}, {"kind": "numbers", "scale": 0}, {"kind": "numbers", "scale": math.nan},
        {"kind": "numbers", "scale": True}, {"kind": "categories", "scale": 1.0},
        {"kind": "codes", "scale": 1.0, "layout": "hwc", "codes": [0, 1, 1]},
        {"kind": "codes", "scale": 1.0, "layout": "hwc", "codes": "111"},
        {"kind": "codes", "scale": 1.0, "layout": "hwc", "codes": [2]},
        {"kind": "image", "scale": 1.0, "layout": "hwc", "codes": [2, 2, 2]},
    ])  # fmt: skip
    def test_another_thing_in_its_place_is_a_damaged_policy(self, data):
        with pytest.raises(CheckpointError, match="the reading of an observation is"):
            stored_reading(data, bytes_of(4, 4, 3))

    def test_what_is_encoded_is_plain_data(self):
        reading = Reading("codes", layout="hwc", codes=(11, 6, 4), why="cells")
        assert stored_reading(json.loads(json.dumps(reading.encode())), bytes_of(4, 4, 3)) == reading


def test_a_space_of_another_kind_is_told_to_be_excluded():
    class Mission(spaces.Space):
        """As MiniGrid has one."""

    space = spaces.Dict(image=bytes_of(4, 4, 3), mission=Mission())
    with pytest.raises(
        ConfigError, match=r"a Mission at mission: exclude it \(observation: \{exclude: \[mission\]\}\)"
    ):
        Observations(space)


def test_a_subclass_of_a_refused_space_gets_its_advice():
    class Words(spaces.Text):
        """A Text of another name."""

    with pytest.raises(ConfigError, match="a Text at w: text has no fixed size: exclude it"):
        Observations(spaces.Dict(w=Words(4), x=spaces.Box(-1, 1, (2,))))


class TestMiniGrid:
    """Cells of MiniGrid are codes, which no space tells."""

    @pytest.fixture(autouse=True)
    def needs_it(self):
        pytest.importorskip("minigrid")

    @pytest.mark.parametrize(("wrappers", "said"), [
        ([], "image: codes, axes hwc, one-hot by channel (11 + 6 + 4) (cells of MiniGrid, by the environment's class)"),
        (["FullyObsWrapper"], "image: codes, axes hwc, one-hot by channel (11 + 6 + 4) (cells of MiniGrid"),
        (["ImgObsWrapper"], "observation: codes, axes hwc"),
        (["ImgObsWrapper", {"type": "FrameStackObservation", "stack_size": 4}], "observation: codes, axes thwc"),
        (["ImgObsWrapper", "FlattenObservation"], "observation: numbers, divided by 10"),
        (["RGBImgPartialObsWrapper"], "image: image, axes hwc, divided by 255 (bytes)"),
        (["FlatObsWrapper"], "observation: numbers (cells of MiniGrid, by the wrapper FlatObsWrapper)"),
        (["OneHotPartialObsWrapper"], "image: image, axes hwc, as it is (cells of MiniGrid"),
    ])  # fmt: skip
    def test_how_cells_are_read_and_by_what_that_is_known(self, wrappers, said):
        flat = any(w in ("ImgObsWrapper", "FlatObsWrapper") for w in wrappers)
        config = {"environment": {"id": "MiniGrid-Empty-5x5-v0", "wrappers": wrappers}, "model": {"type": "mlp"}}
        if not flat:
            config["observation"] = {"exclude": ["mission"]}
        told = policysmith.describe(config)["observation"]
        name = said.split(":")[0]
        key = "observation" if name == "observation" else f"observation.{name}"
        assert said.split(": ", 1)[1] in told[key].split(": ", 1)[1]

    def test_what_the_file_says_comes_first(self):
        config = {"environment": {"id": "MiniGrid-Empty-5x5-v0"}, "model": {"type": "mlp"}}
        config["observation"] = {"exclude": ["mission"], "scale": {"image": 10}}
        told = policysmith.describe(config)["observation"]["observation.image"]
        assert told == "7×7×3 uint8: image, axes hwc, divided by 10 (bytes)"

    def test_a_trained_policy_reads_them_so_elsewhere(self, tmp_path):
        config = {"environment": {"id": "MiniGrid-Empty-5x5-v0"}, "model": {"type": "mlp"}}
        policy = policysmith.build({**config, "observation": {"exclude": ["mission"]}}, seed=0)
        loaded = policysmith.load(policysmith.save(policy, tmp_path / "policy"))
        assert loaded.observations.readings["image"].codes == (11, 6, 4)


def test_nothing_is_known_of_other_environments():
    assert known_leaves(gym.make("CartPole-v1")) == {}


def test_0_1_knew_images_of_two_and_three_axes_alone():
    assert reading_of_0_1(bytes_of(4, 4)).layout == "hw"
    assert reading_of_0_1(bytes_of(4, 4, 4, 3)).kind == "numbers"
