"""Spaces survive the way through JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.errors import CheckpointError
from policysmith.store.space_codec import UnreadSpace, decode_space, encode_space


def through_json(space):
    return decode_space(json.loads(json.dumps(encode_space(space), allow_nan=False)))


EXAMPLES = [
    spaces.Box(-np.inf, np.inf, (3,)),
    spaces.Box(-1.5, np.inf, (), np.float64),
    spaces.Box(np.array([[-1, -np.inf], [0, 1]], np.float32), np.array([[0.1, np.inf], [np.inf, 1]], np.float32)),
    spaces.Box(0, 255, (84, 84, 3), np.uint8),
    spaces.Box(-(2**63), 2**63 - 2, (2,), np.int64),
    spaces.Box(0, 2**64 - 1, (2,), np.uint64),
    spaces.Box(0, 1, (2,), np.bool_),
    spaces.Box(-1, 1, (0, 3), np.float16),
    spaces.Discrete(5, start=-2),
    spaces.MultiDiscrete([3, 4], start=[1, -1]),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), dtype=np.int32),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 3]),
    spaces.Text(5),
    spaces.Text(9, min_length=0, charset="zyé\ud800\n"),
    spaces.Tuple([spaces.Discrete(2), spaces.Tuple([])]),
    spaces.Dict([("z", spaces.Discrete(2)), ("a", spaces.Dict({})), ("m.n", spaces.Text(3))]),
]


@pytest.mark.parametrize("space", EXAMPLES, ids=str)
def test_decode_of_encode_is_the_space(space):
    again = through_json(space)
    assert again == space and type(again) is type(space)
    space.seed(1)
    again.seed(1)
    assert repr(space.sample()) == repr(again.sample())


def test_a_uniform_bound_is_one_number_and_infinity_a_text():
    data = encode_space(spaces.Box(0, np.inf, (84, 84)))
    assert (data["low"], data["high"]) == (0.0, "inf")
    assert encode_space(spaces.Box(np.array([-np.inf, 0.0]), 1, dtype=np.float64))["low"] == ["-inf", 0.0]


def test_the_order_of_a_dict_is_kept():
    space = spaces.Dict([("z", spaces.Discrete(2)), ("a", spaces.Discrete(3))])
    assert list(through_json(space).spaces) == ["z", "a"]


def test_an_integer_box_without_ends_stays_without_ends():
    space = spaces.Box(np.array([-np.inf, 0]), np.array([5, np.inf]), dtype=np.int32)
    again = through_json(space)
    assert again == space
    assert np.array_equal(again.bounded_below, [False, True]) and np.array_equal(again.bounded_above, [True, False])


def test_the_order_of_a_charset_is_kept():
    assert through_json(spaces.Text(3, charset="zax")).character_list == ("z", "a", "x")


@pytest.mark.skipif("dtype" not in spaces.Discrete.__init__.__annotations__, reason="an older gymnasium")
def test_the_dtype_of_a_discrete_is_kept():
    assert through_json(spaces.Discrete(3, dtype=np.int32)).dtype == np.int32


def test_a_subclass_is_stored_as_what_it_derives_from():
    class Dial(spaces.Discrete):
        pass

    assert type(through_json(Dial(3))) is spaces.Discrete


@pytest.mark.parametrize(
    "space",
    [
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Dict({"graph": spaces.Graph(spaces.Box(-1, 1, (2,)), None)}),
        spaces.Dict([((1, 2), spaces.Discrete(2))]),
    ],
    ids=str,
)
def test_what_cannot_be_stored_is_refused(space):
    with pytest.raises(CheckpointError, match="cannot be stored"):
        encode_space(space)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": "Sequence"},
        {"type": []},
        {"type": "Box", "shape": [2], "dtype": "float32", "low": [1], "high": 2},
        {"type": "Box", "shape": [2], "dtype": "floot32", "low": 1, "high": 2},
        {"type": "Box", "shape": [1], "dtype": "uint8", "low": "-inf", "high": 300},
        {"type": "Box", "shape": [2], "dtype": "uint8", "low": [0, -1], "high": 255},
        {"type": "Box", "shape": [1], "dtype": "int32", "low": 0, "high": 1.5},
        {"type": "Box", "shape": [1], "dtype": "float32", "low": 0, "high": 1e300},
        {"type": "Discrete", "n": 0, "start": 0, "dtype": "int64"},
        {"type": "Discrete", "n": 2, "start": 300, "dtype": "int8"},
        {"type": "MultiDiscrete", "nvec": [2, 300], "start": [0, 0], "dtype": "uint8"},
        {"type": "MultiDiscrete", "nvec": [2, 2.5], "start": [0, 0], "dtype": "int64"},
        {"type": "Tuple", "spaces": [3]},
        {"type": "Dict", "spaces": [["a"]]},
        [],
    ],
    ids=str,
)
def test_data_of_no_space_is_refused(data):
    with pytest.raises(CheckpointError):
        decode_space(data)


bounds = st.floats(-100, 100, width=32) | st.just(np.inf)
dimensions = st.lists(st.integers(1, 3), max_size=3)


@st.composite
def boxes(draw):
    shape = tuple(draw(dimensions))
    values = st.lists(bounds, min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
    high = np.array(draw(values), np.float32).reshape(shape)
    low = -np.array(draw(values), np.float32).reshape(shape)
    return spaces.Box(np.minimum(low, high), np.maximum(low, high), dtype=np.float32)


@st.composite
def multi_discretes(draw):
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    numbers = st.lists(st.integers(1, 9), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
    nvec, start = (np.array(draw(numbers)).reshape(shape) for _ in range(2))
    return spaces.MultiDiscrete(nvec, start=start - 5)


leaves = (
    boxes()
    | multi_discretes()
    | st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 9), st.integers(-9, 9))
    | st.builds(spaces.MultiBinary, st.integers(1, 9) | st.lists(st.integers(1, 3), min_size=1, max_size=2))
    | st.builds(lambda n, charset: spaces.Text(n, charset=charset), st.integers(1, 9), st.text(min_size=1))
)
trees = st.recursive(
    leaves,
    lambda below: (
        st.lists(below, max_size=3).map(spaces.Tuple)
        | st.lists(st.tuples(st.text(max_size=5), below), max_size=3, unique_by=lambda pair: pair[0]).map(spaces.Dict)
    ),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(trees)
def test_any_tree_of_spaces_survives(space):
    again = through_json(space)
    assert again == space
    assert encode_space(again) == encode_space(space)


class Odd(spaces.Space):
    """A kind of space that nothing can be said of."""


def test_what_a_policy_leaves_out_keeps_its_place_whatever_it_is():
    inner = spaces.Dict(a=Odd(), b=spaces.Text(3))
    space = spaces.Dict(
        x=spaces.Box(-1, 1, (2,)), odd=Odd(), deep=inner, pair=spaces.Tuple([Odd(), spaces.Discrete(2)])
    )
    left_out = ["odd", "deep", "pair.0"]
    data = json.loads(json.dumps(encode_space(space, left_out)))
    found = decode_space(data)
    assert list(found) == list(space) and found["x"] == space["x"] and found["pair"][1] == spaces.Discrete(2)
    assert found["odd"] == found["deep"]["a"] == found["pair"][0] == UnreadSpace("Odd")
    assert found["deep"]["b"] == spaces.Text(3)
    assert encode_space(found) == data, "what was loaded can be stored again"
    with pytest.raises(CheckpointError, match="type Odd cannot be stored; exclude it"):
        encode_space(space, ["deep", "pair.0"])
