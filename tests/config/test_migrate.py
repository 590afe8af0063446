"""Older formats are brought up to date step by step, and newer ones are refused with a remedy."""

from __future__ import annotations

import copy

import pytest

from policysmith.config.migrate import _STEPS, CURRENT_FORMAT, migrate
from policysmith.errors import ConfigError, Problem


def first(data):
    data["nets"] = data.pop("networks")
    return data


def second(data):
    return {key: value for key, value in data.items() if key != "old"} | {"new": True}


STEPS = {1: first, 2: second}


def test_the_current_format_passes_as_it_is():
    assert migrate({"format": CURRENT_FORMAT, "a": 1}) == {"format": CURRENT_FORMAT, "a": 1}


def test_data_without_a_format_is_of_the_current_one():
    assert migrate({"a": 1}) == {"a": 1}
    assert migrate({"networks": 1}, steps=STEPS, current=3) == {"networks": 1}


def test_older_formats_take_every_step():
    data = {"format": 1, "networks": {"x": [1]}, "old": 1}
    assert migrate(data, steps=STEPS, current=3) == {"format": 3, "nets": {"x": [1]}, "new": True}
    assert migrate({"format": 2, "old": 1}, steps=STEPS, current=3) == {"format": 3, "new": True}


def test_the_input_is_never_changed():
    data = {"format": 1, "networks": {"x": [1]}}
    before = copy.deepcopy(data)
    migrated = migrate(data, steps=STEPS, current=3)
    migrated["nets"]["x"].append(2)
    migrate({"format": 1, "a": 1})["b"] = 2
    assert data == before


def test_a_newer_format_is_refused_with_the_remedy():
    with pytest.raises(ConfigError) as caught:
        migrate({"format": 3})
    assert caught.value.problems == (
        Problem("format", "format 3 is newer than this policysmith understands (1); install a newer policysmith"),
    )


@pytest.mark.parametrize("found", [True, False, 0, -1, 1.0, "1", None, [1]])
def test_a_format_is_a_whole_number_from_one(found):
    with pytest.raises(ConfigError, match=r"^format: must be a whole number from 1 to 1, found "):
        migrate({"format": found})


def test_every_older_format_has_a_step():
    assert set(_STEPS) == set(range(1, CURRENT_FORMAT))
