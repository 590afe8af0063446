"""What a value learns from: labels of outcomes, scores, losses, and PPO that trains a board network by either."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import policysmith
from policysmith.errors import ConfigError
from policysmith.training.ppo.game_outcomes import final_scores, outcome_labels
from policysmith.training.ppo.minibatches import Columns, Extra, RowBatches, SequenceBatches
from policysmith.training.ppo.ppo import PPO
from policysmith.training.ppo.value_objectives import MultiHeadValue, ScalarValue, outcome_loss, score_loss
from policysmith.training.rollout.collector import Collector
from policysmith.training.rollout.rollout import Rollout
from policysmith.training.sections import Environment, SelfPlay
from tests.policy.test_stateful import REGISTRY
from tests.thinning import thinned


class Harvest(gym.Env):
    """Three fields of nine are taken, a free one a step; the signs of their sum decide, `info["score"]` is the sum.

    A third of the boards can be won, a third can at best be drawn, a third is lost.
    """

    metadata = {"render_modes": []}  # noqa: RUF012
    BOARDS = ((4, 3), (0, 4), (0, 8))  # good fields, bad fields

    def __init__(self, steps=3, tells_score=True) -> None:
        self.observation_space = gym.spaces.Box(0, 1, (3, 3, 3), np.float32)
        self.action_space = gym.spaces.Discrete(9)
        self.steps, self.tells_score = steps, tells_score

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        good, bad = self.BOARDS[self.np_random.integers(3)]
        self.fields = self.np_random.permutation([1] * good + [-1] * bad + [0] * (9 - good - bad))
        self.taken = np.zeros(9, bool)
        return self._seen(), self._info(0.0)

    def step(self, action):
        if self.taken[action]:
            raise ValueError(f"field {action} is taken")
        self.taken[action] = True
        score = float(self.fields[self.taken].sum())
        over = self.taken.sum() == self.steps
        return self._seen(), float(np.sign(score)) if over else 0.0, bool(over), False, self._info(score)

    def _seen(self):
        return np.stack([self.fields > 0, self.fields < 0, self.taken]).astype(np.float32).reshape(3, 3, 3)

    def _info(self, score):
        return {"action_mask": ~self.taken, **({"score": score} if self.tells_score else {})}


gym.register("policysmith/Harvest-v0", entry_point=Harvest)

TINY = {
    "type": "se_resnet",
    "num_blocks": 1,
    "channels": 16,
    "se_reduction": 4,
    "global_pool_channels": 8,
    "policy_channels": 8,
    "value_fc_size": 16,
    "score_fc_size": 8,
}


def harvest(num_envs=8, autoreset="same_step", limit=None, **options):
    def make():
        environment = Harvest(**options)
        return gym.wrappers.TimeLimit(environment, limit) if limit else environment

    mode = {"same_step": gym.vector.AutoresetMode.SAME_STEP, "next_step": gym.vector.AutoresetMode.NEXT_STEP}[autoreset]
    return gym.vector.SyncVectorEnv([make] * num_envs, autoreset_mode=mode)


def tiny(environments, seed=0, **options):
    config = {"model": {**TINY, **options}, "seed": seed}
    return policysmith.build(config, environments.single_observation_space, environments.single_action_space)


def collected(steps=20, **options):
    environments = harvest(**options)
    policy = tiny(environments).eval()
    return policy, Collector(policy, environments, 0).collect(steps)


def made_up(steps=40, environments=6, seed=0):
    """A rollout of nothing but endings."""
    draw = np.random.default_rng(seed)
    done = draw.random((steps, environments)) < 0.2
    terminated = done & (draw.random(done.shape) < 0.7)
    rewards = draw.integers(-2, 3, done.shape) * 0.5
    scores = np.where(done & (draw.random(done.shape) < 0.8), draw.normal(size=done.shape), np.nan)
    empty = torch.zeros(done.shape)
    tensors = [torch.as_tensor(a.astype(np.float32)) for a in (rewards, terminated, done)]
    return Rollout([], [], [], empty, empty, empty, *tensors, None, scores=torch.as_tensor(scores))


def told_one_by_one(rollout, ending, unknown):
    """Each step walks on to the end of its episode."""
    steps, environments = rollout.done.shape
    found = np.full((steps, environments), unknown, dtype=np.float64)
    for n in range(environments):
        for t in range(steps):
            end = next((s for s in range(t, steps) if rollout.done[s, n]), None)
            if end is not None and rollout.terminated[end, n]:
                found[t, n] = ending(end, n)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_every_step_is_told_how_its_episode_ended(seed):
    rollout = made_up(seed=seed)
    expected = told_one_by_one(rollout, lambda t, n: {1: 0, 0: 1, -1: 2}[int(rollout.rewards[t, n].sign())], -1)
    labels = outcome_labels(rollout)
    assert labels.dtype == torch.int64 and set(labels.unique().tolist()) == {-1, 0, 1, 2}
    np.testing.assert_array_equal(labels.numpy(), expected)
    scores = told_one_by_one(rollout, lambda t, n: float(rollout.scores[t, n]), np.nan)
    np.testing.assert_array_equal(final_scores(rollout).numpy(), scores)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_the_collector_brings_scores_of_ends_and_the_labels_agree_with_them(autoreset):
    _, rollout = collected(autoreset=autoreset)
    ends = rollout.terminated.bool()
    assert ends.any() and torch.equal(rollout.scores.isfinite(), ends)
    assert torch.equal(rollout.scores[ends].sign(), rollout.rewards[ends])
    labels, scores = outcome_labels(rollout), final_scores(rollout)
    known = labels >= 0 if rollout.valid is None else (labels >= 0) & rollout.valid
    assert torch.equal(1 - scores[known].sign().long(), labels[known])
    # The planes show the fields and what was taken: with the last field the sum is that of the score.
    planes, action = rollout.observations[0], rollout.actions[0]
    fields = (planes[:, :, 0] - planes[:, :, 1]).flatten(-2)
    taken = planes[:, :, 2].flatten(-2) + F.one_hot(action, 9)
    assert torch.equal((fields * taken).sum(-1)[ends], rollout.scores[ends])
    last = 18 if autoreset == "same_step" else 19  # episodes of three steps, and one more for the reset
    assert (labels[:last] >= 0).all() and (labels[last:] == -1).all()


def test_what_a_time_limit_cuts_off_has_neither_outcome_nor_score():
    _, rollout = collected(limit=2)
    assert rollout.done.any() and not rollout.terminated.any()
    assert (outcome_labels(rollout) == -1).all()
    assert final_scores(rollout).isnan().all()


def test_in_self_play_each_seat_is_told_its_own_outcome():
    pytest.importorskip("pettingzoo")
    from policysmith.training.environments.two_player import Games, game_spaces
    from policysmith.training.games.opponents import OpponentPool
    from policysmith.training.games.self_play import SelfPlayCollector

    game = Environment("tictactoe_v3")
    policy = policysmith.build({"model": TINY}, *game_spaces(game), seed=0).eval()
    torch.manual_seed(0)
    alone = OpponentPool(policy, SelfPlay(past_share=0.0, random_share=0.0))
    rollout = SelfPlayCollector(policy, Games(game, 6), alone, 0).collect(60)
    labels, ends = outcome_labels(rollout), rollout.terminated.bool() & rollout.valid
    for table in range(6):
        first, second = (labels[:, column][ends[:, column]] for column in (2 * table, 2 * table + 1))
        assert len(first) >= 6 and torch.equal(first, 2 - second), "one wins what the other loses"
    assert {0, 2} <= set(labels[ends].tolist())


def test_without_scores_there_is_no_target_for_them():
    _, rollout = collected(tells_score=False)
    assert rollout.scores is None
    (labels,) = MultiHeadValue().targets(rollout)
    assert torch.equal(labels, outcome_labels(rollout)) and (labels >= 0).any()


def test_losses_are_means_over_the_rows_that_know():
    torch.manual_seed(0)
    logits, score = torch.randn(9, 3), torch.randn(9, 1)
    labels, targets = torch.tensor([0, 1, 2, -1, -1, 2, 0, 0, 1]), torch.randn(9)
    targets[2:4] = float("nan")
    known = targets.isfinite()
    cross_entropy = F.cross_entropy(logits, labels, ignore_index=-1)
    squared_error = F.mse_loss(score[known, 0], targets[known])
    torch.testing.assert_close(outcome_loss(logits, labels), cross_entropy)
    torch.testing.assert_close(score_loss(score, targets), squared_error)
    unused = torch.tensor(float("nan"))
    both = MultiHeadValue().loss(unused, [logits, score], [labels, targets])
    torch.testing.assert_close(both, 1.5 * cross_entropy + 0.02 * squared_error)
    alone = MultiHeadValue(outcome_coef=2.0).loss(unused, [logits, score], [labels])
    torch.testing.assert_close(alone, 2.0 * cross_entropy)


def test_where_nothing_is_known_the_loss_is_a_zero_that_can_be_differentiated():
    logits, score = torch.randn(5, 3, requires_grad=True), torch.randn(5, 1, requires_grad=True)
    targets = [torch.full((5,), -1), torch.full((5,), float("nan"))]
    loss = MultiHeadValue().loss(torch.zeros(()), [logits, score], targets)
    loss.backward()
    assert loss == 0 and torch.equal(logits.grad, torch.zeros(5, 3)) and torch.equal(score.grad, torch.zeros(5, 1))
    assert np.isnan(MultiHeadValue().scalars([logits, score], targets)["losses/outcome_accuracy"])


def test_an_unknown_score_does_not_touch_the_gradient_of_the_others():
    score = torch.randn(4, 1, requires_grad=True)
    score_loss(score, torch.tensor([1.0, float("nan"), 0.0, float("nan")])).backward()
    assert score.grad.isfinite().all() and not score.grad[1].any() and score.grad[0].any()


def test_the_accuracy_counts_labelled_rows_alone():
    logits = torch.eye(3)[[0, 1, 2, 0]] * 9
    found = MultiHeadValue().scalars([logits, torch.zeros(4, 1)], [torch.tensor([0, 1, 0, -1])])
    assert found["losses/outcome_accuracy"] == pytest.approx(2 / 3) and "losses/score_loss" not in found


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_targets_and_edges_stay_with_their_rows(autoreset):
    policy, rollout = collected(autoreset=autoreset)
    columns = Columns(rollout.log_probs, rollout.rewards, torch.randn_like(rollout.values), rollout.values)
    extra = Extra(("value_logits", "state_value"), [columns.returns, rollout.values])
    rows = 0
    for part in RowBatches(policy, rollout, columns, extra).minibatches(3):
        log_prob, _, value, aux, logits, again = part.evaluate()
        assert torch.equal(part.targets[0], part.columns.returns) and torch.equal(part.targets[1], part.columns.value)
        torch.testing.assert_close(log_prob, part.columns.log_prob, rtol=0, atol=1e-5)
        torch.testing.assert_close(again, part.targets[1], rtol=0, atol=1e-5)
        assert torch.equal(value, again) and logits.shape == (len(value), 3) and aux == {}
        rows += len(value)
    assert rows == (160 if autoreset == "same_step" else int(rollout.valid.sum()))


MEMORY = {
    "type": "graph",
    "components": {
        "flat": {"type": "flatten", "in_keys": "observation"},
        "memory": {"type": "leaky", "in_keys": "flat"},
        "policy": {"type": "action_head", "in_keys": "memory"},
        "value_logits": {"type": "outcome_head", "in_keys": "memory", "hidden": 8},
        "score_lead": {"type": "score_head", "in_keys": "memory", "hidden": 8},
        "state_value": {"type": "outcome_value", "in_keys": ["value_logits", "score_lead"]},
    },
}


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_a_policy_with_memory_learns_outcomes_over_sequences(autoreset):
    environments = harvest(autoreset=autoreset)
    spaces = environments.single_observation_space, environments.single_action_space
    policy = policysmith.build({"model": MEMORY}, *spaces, seed=0, registry=REGISTRY).eval()
    algorithm = PPO(rollout_steps=24, sequence_length=8, value="multi_head", learning_rate=0.01)
    optimizer = algorithm.optimizer(policy)
    rollout = algorithm.collector(policy, environments, 0, 0).collect(24)
    batches = algorithm.batches(policy, rollout)
    assert isinstance(batches, SequenceBatches)
    (part,) = batches.minibatches(1)
    log_prob, _, _, _, logits, score = part.evaluate()
    assert logits.shape == (len(log_prob), 3) and score.shape == (len(log_prob), 1)
    torch.testing.assert_close(log_prob, part.columns.log_prob, rtol=0, atol=1e-5)
    taught = outcome_labels(rollout) if rollout.valid is None else outcome_labels(rollout)[rollout.valid]
    assert sorted(part.targets[0].tolist()) == sorted(taught.flatten().tolist())
    losses = [algorithm.update(policy, optimizer, rollout)["losses/outcome_loss"] for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]


def accuracy_and_return(policy):
    """Of fresh games: how often the likeliest outcome is the true one, and what the policy wins."""
    rollout = Collector(policy.eval(), harvest(), 99).collect(60)
    leaves = [leaf.flatten(0, 1) for leaf in (*rollout.observations, *rollout.actions, *rollout.masks)]
    with torch.no_grad():
        logits = policy.evaluating(len(rollout.masks), extra=("value_logits",))(*leaves)[3]
    labels = outcome_labels(rollout).flatten()
    right = (logits.argmax(-1) == labels)[labels >= 0].float().mean().item()
    return right, np.mean([episode.episode_return for episode in rollout.episodes])


@pytest.mark.parametrize("value", thinned(["multi_head", "scalar"], 2))
def test_a_board_network_learns_to_play_and_how_games_end(value):
    environments = harvest()
    policy = tiny(environments)
    before = accuracy_and_return(policy)
    torch.manual_seed(0)
    algorithm = PPO(total_steps=4608, rollout_steps=48, learning_rate=4e-3, gamma=1.0, value=value)
    reports = []
    collector = algorithm.collector(policy, environments, 0, 0)
    algorithm.learn(policy, collector, algorithm.optimizer(policy), lambda report: bool(reports.append(report)))
    after = accuracy_and_return(policy)
    assert before[0] < 0.4 and after[0] > 0.6, (before, after)
    assert before[1] < -0.4 and after[1] > -0.2, (before, after)
    scalars = [report.scalars for report in reports]
    assert all(np.isfinite(list(entry.values())).all() for entry in scalars)
    own = {"losses/outcome_loss", "losses/outcome_accuracy", "losses/score_loss"}
    assert own & set(scalars[-1]) == (own if value == "multi_head" else set())
    if value == "multi_head":
        assert scalars[-1]["losses/score_loss"] < 0.7 * scalars[0]["losses/score_loss"]


def test_training_by_a_file_takes_the_objective_and_stores_it(tmp_path):
    config = {
        "environment": {"id": "policysmith/Harvest-v0", "num_envs": 4},
        "model": TINY,
        "training": {
            "type": "ppo",
            "total_steps": 256,
            "rollout_steps": 32,
            "value": {"type": "multi_head", "outcome_coef": 1.0},
        },
        "evaluation": {"episodes": 4},
    }
    result = policysmith.train(config, output=tmp_path / "run", progress=False)
    stored = policysmith.load(tmp_path / "run").config["training"]["value"]
    assert stored == {"type": "multi_head", "outcome_coef": 1.0, "score_coef": 0.02}
    assert result.evaluation.episodes == 4


def test_the_default_is_the_scalar_that_asks_for_nothing():
    environments = harvest()
    policy = tiny(environments)
    algorithm = PPO()
    assert isinstance(algorithm.value, ScalarValue)
    rollout = Collector(policy, environments, 0).collect(12)
    batches = algorithm.batches(policy, rollout)
    (part,) = batches.minibatches(1)
    assert batches.targets == [] and len(part.evaluate()) == 4
    loss = torch.tensor(3.0)
    assert algorithm.value.loss(loss, [], []) is loss and algorithm.value.scalars([], []) == {}


def test_objectives_move_what_they_are_for():
    """`multi_head` trains the score; `scalar` does not; neither leaves the outcome alone."""
    environments = harvest()
    for value, moves_score in (("scalar", False), ("multi_head", True)):
        policy = tiny(environments)
        before = copy.deepcopy(policy.state_dict())
        algorithm = PPO(value=value, rollout_steps=12)
        rollout = Collector(policy.eval(), environments, 0).collect(12)
        algorithm.update(policy, algorithm.optimizer(policy), rollout)
        moved = {name for name, tensor in policy.state_dict().items() if not torch.equal(tensor, before[name])}
        assert ("components.score_lead.fc2.weight" in moved) == moves_score
        assert "components.value_logits.fc2.weight" in moved


CARTPOLE = {"environment": {"id": "CartPole-v1"}, "model": "mlp"}


def test_a_policy_without_the_heads_is_refused_before_anything_is_written(tmp_path):
    config = {**CARTPOLE, "training": {"type": "ppo", "value": "multi_head"}}
    with pytest.raises(ConfigError) as caught:
        policysmith.train(config, output=tmp_path / "run", progress=False)
    text = str(caught.value)
    assert text.startswith("training.value: multi_head trains edges that the model does not have: 'value_logits' (3,)")
    assert "'score_lead' (1,)" in text and "se_resnet" in text
    assert not (tmp_path / "run").exists()


def test_heads_of_another_shape_are_refused_with_it():
    components = {
        "value_logits": {"type": "nn.Linear", "in_keys": "observation", "out_features": 5},
        "score_lead": {"type": "score_head", "in_keys": "observation"},
        "policy": {"type": "action_head", "in_keys": "value_logits"},
        "state_value": {"type": "value_head", "in_keys": "score_lead"},
    }
    policy = policysmith.build({**CARTPOLE, "model": {"type": "graph", "components": components}})
    with pytest.raises(ConfigError, match=r"the model does not have: 'value_logits' \(3,\) \(it has shape \(5,\)\);"):
        PPO(value="multi_head").optimizer(policy)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"value_clip": 0.2}, "training.value_clip: belongs to value: scalar, found 0.2"),
        ({"value_coef": 1.0}, "training.value_coef: belongs to value: scalar, found 1.0"),
    ],
)
def test_options_of_the_scalar_are_refused_beside_other_weights(options, problem):
    with pytest.raises(ConfigError, match=f"^{problem}"):
        PPO(value="multi_head", **options)
    assert PPO(value={"type": "scalar"}, **options).value.edges == ()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"type": "multi_head", "score_coef": -1.0}, "training.value.score_coef: must be ≥ 0, found -1.0"),
        ({"type": "multi_hed"}, r"training.value.type: unknown objective 'multi_hed' \(did you mean 'multi_head'\?\)"),
        ({"type": "scalar", "outcome_coef": 1.0}, "training.value.outcome_coef: unknown option of 'scalar'"),
    ],
)
def test_a_wrong_objective_is_explained(value, problem):
    with pytest.raises(ConfigError, match=problem):
        policysmith.train({**CARTPOLE, "training": {"type": "ppo", "value": value}}, progress=False)
