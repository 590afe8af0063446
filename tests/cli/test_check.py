"""`policysmith check`: every problem, and the exit code that says whether there are any."""

import json

import pytest


def test_a_good_configuration_is_counted(run):
    result = run("check", "cartpole")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "ok  cartpole: 4 components, 9,155 parameters\n"


@pytest.fixture
def bad(tmp_path):
    (tmp_path / "bad.yaml").write_text(
        "environment: {id: CartPole-v1}\nmodel:\n  type: mlp\n  activation: reluu\n  hiden: [64]\nseed: -1\n"
    )
    return "bad.yaml"


def test_every_problem_takes_a_line_with_its_place(run, bad):
    result = run("check", bad)
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout == (
        "bad.yaml:4:15  model.activation: unknown activation 'reluu' (did you mean 'relu'?)\n"
        "bad.yaml:5:3  model.hiden: unknown option of 'mlp' (did you mean 'hidden'?)\n"
        "bad.yaml:6:7  seed: must be ≥ 0, found -1\n"
        "\n3 problems\n"
    )


def test_json_is_one_object_whatever_the_outcome(run, bad):
    good, wrong = run("check", "cartpole", "--json"), run("check", bad, "--json")
    assert (good.exit_code, json.loads(good.stdout)) == (0, {"ok": True, "problems": []})
    assert wrong.exit_code == 1
    assert json.loads(wrong.stdout)["ok"] is False
    assert json.loads(wrong.stdout)["problems"][2] == {
        "path": "seed",
        "message": "must be ≥ 0, found -1",
        "place": "bad.yaml:6:7",
    }


def test_overrides_are_checked_with_it(run, bad):
    result = run("check", bad, "model.activation=relu", "~model.hiden", "seed=1")
    assert result.stdout.startswith("ok  bad.yaml: 4 components")


def test_a_file_that_is_not_there_is_a_problem(run):
    result = run("check", "nowhere.yaml")
    assert result.exit_code == 1
    assert "nowhere.yaml does not exist" in result.stdout
    assert result.stdout.endswith("\n1 problem\n")
