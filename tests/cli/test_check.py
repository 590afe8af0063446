"""`policysmith check`: every problem, and the exit code that says whether there are any."""

import json
import warnings

import pytest
from gymnasium.envs import registration

from policysmith.cli.command import _warnings_as_lines


def test_a_good_configuration_is_counted(run):
    result = run("check", "cartpole")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "ok  cartpole: 4 components, 9,155 parameters\n    observation  4 float32: numbers\n"


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


MINE = """
import gymnasium, numpy
class Mine(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (3,), numpy.float32)
    action_space = gymnasium.spaces.Discrete(2)
    def __init__(self, size=3, far=0.0):
        self.size, self.far = size, far
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return numpy.full(self.size, self.far, numpy.float32), {}
    def step(self, action):
        return numpy.full(self.size, self.far, numpy.float32), 1.0, False, True, {}
gymnasium.register("Mine-v0", Mine)
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "mine.yaml").write_text("model: {type: mlp, hidden: [4]}\nenvironment: {id: Mine-v0}\n")
    yield lambda run, *words: run("--plugin", "mine.py", "check", "mine.yaml", "--env", *words)
    registration.registry.pop("Mine-v0", None)


def test_the_environment_is_judged_if_that_is_asked(run, mine):
    assert run("check", "cartpole", "--env").stdout.startswith("ok  cartpole")
    assert mine(run).stdout.startswith("ok  mine.yaml")
    result = mine(run, "environment.options.size=4")
    assert result.exit_code == 1
    assert result.stdout.startswith(
        "mine.yaml:2:19  environment.id: Mine.reset (mine.py:8) gave the observation of shape (4,); the space is Box("
    )
    assert (
        json.loads(mine(run, "environment.options.far=nan", "--json").stdout)["problems"][0]["place"]
        == "mine.yaml:2:19"
    )


def test_what_does_not_stop_a_run_is_a_warning(run, mine):
    with pytest.warns(UserWarning, match=r"Mine\.reset \(mine\.py:8\) gave the observation with 9; the space is Box\("):
        result = mine(run, "environment.options.far=9")
    assert result.exit_code == 0 and result.stdout.startswith("ok  mine.yaml")


def test_a_warning_is_one_line_without_colours_and_told_once():
    before = warnings.formatwarning
    with _warnings_as_lines():
        lines = [warnings.formatwarning("\x1b[33mWARN: far\n  away\x1b[0m", UserWarning, "a.py", 3) for _ in range(2)]
    assert lines == ["warning: WARN: far away\n", ""] and warnings.formatwarning is before
