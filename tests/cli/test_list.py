"""`policysmith list`: types by slot, one type with its options, presets."""

import json

import pytest

from policysmith import api
from policysmith.cli.list import _yaml
from policysmith.registry import SLOTS, default_registry


def _headings(text):
    return [line for line in text.splitlines() if line and not line.startswith(" ")]


def test_everything_by_slot_in_the_order_of_the_slots(run):
    result = run("list")
    assert (result.exit_code, result.stderr) == (0, "")
    headings = _headings(result.stdout)
    assert headings == [slot for slot in SLOTS if slot in headings]
    assert {"model", "component", "activation", "algorithm"} <= set(headings)
    names = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("  ")]
    assert names == [info.name for info in api.list_types()]
    assert all(len(line) <= 80 and line == line.rstrip() for line in result.stdout.splitlines())


def test_a_wildcard(run):
    lines = run("list", "nn.Conv*").stdout.splitlines()
    assert lines[0] == "component"
    assert all(line.startswith("  nn.Conv") for line in lines[1:])


@pytest.mark.parametrize("pattern", ["model", "models"])
def test_a_slot_by_its_name_or_plural(run, pattern):
    lines = run("list", pattern).stdout.splitlines()
    assert lines[0] == "model"
    assert any(line.startswith("  graph") for line in lines[1:])


def test_an_option_limits_it_to_a_slot(run):
    assert _headings(run("list", "*l*", "--slot", "activation").stdout) == ["activation"]


def test_a_type_named_in_full_shows_its_options(run):
    assert run("list", "gelu").stdout == (
        "activation gelu\n"
        "Gaussian error linear unit (arXiv 1606.08415); `approximate` uses the tanh form.\n"
        "\n"
        "  approximate  true or false  false  Whether tanh stands for the error function.\n"
    )


def test_a_name_in_two_slots_is_shown_for_both(run):
    text = run("list", "mlp").stdout
    assert text.startswith("model mlp\n")
    assert "\n\ncomponent mlp\n" in text
    assert "  hidden        list of integers > 0  [64, 64]  The units of each hidden layer.\n" in text


def test_a_required_option_is_marked(run):
    assert "  out_features  integer > 0    required  size of each output sample\n" in run("list", "nn.Linear").stdout


def test_a_type_without_options_is_a_sentence(run):
    assert run("list", "relu2").stdout == "activation relu2\nSquared ReLU (Primer, arXiv 2109.08668).\n"


def test_presets_with_what_they_say_of_themselves(run):
    lines = run("list", "presets").stdout.splitlines()
    assert lines[0] == "presets"
    assert [line.split()[0] for line in lines[1:]] == api.presets()
    assert any(line.split()[:2] == ["cartpole", "CartPole-v1:"] for line in lines)


def test_profiles_with_what_they_say_of_themselves(run):
    lines = run("list", "profiles").stdout.splitlines()
    assert lines[0] == "profiles"
    assert [line.split()[0] for line in lines[1:] if not line.startswith("   ")] == api.profiles()


def test_json_of_types_and_presets(run):
    types = json.loads(run("list", "gelu", "--json").stdout)["types"]
    assert [(t["slot"], t["name"], list(t["options"])) for t in types] == [("activation", "gelu", ["approximate"])]
    presets = json.loads(run("list", "presets", "--json").stdout)["presets"]
    assert [preset["name"] for preset in presets] == api.presets()
    assert json.loads(run("list", "nothing_*", "--json").stdout) == {"types": []}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("mpl",), "no type matches 'mpl' (did you mean 'mlp'?)"),
        (("modles",), "no type matches 'modles' (did you mean 'models'?)"),
        (("zzz*",), "no type matches 'zzz*'"),
        (("callbacks",), "no type is registered for the slot 'callback'"),
        (("--slot", "callback"), "no type is registered for the slot 'callback'"),
    ],
)
def test_nothing_found_is_said(run, words, message):
    result = run("list", *words)
    assert (result.exit_code, result.stderr) == (1, f"error: {message}\n")


def test_an_unknown_slot_is_said(run):
    result = run("list", "--slot", "modle")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: unknown slot 'modle' (did you mean 'model'?); slots: model, ")


def test_defaults_are_written_as_in_yaml():
    assert _yaml({"a": [1, 2.5, None], "b": {"c": True}, "d": "x"}) == "{a: [1, 2.5, null], b: {c: true}, d: x}"


def test_every_slot_is_listed_with_its_types(run):
    lines = run("list", "slots").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["slots", *SLOTS]
    slots = json.loads(run("list", "slots", "--json").stdout)["slots"]
    assert next(slot["types"] for slot in slots if slot["name"] == "norm") == default_registry.names("norm")
