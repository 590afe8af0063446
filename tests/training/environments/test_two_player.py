import sys

import numpy as np
import pytest
from gymnasium import spaces

from policysmith.errors import ConfigError, MissingExtraError
from policysmith.training.environments.make import make_environment, single_spaces
from policysmith.training.environments.two_player import GAMES, Games, game_spaces, is_game
from policysmith.training.sections import Environment

pytest.importorskip("pettingzoo")

TICTACTOE, CONNECT_FOUR = Environment("tictactoe_v3"), Environment("connect_four_v3")


def _games(section=TICTACTOE, count=3):
    games = Games(section, count)
    games.reset(seed=0)
    return games


def _play(games, *moves):
    """The same moves at every table → the rewards (2,) of the last one at the first table, and whether it ended."""
    for move in moves:
        ply = games.play(range(games.count), [move] * games.count)
    return ply.rewards[0].tolist(), bool(ply.terminated[0])


@pytest.mark.parametrize(("section", "planes", "actions"), [(TICTACTOE, (2, 3, 3), 9), (CONNECT_FOUR, (2, 6, 7), 7)])
def test_spaces_are_planes_with_a_mask_and_moves(section, planes, actions):
    observation, action = game_spaces(section)
    assert observation["observation"].shape == planes and observation["action_mask"].shape == (actions,)
    assert action == spaces.Discrete(actions)
    assert single_spaces(section) == (observation, action)
    seen = _games(section).observe([0, 2])
    assert seen["observation"].shape == (2, *planes) and seen["action_mask"].shape == (2, actions)
    assert all(observation.contains({key: rows[0] for key, rows in seen.items()}) for _ in "a")


def test_whoever_is_to_move_sees_its_own_pieces_in_the_first_plane():
    games = _games(CONNECT_FOUR, 1)
    _play(games, 3)
    ((mine, theirs),) = games.observe([0])["observation"]
    assert mine.sum() == 0 and theirs[5, 3] == 1, "the second player sees the first one's piece, at the bottom"
    _play(games, 3)
    ((mine, theirs),) = games.observe([0])["observation"]
    assert mine[5, 3] == 1 and theirs[4, 3] == 1 and mine.sum() == theirs.sum() == 1


def test_the_winner_gets_one_and_the_loser_minus_one_in_either_seat():
    assert _play(_games(), 0, 3, 1, 4, 2) == ([1.0, -1.0], True), "the first player has a column"
    assert _play(_games(), 0, 3, 1, 4, 8, 5) == ([-1.0, 1.0], True), "the second player has one"
    assert _play(_games(CONNECT_FOUR), 0, 1, 0, 1, 0, 1, 0) == ([1.0, -1.0], True)


def test_a_draw_gives_nobody_anything():
    assert _play(_games(), 0, 1, 2, 4, 3, 5, 7, 6, 8) == ([0.0, 0.0], True)


def test_no_move_before_the_last_is_rewarded():
    games = _games()
    assert all(_play(games, move) == ([0.0, 0.0], False) for move in (0, 3, 1, 4))


def test_seats_move_by_turns_and_a_new_game_begins_with_the_first():
    games = _games()
    assert games.movers.tolist() == [0, 0, 0]
    _play(games, 0)
    assert games.movers.tolist() == [1, 1, 1]
    games.restart(1)
    assert games.movers.tolist() == [1, 0, 1]
    assert games.observe([1])["observation"].sum() == 0 and games.observe([0])["observation"].sum() == 1


def test_tables_are_independent():
    games = _games()
    games.play([0, 2], [4, 8])
    masks = games.observe([0, 1, 2])["action_mask"]
    assert (masks == 0).sum(1).tolist() == [1, 0, 1] and masks[0, 4] == 0 and masks[2, 8] == 0


def test_what_was_observed_does_not_change_later():
    games = _games()
    before = games.observe([0])
    _play(games, 0)
    assert before["observation"].sum() == 0 and before["action_mask"].all()


@pytest.mark.parametrize("move", [0, 9, -1])
def test_an_illegal_move_is_refused_with_the_legal_ones(move):
    games = _games(count=1)
    _play(games, 0)
    with pytest.raises(ValueError, match=rf"tictactoe_v3: player_2 can't play {move} at table 0; legal moves: 1, 2, 3"):
        _play(games, move)


def test_options_reach_the_game_and_wrong_ones_are_told():
    small = Environment("go_v5", options={"board_size": 5})
    assert game_spaces(small)[0]["observation"].shape == (17, 5, 5)
    with pytest.raises(ConfigError, match=r"environment\.options: go_v5 can't be made: .*bord_size"):
        game_spaces(Environment("go_v5", options={"bord_size": 5}))


def test_what_games_can_not_do_is_refused_all_at_once():
    section = Environment("go_v5", vectorization="async", autoreset="next_step", wrappers=["TimeLimit"])
    with pytest.raises(ConfigError) as caught:
        Games(section, 1)
    assert [p.path for p in caught.value.problems] == [
        "environment.vectorization", "environment.autoreset", "environment.wrappers",
    ]  # fmt: skip


def test_only_listed_names_are_games():
    assert is_game(TICTACTOE) and not is_game(None) and not is_game(Environment("CartPole-v1"))
    assert {"connect_four_v3", "tictactoe_v3"} <= set(GAMES)
    with pytest.raises(ConfigError, match=r"'conect_four_v3' can't be made: .*did you mean 'connect_four_v3'\?"):
        single_spaces(Environment("conect_four_v3"))
    with pytest.raises(ConfigError, match="tictactoe_v3 is a game for two"):
        make_environment(TICTACTOE)


@pytest.mark.parametrize(
    ("game", "package", "told"),
    [
        ("tictactoe_v3", "pettingzoo", r"pip install 'policysmith\[board\]'"),
        ("leduc_holdem_v4", "rlcard", r"leduc_holdem_v4 needs rlcard; run: pip install 'pettingzoo\[classic\]'"),
    ],
)
def test_a_missing_package_names_what_to_install(monkeypatch, game, package, told):
    for name in [name for name in sys.modules if name.split(".")[0] in (package, "pettingzoo")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=told):
        Games(Environment(game), 1)


def test_random_legal_play_always_comes_to_an_end():
    games, random = _games(count=1), np.random.default_rng(0)
    for _ in range(20):
        games.restart(0)
        over, moves = False, 0
        while not over:
            move = random.choice(np.flatnonzero(games.observe([0])["action_mask"][0]))
            over, moves = _play(games, move)[1], moves + 1
        assert 5 <= moves <= 9
