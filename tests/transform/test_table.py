"""The summary table says the truth in few characters."""

from copy import deepcopy

import pytest
from rich.console import Console

from policysmith.transform.table import (
    HEADINGS,
    human_bytes,
    human_count,
    human_flops,
    memory_line,
    shape_text,
    summary_rows,
    table,
)


def _node(name, kind, inputs, shape, parameters, role=None, shares=None):
    return {
        "name": name,
        "type": kind,
        "inputs": inputs,
        "outputs": [name],
        "shape": shape,
        "dtype": "float32",
        "parameters": parameters,
        "trainable": parameters,
        "buffers": 0,
        "flops": 2 * parameters,
        "role": role,
        "state_bytes": 0,
        "shares": shares,
    }


@pytest.fixture
def description():
    return {
        "model": "graph",
        "inputs": [{"name": "observation.image", "shape": [3, 84, 84], "dtype": "uint8"}],
        "nodes": [
            _node("vision", "conv", ["observation.image"], [512], 13_241_300),
            _node("again", "conv", ["observation.image"], [512], 13_241_300, shares="vision"),
            _node("policy", "action_head", ["vision", "again"], [18], 9_234, "policy"),
            _node("[bold]value", "value_head", ["vision"], [], 513, "value"),
        ],
        "outputs": ["policy", "[bold]value"],
        "totals": {
            "parameters": 13_251_047,
            "trainable": 13_251_047,
            "buffers": 0,
            "flops": 52_984_694,
            "parameter_bytes": 53_004_188,
            "buffer_bytes": 0,
            "activation_bytes": 6_220,
            "state_bytes": 0,
        },
    }


def _rendered(description, width=160):
    console = Console(width=width, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as capture:
        console.print(table(description))
    return capture.get()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (36_620, "35.8 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (53_004_188, "50.5 MiB"),
        (5 * 1024**6, "5.0 EiB"),
    ],
)
def test_bytes_are_in_binary_units(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 FLOP"), (640, "640 FLOP"), (999_960, "1.0 MFLOP"), (1_234_567, "1.2 MFLOP")]
)
def test_flops_are_in_decimal_units(count, text):
    assert human_flops(count) == text


def test_counts_have_separators():
    assert human_count(13_241_300) == "13,241,300"


@pytest.mark.parametrize(
    ("shape", "text"),
    [([], "scalar"), ([4], "4"), ([3, 84, 84], "3 × 84 × 84"), ([[64], []], "64, scalar"), (["T", 8], "T × 8")],
)
def test_shapes_read_as_people_write_them(shape, text):
    assert shape_text(shape) == text


def test_rows_are_inputs_then_nodes_then_totals(description):
    rows = summary_rows(description)
    assert [row.cells[0] for row in rows] == [
        "observation.image",
        "vision",
        "again",
        "policy",
        "[bold]value",
        "total",
    ]
    assert [row.kind for row in rows] == ["input", "", "", "policy", "value", "total"]
    assert rows[3].cells == ("policy", "action_head", "vision, again", "18", "9,234", "18.5 kFLOP")


def test_totals_come_from_the_description(description):
    total = summary_rows(description)[-1]
    assert total.cells[4:] == ("13,251,047", "53.0 MFLOP")


def test_shared_weights_are_marked_and_not_counted_twice(description):
    shared = summary_rows(description)[2]
    assert shared.cells[1] == "conv, weights of vision"
    assert shared.cells[4] == "shared"


def test_frozen_weights_are_marked(description):
    description["nodes"][0]["trainable"] = 0
    description["totals"]["trainable"] = 9_747
    assert summary_rows(description)[1].cells[1] == "conv, frozen"
    assert "9,747 parameters are trainable" in _rendered(description)


def test_memory_line_names_every_kind(description):
    assert memory_line(description["totals"]) == (
        "memory: parameters 50.5 MiB · buffers 0 B · activations 6.1 KiB · state 0 B"
    )


def test_the_table_shows_every_cell(description):
    text = _rendered(description)
    for heading in HEADINGS:
        assert heading in text
    for row in summary_rows(description):
        for cell in row.cells:
            assert cell in text
    assert memory_line(description["totals"]) in text


def test_names_are_not_cut_in_a_narrow_terminal(description):
    text = _rendered(description, width=80)
    assert "observation.image" in text
    assert "…" not in text


def test_the_description_is_left_alone(description):
    before = deepcopy(description)
    table(description)
    assert description == before
