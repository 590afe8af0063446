"""JSON files: laid out for people, and what they can't hold, or what is damaged in them, is told."""

import json

import pytest

from policysmith.errors import CheckpointError
from policysmith.store.json_files import check_format, json_bytes, parsed


def test_json_is_laid_out_for_people():
    data = {"a": {}, "b": [1, 2.5, None, True], "c": {"d": [[1, 2], []]}, "e": float("-inf")}
    assert json_bytes(data).decode() == (
        '{\n  "a": {},\n  "b": [1, 2.5, null, true],\n  "c": {\n    "d": [\n      [1, 2],\n      []\n    ]\n  },\n'
        '  "e": -Infinity\n}\n'
    )


@pytest.mark.parametrize(("data", "place"), [({"a": [0, {"b": {1}}]}, "x.a.1.b"), ({"a": {2: 1}}, "x.a"), (b"", "x")])
def test_what_json_cannot_hold_is_named_by_its_path(data, place):
    with pytest.raises(CheckpointError, match=f"^{place}: "):
        json_bytes(data, "x")


def test_what_was_written_is_read_again():
    data = {"format": 1, "a": {"b": [1.5, None, "ü"]}}
    assert parsed("x.json", json_bytes(data)) == json.loads(json_bytes(data)) == data


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"{", "not valid JSON"), (b"[1]", "holds no JSON object"), (b"[" * 100_000, "not valid JSON")],
)
def test_a_damaged_file_is_named_with_what_to_do(content, reason):
    with pytest.raises(
        CheckpointError, match=rf"^x\.json: is damaged or was edited: .*({reason}).*; restore it from a copy"
    ):
        parsed("x.json", content)


def test_a_newer_format_is_refused_with_what_to_install():
    check_format("x.json", {"format": 1})
    with pytest.raises(CheckpointError, match=r"^x\.json: format 99 is newer .* pip install --upgrade policysmith"):
        check_format("x.json", {"format": 99})
