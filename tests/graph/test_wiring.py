"""Keys become edges; every problem of the wiring is found, with a suggestion."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from policysmith.graph.wiring import Wiring, expand_key, topological_order, wire

Keys = namedtuple("Keys", "in_keys out_keys")


def keys(reads: str, writes: str) -> Keys:
    return Keys(reads.split(), writes.split())


def problems(components: dict[str, Keys], inputs: list[str]) -> dict[tuple[str, ...], str]:
    found: dict[tuple[str, ...], str] = {}
    assert wire(components, inputs, found.__setitem__) is None
    assert found
    return found


def wired(components: dict[str, Keys], inputs: list[str]) -> Wiring:
    found: list[object] = []
    wiring = wire(components, inputs, lambda *problem: found.append(problem))
    assert wiring is not None and not found
    return wiring


def test_producers_come_first_and_ties_in_the_order_of_the_text():
    components = {"c": keys("b", "c"), "b": keys("a", "b"), "z": keys("x", "z"), "a": keys("x", "a")}
    wiring = wired(components, ["x"])
    assert wiring.order == ("z", "a", "b", "c")
    assert wiring.sources == {"c": ("b",), "b": ("a",), "z": ("x",), "a": ("x",)}
    assert wiring.producers == {"c": "c", "b": "b", "z": "z", "a": "a"}


def test_several_outputs_of_one_component():
    wiring = wired({"split": keys("x", "left right"), "join": keys("right left right", "y")}, ["x"])
    assert wiring.sources["join"] == ("right", "left", "right")
    assert wiring.order == ("split", "join")


def test_a_prefix_stands_for_every_input_below_it():
    inputs = ["observation.image", "observation.pose.x", "observation.pose.y", "other"]
    wiring = wired({"all": keys("observation", "a"), "pose": keys("observation.pose", "b")}, inputs)
    assert wiring.sources == {"all": tuple(inputs[:3]), "pose": tuple(inputs[1:3])}
    assert expand_key("obs", inputs) == []
    assert expand_key("other", inputs) == ["other"]


def test_a_missing_producer_has_a_suggestion_or_the_list_of_all():
    found = problems({"a": keys("observatoin", "a"), "b": keys("quux", "b")}, ["observation"])
    assert found["a", "in_keys"] == "nothing produces 'observatoin' (did you mean 'observation'?)"
    assert found["b", "in_keys"] == "nothing produces 'quux'; there are: observation, a, b"


def test_a_key_written_twice_names_both():
    found = problems({"a": keys("x", "y"), "b": keys("x", "y")}, ["x"])
    assert found == {("b", "out_keys"): "'y' is produced twice, by 'a' and by 'b'"}


@pytest.mark.parametrize("taken", ["x", "observation", "observation.image"])
def test_the_name_of_an_input_cannot_be_written(taken):
    found = problems({"a": keys("x", taken)}, ["x", "observation.image"])
    assert found == {("a", "out_keys"): f"{taken!r} is the name of an input; choose another"}


def test_a_cycle_is_shown_as_a_path_that_follows_the_data():
    components = {"a": keys("c", "a"), "b": keys("a", "b"), "c": keys("b x", "c"), "d": keys("x", "d")}
    ((path, message),) = problems(components, ["x"]).items()
    shown = message.removeprefix("a cycle: ").split(" → ")
    assert path == (shown[0],)
    assert shown[0] == shown[-1]
    assert set(shown) == {"a", "b", "c"}
    assert all(before in components[after].in_keys for before, after in itertools.pairwise(shown))


def test_a_component_that_reads_itself_is_a_cycle():
    assert problems({"a": keys("a", "a")}, ["x"]) == {("a",): "a cycle: a → a"}


def test_all_problems_come_at_once():
    components = {"a": keys("nowhere", "a"), "b": keys("x", "x"), "c": keys("x", "d"), "d": keys("x", "d")}
    assert set(problems(components, ["x"])) == {("a", "in_keys"), ("b", "out_keys"), ("d", "out_keys")}


def test_two_missing_producers_of_one_component_are_both_reported():
    reported: list[str] = []
    wire({"a": keys("foo bar", "a")}, ["x"], lambda path, message: reported.append(message))
    assert len(reported) == 2


def test_order_of_nothing():
    assert topological_order({}, pytest.fail) == []


def test_the_order_does_not_depend_on_the_hash_seed():
    code = (
        "from policysmith.graph.wiring import topological_order;"
        "from tests.graph.test_wiring import tangle;"
        "print(topological_order(tangle(), None))"
    )
    other = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": other},
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(topological_order(tangle(), pytest.fail))


def tangle() -> dict[str, list[str]]:
    """Forty names of which many need several others."""
    return {f"n{i}": [f"n{j}" for j in range(i + 1, 40) if (i * j) % 7 == 1] for i in range(40)}
