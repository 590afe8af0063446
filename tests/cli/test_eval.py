"""`policysmith eval`: the numbers of a stored policy."""

import json
from pathlib import Path

import pytest

import policysmith
from policysmith.errors import CheckpointError
from policysmith.training.games.match import MatchResult
from policysmith.training.rollout.evaluation import EvaluationResult


@pytest.fixture
def calls(monkeypatch):
    seen = []

    def evaluate(policy, **options):
        print("chatter of an environment")
        seen.append((policy, options))
        return EvaluationResult((1.0, 2.0, 3.0), (4, 4, 4))

    monkeypatch.setattr("policysmith.api.evaluate", evaluate)
    return seen


def test_mean_and_deviation_are_printed(run, calls):
    result = run("eval", "run")
    assert (result.exit_code, result.stdout) == (0, "return    2.00 ± 0.82 over 3 episodes\n")
    assert calls == [("run", {})]  # what is not said is left to the verb


def test_options_reach_the_api(run, calls):
    result = run("eval", "run", "--episodes", 3, "--sampled", "--seed", 7, "--video", "a.mp4", "--opponent", "runs/b")
    options = {"episodes": 3, "deterministic": False, "seed": 7, "video": Path("a.mp4"), "opponent": "runs/b"}
    assert calls[0][1] == options
    assert result.stdout.endswith("video     a.mp4\n")
    run("eval", "run", "--deterministic", "--environment", "CartPole-v1")
    assert calls[1][1]["deterministic"] is True and calls[1][1]["environment"] == "CartPole-v1"


def test_json_is_one_object_and_nothing_else(run, calls):
    result = run("eval", "run", "--json")
    assert json.loads(result.stdout) == {"mean": 2.0, "std": pytest.approx(0.8165, abs=1e-4), "episodes": 3}
    assert result.stderr == "chatter of an environment\n"


def test_json_knows_no_nan(run, monkeypatch):
    monkeypatch.setattr("policysmith.api.evaluate", lambda *_, **__: EvaluationResult((float("inf"),), (1,)))
    with pytest.warns(RuntimeWarning):
        assert json.loads(run("eval", "run", "--json").stdout) == {"mean": None, "std": None, "episodes": 1}


@pytest.fixture
def match(monkeypatch):
    """Twelve games: nine won, one drawn, two lost, both of them in the second seat."""
    returns = (1.0,) * 9 + (0.0, -1.0, -1.0)
    result = MatchResult(returns, (9,) * 12, (0, 1) * 4 + (0, 0, 1, 1), ("black", "white"), "runs/b")
    monkeypatch.setattr("policysmith.api.evaluate", lambda *_, **__: result)


def test_a_match_is_told_by_its_score_and_by_seat(run, match):
    assert run("eval", "run", "--opponent", "runs/b", "--games", 12).stdout == (
        "score     79.2% of 12 games against runs/b (95 % interval 50.9% to 93.3%)\n"
        "black     5 won, 1 drawn, 0 lost\n"
        "white     4 won, 0 drawn, 2 lost\n"
    )


def test_a_match_as_json(run, match):
    data = json.loads(run("eval", "run", "--json").stdout)
    assert (data["opponent"], data["score"], data["episodes"]) == ("runs/b", pytest.approx(9.5 / 12), 12)
    assert data["interval"] == pytest.approx([0.509, 0.933], abs=1e-3)
    assert data["seats"]["white"] == {"wins": 4, "draws": 0, "losses": 2}


def test_a_stored_policy_plays_a_random_player_and_another_policy(run, tmp_path):
    pytest.importorskip("pettingzoo")
    config = {"environment": {"id": "tictactoe_v3"}, "model": {"type": "mlp", "hidden": [8]}}
    for seed, name in enumerate("ab"):
        policysmith.save(policysmith.build(config, seed=seed), name)
    for opponent in ("random", "b"):
        lines = run("eval", "a", "--opponent", opponent, "--games", 10).stdout.splitlines()
        assert f"of 10 games against {opponent} (95 % interval" in lines[0]
        assert [line.split()[0] for line in lines] == ["score", "player_1", "player_2"]
    result = run("eval", "a", "--opponent", "c")
    assert result.exit_code == 1 and "c" in result.stderr


def test_what_is_no_artifact_is_named(run, monkeypatch):
    def fail(*_, **__):
        raise CheckpointError("nowhere: there is no such directory")

    monkeypatch.setattr("policysmith.api.evaluate", fail)
    result = run("eval", "nowhere")
    assert (result.exit_code, result.stderr) == (1, "error: nowhere: there is no such directory\n")


@pytest.mark.parametrize("words", [("--episodes", 0), ("--seed", -1), ("--episodes", "many")])
def test_numbers_are_checked_before_anything_runs(run, calls, words):
    assert run("eval", "run", *words).exit_code == 2
    assert calls == []
