import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import policysmith
from policysmith.errors import ConfigError
from policysmith.training.environments.two_player import Games, game_spaces
from policysmith.training.games import match
from policysmith.training.games.match import MatchResult, Tally, judge, play_match, record_match
from policysmith.training.sections import Environment

pytest.importorskip("pettingzoo")

TICTACTOE, CONNECT_FOUR = Environment("tictactoe_v3"), Environment("connect_four_v3")


def _policy(seed=0, game=TICTACTOE):
    config = {"environment": {"id": game.id}, "model": {"type": "mlp", "hidden": [16]}, "evaluation": {"episodes": 6}}
    return policysmith.build(config, *game_spaces(game), seed=seed)


def _stubborn(*moves, game=TICTACTOE):
    """Plays the first of these moves that is legal, else the legal move with the lowest number."""
    policy = _policy(game=game)
    with torch.no_grad():
        head = policy.components["policy"].module.out
        head.weight.zero_()
        head.bias.copy_(torch.arange(len(head.bias), 0, -1.0))
        for rank, move in enumerate(moves):
            head.bias[move] = 100.0 - rank
    return policy


def _result(returns, seats=None):
    return MatchResult(tuple(returns), (5,) * len(returns), seats or (0,) * len(returns), ("x", "o"), "random")


@pytest.mark.parametrize("games", [1, 7, 20])
def test_plays_as_many_games_as_asked_with_the_seats_by_turns(games):
    result = play_match(_policy(), TICTACTOE, games=games)
    assert result.episodes == len(result.lengths) == games
    assert result.seats == tuple(i % 2 for i in range(games)) and result.names == ("player_1", "player_2")
    assert sum(result.tally()) == games and sum(result.tally(0)) == (games + 1) // 2
    assert all(5 <= n <= 9 for n in result.lengths) and set(result.returns) <= {-1.0, 0.0, 1.0}


def test_many_games_are_played_a_roomful_at_a_time(monkeypatch):
    together = play_match(_policy(), TICTACTOE, games=10)
    monkeypatch.setattr(match, "TABLES", 4)
    apart = play_match(_policy(), TICTACTOE, games=10)
    assert apart.episodes == 10 and apart.seats == together.seats


def test_the_result_is_the_policys_own_in_either_seat():
    """Each wants a line, and whoever begins gets it first."""
    result = play_match(_stubborn(0, 1, 2), TICTACTOE, _stubborn(3, 4, 5), games=4)
    assert result.returns == (1.0, -1.0, 1.0, -1.0) and result.lengths == (5, 5, 5, 5)
    assert (result.tally(0), result.tally(1)) == (Tally(2, 0, 0), Tally(0, 0, 2))


def test_what_one_wins_the_other_loses():
    one, two = _policy(0), _policy(1)
    mine, theirs = (play_match(a, TICTACTOE, b, games=2).returns for a, b in ((one, two), (two, one)))
    assert mine == (-theirs[1], -theirs[0])


def test_stacking_one_column_beats_a_random_player_most_of_the_time():
    result = play_match(_stubborn(3, game=CONNECT_FOUR), CONNECT_FOUR, games=60)
    assert result.score > 0.6 and result.interval[0] > 0.5 and result.names == ("player_0", "player_1")


def test_games_repeat_with_the_seed_and_leave_everything_as_it_was():
    policy, before = _policy().train(), torch.get_rng_state()
    one, two, other = (play_match(policy, TICTACTOE, games=12, deterministic=False, seed=s) for s in (1, 1, 2))
    assert one == two and one.returns != other.returns
    assert policy.training and torch.equal(torch.get_rng_state(), before)


def test_a_draw_is_half_a_point():
    result = _result([1.0] * 7 + [0.0] * 2 + [-1.0], (0, 1) * 5)
    assert result.tally() == Tally(7, 2, 1) and result.score == 0.8 and result.mean == 0.6
    assert result.tally(0) == Tally(4, 1, 0)


@pytest.mark.parametrize(("won", "games"), [(190, 200), (1, 3), (0, 10), (10, 10)])
def test_the_interval_holds_the_shares_that_the_score_does_not_rule_out(won, games):
    """At its ends the score is 1.96 standard deviations off; at 0 and 1 the interval ends there."""
    result = _result([1.0] * won + [-1.0] * (games - won))
    for end in result.interval:
        if 1e-9 < end < 1 - 1e-9:
            assert abs(result.score - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / games), rel=1e-6)
    low, high = result.interval
    assert (low < 1e-9) == (won == 0) and (high > 1 - 1e-9) == (won == games)
    assert 0 <= low <= result.score <= high + 1e-9 and high <= 1


def test_a_policy_of_another_game_is_no_opponent():
    with pytest.raises(ConfigError, match="the opponent plays another game: its observations"):
        play_match(_policy(), TICTACTOE, _policy(game=CONNECT_FOUR))


def test_judging_plays_games_of_a_game_and_episodes_of_a_task():
    games = judge(_policy(), TICTACTOE, 4)
    assert isinstance(games, MatchResult) and games.episodes == 4 and set(games.returns) <= {-1.0, 0.0, 1.0}
    cartpole = policysmith.build({"environment": {"id": "CartPole-v1"}, "model": "mlp"}, seed=0)
    episodes = judge(cartpole, Environment("CartPole-v1"), 2)
    assert not isinstance(episodes, MatchResult)
    assert list(episodes.returns) == list(episodes.lengths) and len(episodes.returns) == 2  # a reward of 1 each step


def test_evaluate_takes_a_policy_an_artifact_or_nobody_as_opponent(tmp_path):
    policy = _policy()
    policysmith.save(_policy(1), tmp_path / "other")
    against = [policysmith.evaluate(policy, opponent=who) for who in (None, "random", _policy(1), tmp_path / "other")]
    assert [r.opponent for r in against] == ["random", "random", "policy", str(tmp_path / "other")]
    assert against[0].returns == against[1].returns and against[2].returns == against[3].returns
    assert [r.episodes for r in against] == [6] * 4
    assert len(set(policysmith.evaluate(policy, opponent=_policy(1), episodes=40, deterministic=True).lengths)) <= 2
    assert len(set(policysmith.evaluate(policy, opponent=_policy(1), episodes=40).lengths)) > 2, (
        "drawn, not the same two"
    )


def test_only_games_have_opponents():
    cartpole = policysmith.build({"environment": {"id": "CartPole-v1"}, "model": "mlp"}, seed=0)
    with pytest.raises(ConfigError, match="CartPole-v1 is no game for two: it takes no opponent"):
        policysmith.evaluate(cartpole, opponent="random")


def test_a_film_shows_every_position_of_a_game(monkeypatch, tmp_path):
    shown = {}

    class Clip:
        def __init__(self, frames, fps):
            shown.update(frames=frames, fps=fps)

        def write_gif(self, path, logger=None):
            shown["path"] = path

    monkeypatch.setitem(sys.modules, "moviepy", SimpleNamespace(ImageSequenceClip=Clip))
    record_match(_stubborn(0, 1, 2), TICTACTOE, tmp_path / "game.gif", _stubborn(3, 4, 5))
    assert shown["path"] == str(tmp_path / "game.gif") and shown["fps"] == 1
    assert len(shown["frames"]) == 6 and not np.array_equal(shown["frames"][0], shown["frames"][1])


def test_a_film_needs_the_extra_before_anything_is_played(monkeypatch):
    monkeypatch.setitem(sys.modules, "moviepy", None)
    monkeypatch.setattr(Games, "play", None)
    with pytest.raises(ImportError, match=r"policysmith\[video\]"):
        record_match(_policy(), TICTACTOE, "game.mp4")
