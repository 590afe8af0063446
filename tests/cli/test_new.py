"""`policysmith new`: a file to start from, which is right as it is."""

from pathlib import Path

import pytest

from policysmith import api
from policysmith.config.load import load


@pytest.mark.parametrize(
    "environment",
    ["CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0", "FrozenLake-v1", "MiniGrid-DoorKey-5x5-v0"],
)
def test_the_file_passes_the_check(run, environment):
    result = run("new", "my policy.yaml", "--env", environment)
    assert result.exit_code == 0
    assert run("check", "my policy.yaml").exit_code == 0
    assert load("my policy.yaml").data["environment"]["id"] == environment


def test_it_says_what_to_do_next(run):
    assert run("new", "my policy.yaml").stdout == (
        "wrote my policy.yaml\n"
        "\n"
        "next      policysmith check 'my policy.yaml'\n"
        "          policysmith show 'my policy.yaml'\n"
        "          policysmith train 'my policy.yaml'\n"
    )


def test_it_is_for_cartpole_unless_told(run):
    run("new", "p.yaml")
    assert api.check("p.yaml") == []
    assert load("p.yaml").data["environment"]["id"] == "CartPole-v1"
    assert "policysmith train p.yaml model.hidden=[128]" in Path("p.yaml").read_text()


@pytest.mark.parametrize("name", ["ns/Env-v0", "module:Env-v0", "[odd]: #1", "12", "null"])
def test_any_name_of_an_environment_survives(run, name):
    run("new", "p.yaml", "--env", name)
    assert load("p.yaml").data["environment"]["id"] == name


def test_a_file_is_not_written_over_unless_forced(run):
    Path("p.yaml").write_text("mine")
    result = run("new", "p.yaml")
    assert result.exit_code == 1
    assert result.stderr == "error: p.yaml exists already: choose another name, or write over it with --force\n"
    assert Path("p.yaml").read_text() == "mine"
    assert run("new", "p.yaml", "--force").exit_code == 0
    assert Path("p.yaml").read_text() != "mine"
