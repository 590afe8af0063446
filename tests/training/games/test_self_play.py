import copy
import itertools

import numpy as np
import pytest
import torch

import policysmith
from policysmith.errors import ConfigError
from policysmith.store import load_training
from policysmith.training.environments.two_player import Games, game_spaces
from policysmith.training.games.opponents import OpponentPool, PolicyPlayer, RandomPlayer, by_player
from policysmith.training.games.self_play import SelfPlayCollector
from policysmith.training.ppo.ppo import PPO
from policysmith.training.sections import Environment, SelfPlay
from tests.reference.networks import weights_of
from tests.reference.self_play import slow_rows

pytest.importorskip("pettingzoo")

TICTACTOE = Environment("tictactoe_v3")
ALONE = SelfPlay(past_share=0.0, random_share=0.0)
AT_RANDOM = SelfPlay(past_share=0.0, random_share=1.0)
MIXED = SelfPlay(pool=2, snapshot_every=1, past_share=0.4, random_share=0.3)


class Watched(Games):
    """Notes of every move who made it, what they saw, what they did, and what came of it; may cut games off.

    `pays` rewards both seats for every move, by other amounts each time.
    """

    def __init__(self, section, count, cut_after=None, pays=False):
        super().__init__(section, count)
        self.notes, self.cut_after, self.pays, self.lengths = [], cut_after, pays, [0] * count

    def restart(self, table, seed=None):
        super().restart(table, seed)
        self.lengths[table] = 0

    def play(self, tables, actions):
        movers, seen = self.movers.copy(), self.observe(tables)
        ply = super().play(tables, actions)
        for table in tables:
            self.lengths[table] += 1
            if self.lengths[table] == self.cut_after and not ply.terminated[table]:
                ply.truncated[table] = True
            if self.pays:
                ply.rewards[table] += [0.1 * self.lengths[table], -0.03 * self.lengths[table]]
        self.notes.append((movers, seen, np.asarray(actions), ply))
        return ply


def _policy(seed=0, game=TICTACTOE, model="mlp"):
    return policysmith.build({"model": model}, *game_spaces(game), seed=seed)


def _collector(options=ALONE, tables=4, seed=0, policy=None, **watched):
    torch.manual_seed(seed)
    policy = (policy or _policy()).eval()
    games = Watched(TICTACTOE, tables, **watched)
    return SelfPlayCollector(policy, games, OpponentPool(policy, options), seed)


def _owned(collector):
    """A list that grows with every ply: at which tables the learner is to move."""
    games, learner, owned = collector.environments, collector.pool.learner, []
    play = games.play

    def spy(tables, actions):
        owned.append([collector._players[i][s] is learner for i, s in enumerate(games.movers)])
        return play(tables, actions)

    games.play = spy
    return owned


def _rows(policy, rollout, gamma, gae_lambda):
    """Of every row that is learnt from: the board, the move, what was legal; log-probability, advantage and return."""
    batches = PPO(gamma=gamma, gae_lambda=gae_lambda).batches(policy, rollout)
    board, action, legal = batches.leaves
    kept = (batches.columns.log_prob, batches.columns.advantage, batches.columns.returns)
    rows = zip(board.tolist(), action.tolist(), legal.tolist(), *(column.tolist() for column in kept), strict=True)
    return sorted((str(row[:3]), *row[3:]) for row in rows)


@pytest.mark.parametrize("watched", [{}, {"cut_after": 4}, {"pays": True}], ids=["whole", "cut", "paid by move"])
@pytest.mark.parametrize("options", [ALONE, AT_RANDOM, MIXED], ids=["itself", "random", "past selves too"])
def test_rows_are_those_of_each_seat_on_its_own(options, watched):
    """Against a twin that follows every seat of every game by itself, over two rollouts."""
    collector = _collector(options, policy=_policy(model={"type": "mlp", "hidden": [5]}), **watched)
    policy, owned, notes = collector.policy, _owned(collector), collector.environments.notes
    if options is MIXED:
        collector.pool.take(1)
    rollouts = [collector.collect(23) for _ in range(2)]
    assert collector.step == 2 * 23 * 4
    weights = weights_of(policy)
    for index, rollout in enumerate(rollouts):
        part = slice(23 * index, 23 * (index + 1))
        expected = slow_rows(notes[part], owned[part], weights, gamma=0.9, gae_lambda=0.8)
        expected = sorted((str(row[:3]), *row[3:]) for row in expected)
        rows = _rows(policy, rollout, 0.9, 0.8)
        assert [row[0] for row in rows] == [row[0] for row in expected] and len(rows) > 10
        np.testing.assert_allclose([r[1:] for r in rows], [r[1:] for r in expected], rtol=0, atol=1e-5)


def test_both_sides_of_a_game_learn_its_result():
    collector = _collector()
    rollout = collector.collect(40)
    ends = (rollout.terminated * rollout.valid).bool()
    rewards = rollout.rewards[ends]
    wins, losses, draws = ((rewards == r).sum().item() for r in (1.0, -1.0, 0.0))
    assert wins == losses > 0 and draws % 2 == 0, "a result is learnt by the winner and by the loser"
    assert (rollout.rewards * rollout.valid)[~ends].abs().sum() == 0


def test_stored_log_probs_and_values_are_those_of_evaluate_actions():
    collector = _collector(MIXED)
    rollout = collector.collect(16)
    flat = [leaf.flatten(0, 1) for leaf in (*rollout.observations, *rollout.actions, *rollout.masks)]
    policy = collector.policy
    log_prob, _, value = policy.evaluate_actions(policy.observations.assemble(flat[:1]), flat[1], flat[2])
    torch.testing.assert_close(log_prob, rollout.log_probs.flatten(), rtol=0, atol=1e-6)
    torch.testing.assert_close(value, rollout.values.flatten(), rtol=0, atol=1e-6)


def test_against_others_the_learner_changes_seats_from_game_to_game():
    collector = _collector(AT_RANDOM, tables=2)
    owned, games = _owned(collector), collector.environments
    collector.collect(120)
    for table in range(2):
        seats, first = [], True
        for (movers, _, _, ply), mine in zip(games.notes, owned, strict=True):
            if first:
                seats.append(int(movers[table] if mine[table] else 1 - movers[table]))
            first = ply.terminated[table]
        assert len(seats) > 10 and all(a != b for a, b in itertools.pairwise(seats))


def test_reported_episodes_are_the_games_against_the_random_player_from_the_learners_side():
    assert _collector(ALONE).collect(40).episodes == []
    collector = _collector(AT_RANDOM, tables=1)
    owned, games, results = _owned(collector), collector.environments, []
    episodes = collector.collect(60).episodes
    for (movers, _, _, ply), mine in zip(games.notes, owned, strict=True):
        if ply.terminated[0]:
            results.append(float(ply.rewards[0][movers[0] if mine[0] else 1 - movers[0]]))
    assert [e.episode_return for e in episodes] == results and set(results) >= {-1.0, 1.0}
    lengths = np.diff([0, *(t + 1 for t, note in enumerate(games.notes) if note[3].terminated[0])])
    assert [e.length for e in episodes] == lengths.tolist() and episodes[-1].step == sum(lengths)


def test_no_player_ever_makes_an_illegal_move():
    """`Games` refuses one; all three kinds of player take part, and the learner's wish is one illegal move."""
    policy = _policy()
    collector = _collector(MIXED, policy=policy)
    with torch.no_grad():
        policy.components["policy"].module.out.bias[4] += 50.0
    collector.pool.take(1)
    collector.collect(60)
    kinds = {type(p) for pair in collector._players for p in pair}
    assert kinds <= {PolicyPlayer, RandomPlayer} and collector.step == 240
    for _, seen, actions, _ in collector.environments.notes:
        assert seen["action_mask"][range(4), actions].all()
    centre = [a[0] == 4 for (_, seen, a, _) in collector.environments.notes if seen["action_mask"][0].all()]
    assert np.mean(centre) > 0.6, "the wish would be played wherever it is legal"


def test_the_random_player_takes_every_legal_move_alike():
    player, mask = RandomPlayer(0), np.tile(np.array([0, 1, 0, 1, 1], np.int8), (3000, 1))
    share = np.bincount(player.act({"action_mask": mask}), minlength=5) / 3000
    np.testing.assert_allclose(share, [0, 1 / 3, 0, 1 / 3, 1 / 3], atol=0.04)


def test_copies_stay_as_they_were_while_the_learner_moves():
    policy = _policy()
    pool = OpponentPool(policy, MIXED)
    obs = policy.prepare(Watched(TICTACTOE, 1).observe([0]))
    before = policy(obs)[0].clone()
    pool.take(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1)
    (past,) = pool.past
    assert torch.equal(past.policy(obs)[0], before) and not torch.equal(policy(obs)[0], before)
    assert not any(p.requires_grad for p in past.policy.parameters()) and not past.policy.training


def test_the_pool_keeps_the_latest_copies_and_takes_them_in_time():
    policy = _policy()
    pool = OpponentPool(policy, SelfPlay(pool=2, snapshot_every=3))
    bias = policy.components["state_value"].module.out.bias
    for iteration in range(1, 11):
        with torch.no_grad():
            bias.fill_(iteration)
        pool.take(iteration)
    assert [p.policy.components["state_value"].module.out.bias.item() for p in pool.past] == [6.0, 9.0]


def test_opponents_come_in_the_shares_asked_for():
    pool = OpponentPool(_policy(), SelfPlay(past_share=0.5, random_share=0.2))
    pool.seed(0)
    assert {pool.draw() for _ in range(50)} == {pool.learner, pool.random}, "no past yet: itself in its place"
    pool.take(10)
    pool.take(20)
    drawn = [pool.draw() for _ in range(4000)]
    shares = [drawn.count(p) / 4000 for p in (pool.learner, pool.random, *pool.past)]
    np.testing.assert_allclose(shares, [0.3, 0.2, 0.25, 0.25], atol=0.03)


def test_the_pool_comes_back_from_its_state():
    policy = _policy()
    pool, other = OpponentPool(policy, MIXED), OpponentPool(_policy(1), MIXED)
    pool.take(1)
    with torch.no_grad():
        policy.components["policy"].module.out.bias.add_(1.0)
    pool.take(2)
    other.load_state(pool.state())
    obs = policy.prepare(Watched(TICTACTOE, 1).observe([0]))
    for mine, theirs in zip(pool.past, other.past, strict=True):
        assert torch.equal(mine.policy(obs)[0], theirs.policy(obs)[0])


def test_players_are_grouped_with_their_tables():
    grouped = {player: tables.tolist() for player, tables in by_player("abcab").items()}
    assert grouped == {"a": [0, 3], "b": [1, 4], "c": [2]}


def test_the_same_seed_plays_the_same_games():
    one, two, other = (_collector(MIXED, seed=seed).collect(20) for seed in (3, 3, 4))
    assert torch.equal(one.actions[0], two.actions[0]) and torch.equal(one.rewards, two.rewards)
    assert one.actions[0].shape != other.actions[0].shape or not torch.equal(one.actions[0], other.actions[0])


def test_too_few_steps_for_a_result_are_told():
    with pytest.raises(ConfigError, match=r"training\.rollout_steps: so few moves"):
        _collector().collect(2)


def test_a_policy_with_memory_is_refused():
    components = {
        "memory": {"type": "lstm", "in_keys": "observation", "hidden_size": 4},
        "policy": {"type": "action_head", "in_keys": "memory"},
        "state_value": {"type": "value_head", "in_keys": "memory"},
    }
    policy = _policy(model={"type": "graph", "components": components})
    with pytest.raises(ConfigError, match="memory can't play"):
        OpponentPool(policy, ALONE)


@pytest.fixture
def config():
    return {
        "seed": 1,
        "environment": {"id": "tictactoe_v3", "num_envs": 4},
        "model": {"type": "mlp", "hidden": [16]},
        "training": {"type": "ppo", "total_steps": 512, "rollout_steps": 32, "minibatches": 2},
        "self_play": {"pool": 2, "snapshot_every": 1, "random_share": 0.3},
        "evaluation": {"episodes": 10},
    }


def test_training_plays_itself_is_judged_at_random_and_repeats(config):
    one, two = (policysmith.train(copy.deepcopy(config), progress=False) for _ in range(2))
    assert one.steps == 512 and one.evaluation.episodes == 10 and one.evaluation.opponent == "random"
    for mine, theirs in zip(one.policy.parameters(), two.policy.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert one.returns == two.returns and {r for _, r in one.returns} <= {-1.0, 0.0, 1.0} and one.returns


def test_resuming_brings_the_past_back(config, tmp_path, monkeypatch):
    first = policysmith.train(config, output=tmp_path / "run", progress=False, evaluate=False)
    stored = {k: v for k, v in load_training(first.artifact).tensors.items() if k.startswith("pool/")}
    assert {name.split("/")[1] for name in stored} == {"0", "1"}
    restored = []
    load_state = OpponentPool.load_state
    monkeypatch.setattr(
        OpponentPool, "load_state", lambda pool, state: (load_state(pool, state), restored.append(pool.state()))
    )
    second = policysmith.train(
        resume=first.artifact, overrides=["training.total_steps=1024"], progress=False, evaluate=False
    )
    assert second.steps == 1024 and second.returns[: len(first.returns)] == first.returns
    assert {f"pool/{name}": t.tolist() for name, t in restored[0].items()} == {n: t.tolist() for n, t in stored.items()}


def test_shares_of_more_than_all_games_are_refused(config):
    config["self_play"] |= {"past_share": 0.8}
    with pytest.raises(ConfigError, match=r"self_play\.past_share: together with random_share=0.3 more than all games"):
        policysmith.train(config, progress=False)


def test_self_play_without_a_game_is_refused(config):
    config["environment"]["id"] = "CartPole-v1"
    with pytest.raises(ConfigError, match=r"self_play: CartPole-v1 is no game for two; there are: .*tictactoe_v3"):
        policysmith.train(config, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_preset_beats_a_random_player_in_95_of_100_games(seed):
    result = policysmith.train("connect-four", seed=seed, progress=False)
    assert result.evaluation.episodes == 200 and result.evaluation.tally().wins >= 190
    assert min(result.evaluation.tally(seat).wins for seat in (0, 1)) >= 90, "in either colour"


class Ill(Games):
    """From the second move of every other game on, a table gives a bad reward, or a board that is not finite."""

    def __init__(self, section, count, what):
        super().__init__(section, count)
        self.what, self.games, self.plies = what, [0] * count, [0] * count
        self._boards = self._boards.astype(np.float32)

    def restart(self, table, seed=None):
        super().restart(table, seed)
        self.games[table], self.plies[table] = self.games[table] + 1, 0

    def play(self, tables, actions):
        ply = super().play(tables, actions)
        for table in tables:
            self.plies[table] += 1
            if self.plies[table] == 3 and self.games[table] % 2:
                if self.what == "reward":
                    ply.rewards[table, 1] = float("inf")
                else:
                    self._boards[table, 0, 0, 0] = float("nan")
        return ply


@pytest.mark.parametrize("what", ["reward", "observation"])
def test_a_game_with_a_number_that_is_not_finite_is_cut_off_and_told(what):
    policy = _policy()
    games = Ill(TICTACTOE, 3, what)
    collector = SelfPlayCollector(policy, games, OpponentPool(policy, ALONE), seed=0)
    rollout = collector.collect(60)
    for tensor in (*rollout.observations, rollout.rewards, rollout.values, rollout.next_values):
        assert tensor.isfinite().all()
    assert {(e.leaf, e.in_a_row) for e in rollout.nonfinite} == {(what, 1)}
    assert {e.environment for e in rollout.nonfinite} == {0, 1, 2} and rollout.nonfinite[0].step == 9
    algorithm = PPO(rollout_steps=60, epochs=1, minibatches=2)
    optimizer = algorithm.optimizer(policy)
    algorithm.update(policy, optimizer, rollout)
    assert optimizer.guard.taken().steps == 0
    assert all(tensor.isfinite().all() for tensor in policy.state_dict().values())
