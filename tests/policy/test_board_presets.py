"""Presets for boards: planned without an environment and without memory, built where they are small."""

import subprocess
import sys

import pytest
import torch

import policysmith
from policysmith import api

BOARD = [name for name in api.presets() if name.startswith("board/")]
PARAMETERS = {
    "board/tiny": 2_255_796,
    "board/small": 3_272_644,
    "board/standard": 13_241_300,
    "board/large": 26_923_631,
}
# Two layers of 23,000 × 23,000: four gigabytes, if they were made.
HUGE = """
import resource, policysmith
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def describe(width):
    spaces = {"observation": {"type": "box", "shape": [width]}, "action": {"type": "discrete", "n": 2}}
    return policysmith.describe({"spaces": spaces, "model": {"type": "mlp", "hidden": [width] * 2, "shared": True}})
describe(8)
before = peak()
totals = describe(23_000)["totals"]
print(totals["parameters"], totals["parameter_bytes"], peak() - before)
"""


def conv_flops(channels, out, kernel, points):
    """2 × multiply-adds of a convolution: each output value reads a window of every channel."""
    return 2 * channels * kernel**2 * out * points


def tower_flops(channels, depth, width, hidden, actions, points):
    """The closed form of the residual tower: stem, blocks with gates, two heads of two planes."""
    block = 2 * conv_flops(width, width, 3, points) + 2 * conv_flops(width, hidden, 1, 1)
    heads = 2 * conv_flops(width, 2, 1, points) + 2 * (2 * points) * (actions + 1)
    return conv_flops(channels, width, 3, points) + depth * block + heads


def test_there_are_four_sizes():
    assert sorted(PARAMETERS) == BOARD


@pytest.mark.parametrize("name", BOARD)
def test_a_preset_is_planned_from_its_data_alone(name):
    assert policysmith.check(name) == []
    totals = policysmith.describe(name)["totals"]
    assert totals["parameters"] == PARAMETERS[name]
    assert totals["parameter_bytes"] == 4 * PARAMETERS[name]


def test_sizes_grow():
    totals = [policysmith.describe(name)["totals"] for name in PARAMETERS]
    for key in ("parameters", "flops", "buffer_bytes", "activation_bytes"):
        assert [t[key] for t in totals] == sorted(t[key] for t in totals), key


@pytest.mark.parametrize(
    ("name", "depth", "width", "hidden"), [("board/small", 6, 96, 24), ("board/standard", 9, 256, 64)]
)
def test_flops_are_those_of_the_closed_form(name, depth, width, hidden):
    assert policysmith.describe(name)["totals"]["flops"] == tower_flops(46, depth, width, hidden, 13_527, 81)


@pytest.mark.parametrize(
    ("options", "points"),
    [
        ({"padding": 1}, 8 * 6),
        ({}, 6 * 4),
        ({"stride": 2}, 3 * 2),
        ({"padding": 2, "dilation": 2}, 8 * 6),
        ({"groups": 2, "padding": 1}, 8 * 6 / 2),
    ],
    ids=str,
)
def test_flops_of_one_convolution_are_counted_right(options, points):
    components = {
        "conv": {"type": "nn.Conv2d", "in_keys": "observation", "out_channels": 10, "kernel_size": 3, **options},
        "flat": {"type": "flatten", "in_keys": "conv"},
        "policy": {"type": "action_head", "in_keys": "flat"},
        "value": {"type": "value_head", "in_keys": "flat"},
    }
    spaces = {"observation": {"type": "box", "shape": [4, 8, 6]}, "action": {"type": "discrete", "n": 2}}
    nodes = policysmith.describe({"model": {"type": "graph", "components": components}, "spaces": spaces})["nodes"]
    assert next(n for n in nodes if n["name"] == "conv")["flops"] == conv_flops(4, 10, 3, points)


def test_a_batch_multiplies_what_grows_with_rows():
    one, many = (policysmith.describe("board/tiny", batch=n)["totals"] for n in (1, 256))
    assert one["batch"] == {"rows": 1, **{k: one[k] for k in ("flops", "activation_bytes", "state_bytes")}}
    assert many["batch"]["flops"] == 256 * one["flops"]
    assert many["batch"]["activation_bytes"] == 256 * one["activation_bytes"]
    assert {k: v for k, v in many.items() if k != "batch"} == {k: v for k, v in one.items() if k != "batch"}


def test_a_billion_parameters_are_described_without_being_allocated():
    result = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, check=True)
    parameters, size, growth = map(int, result.stdout.split())
    assert parameters > 1e9 and size == 4 * parameters
    assert growth < 100e6 < size / 40


def test_the_smallest_plays_and_is_built_with_a_profile():
    policy = policysmith.build("board/tiny", overrides=["+fast-inference", "execution.compile=false"])
    obs = torch.zeros(2, 46, 9, 9)
    action, log_prob, value = policy.eval().get_action_and_value(obs)
    assert action.shape == log_prob.shape == value.shape == (2,)
    assert policy.runtime.settings.channels_last and policy.runtime.chosen
