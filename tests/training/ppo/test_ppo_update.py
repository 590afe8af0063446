"""`PPO.update` and `PPO.learn` against loops over rows: from the same rollouts, the same weights, whatever is asked."""

import copy

import numpy as np
import pytest
import torch

from policysmith.training.optim.averaging import WeightAverage
from policysmith.training.ppo.ppo import PPO
from tests.reference.networks import slow_actor_critic, slow_outcomes, slow_trunk, weights_of
from tests.reference.optimizers import SlowAdam, SlowAverage, SlowSgd
from tests.reference.ppo import (
    Share,
    each_row,
    each_sequence,
    looked_at,
    remembered,
    slow_outcome_loss,
    slow_ppo_update,
)
from tests.training.played import OUTCOMES, PLAIN, REGULARIZED, REMEMBERING, built, compare, penalty, played

SETTING = {"rate": 0.02, "clip": 0.15, "epochs": 2, "minibatches": 3, "gamma": 0.9, "gae_lambda": 0.8}
NAMES = {"rate": "learning_rate", "normalize": "normalize_advantage"}


def updated(model, rollout, network, optimizer=None, units=each_row, look=None, extra=None, **options):
    """One update by the product and one by the twin: compared, and the twin's and the product's scalars."""
    twin, ours = SETTING | options, {NAMES.get(k, k): v for k, v in (SETTING | options).items()}
    for name in ("penalty", "outcomes"):
        ours.pop(name, None)
    policy = built(model).train()
    weights = weights_of(policy)
    algorithm = PPO(**ours, **(extra or {}))
    torch.manual_seed(5)
    scalars = algorithm.update(policy, algorithm.optimizer(policy), rollout)
    before = copy.deepcopy({name: w.detach() for name, w in weights.items()})
    found = slow_ppo_update(
        weights, optimizer or SlowAdam(eps=1e-5), [Share(rollout, 5)], units, look or looked_at(network), **twin
    )
    assert max(float((weights[name].detach() - before[name]).abs().max()) for name in weights) > 0.01
    compare(policy, weights)
    return found, scalars


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"entropy_coef": 0.2},
        {"value_coef": 1.7, "max_grad_norm": 0.1},
        {"value_clip": 0.1, "max_grad_norm": 5.0},
        {"normalize": False, "epochs": 3},
        {"accumulate": 2, "entropy_coef": 0.1, "minibatches": 2, "max_grad_norm": 0.2},
        {"accumulate": 3, "minibatches": 4},
        {"minibatches": 1, "clip": 0.4},
        {"minibatches": 18, "entropy_coef": 0.1},  # a row each: nothing to normalise by
    ],
    ids=str,
)
@pytest.mark.parametrize("valid", [True, False], ids=["some rows", "all rows"])
def test_an_update_is_the_loop_over_rows(options, valid):
    options = {"max_grad_norm": None} | options
    found, scalars = updated(PLAIN, played(valid=valid), slow_actor_critic, **options)
    for tag, value in found.items():
        assert scalars[tag] == pytest.approx(value, abs=2e-5), tag
    assert scalars["charts/learning_rate"] == SETTING["rate"]


def test_every_epoch_is_drawn_anew_and_ends_early_by_divergence():
    """The threshold lies between what two epochs measure: that the sum of steps is stopped is no chance."""
    options = {"max_grad_norm": None, "normalize": False, "minibatches": 2}
    rollout = played(valid=False)
    measured = [
        updated(PLAIN, rollout, slow_actor_critic, epochs=n, **options)[0]["losses/approx_kl"] for n in (1, 2, 3)
    ]
    threshold = (sorted(measured)[0] + sorted(measured)[-1]) / 2
    stops = next((n for n, kl in enumerate(measured, 1) if kl > threshold), None)
    found, scalars = updated(PLAIN, rollout, slow_actor_critic, epochs=3, target_kl=threshold, **options)
    assert found["charts/epochs"] == scalars["charts/epochs"] == stops


def test_illegal_choices_and_rows_without_a_legal_one():
    rollout = played()
    draw = torch.Generator().manual_seed(3)
    mask = torch.rand(6, 4, 3, generator=draw) < 0.6
    mask = mask | torch.nn.functional.one_hot(rollout.actions[0], 3).bool()
    mask[torch.rand(6, 4, generator=draw) < 0.2] = False
    rollout.masks = [mask]
    dead = ~mask.any(-1)
    assert dead.any()
    rollout.log_probs = torch.where(dead, 0.0, rollout.log_probs)
    updated(PLAIN, rollout, slow_actor_critic, entropy_coef=0.3, max_grad_norm=None)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_auxiliary_losses_are_added_once(accumulate):
    options = {"penalty": penalty, "accumulate": accumulate, "minibatches": 2, "max_grad_norm": 1.0}
    _, scalars = updated(REGULARIZED, played(valid=False), slow_trunk, **options)
    assert scalars["aux/regularization_loss"] > 0


@pytest.mark.parametrize("told", [True, False], ids=["scores", "no scores"])
def test_a_value_of_several_heads_learns_how_games_end(told):
    rollout = played(valid=False)
    if told:
        rollout.scores = torch.where(rollout.terminated.bool(), 3.0 * rollout.rewards + 1.0, torch.nan)
        rollout.scores[0] = torch.nan
    value = {"type": "multi_head", "outcome_coef": 0.7, "score_coef": 0.3}
    outcomes = slow_outcome_loss(0.7, 0.3)
    options = {"outcomes": outcomes, "max_grad_norm": 2.0, "entropy_coef": 0.1, "accumulate": 1}
    updated(OUTCOMES, rollout, slow_outcomes, extra={"value": value}, **options)


@pytest.mark.parametrize(("length", "burn_in"), [(6, 0), (3, 0), (3, 2), (2, 2)])
@pytest.mark.parametrize("valid", [True, False], ids=["some steps", "all steps"])
def test_a_memory_learns_through_its_sequences(length, burn_in, valid):
    rollout = played(valid=valid, memory=True)
    extra = {"rollout_steps": 6, "sequence_length": length, "burn_in": burn_in}
    options = {"minibatches": 2, "max_grad_norm": 0.5, "entropy_coef": 0.1, "value_clip": 0.2}
    look = remembered(length, burn_in)
    updated(REMEMBERING, rollout, None, units=each_sequence(length), look=look, extra=extra, **options)


@pytest.mark.parametrize(
    ("rule", "twin"),
    [
        ({"type": "sgd", "momentum": 0.8}, SlowSgd(0.8)),
        ({"type": "adam", "beta1": 0.7, "eps": 1e-4}, SlowAdam(1e-4, (0.7, 0.999))),
        ({"type": "adamw", "weight_decay": 0.3}, SlowAdam(1e-8, decay=0.3)),
    ],
    ids=["sgd", "adam", "adamw"],
)
def test_a_stated_rule_takes_the_steps(rule, twin):
    """At the algorithm's step size, over weights and no biases where it decays."""
    updated(PLAIN, played(), slow_actor_critic, twin, extra={"optimizer": rule}, max_grad_norm=0.5)


def test_components_with_rules_of_their_own_share_one_clipping():
    class Two:
        """The heads of the value by momentum at a step size of their own, the rest by Adam."""

        def __init__(self):
            self.adam, self.sgd = SlowAdam(1e-5), SlowSgd(0.5)

        def step(self, weights, rate):
            own = {n: w for n, w in weights.items() if n.startswith("critic")}
            self.sgd.step(own, 0.3)
            self.adam.step({n: w for n, w in weights.items() if n not in own}, rate)

    rules = {"critic": {"type": "sgd", "momentum": 0.5, "learning_rate": 0.3}}
    updated(PLAIN, played(), slow_actor_critic, Two(), extra={"optimizers": rules}, max_grad_norm=0.3)


class Played:
    """A collector that hands over what was played beforehand."""

    def __init__(self, rollouts):
        self.rollouts, self.count, self.step = list(rollouts), 4, 0

    def collect(self, steps):
        assert steps == 6
        self.step += 24
        return self.rollouts.pop(0)


LINEAR = {"learning_rate": (0.03, 0.0), "clip": (0.3, 0.1), "entropy_coef": (0.2, 0.0)}


def test_schedules_moments_and_the_average_of_weights_go_through_all_iterations():
    """Progress is what is done of what is to be done: 0, 1/3, 2/3; an iteration that does not fit is not begun."""
    rollouts = [played(seed) for seed in (1, 2, 3)]
    scheduled = {name: {"type": "linear", "start": a, "end": b} for name, (a, b) in LINEAR.items()}
    algorithm = PPO(total_steps=90, rollout_steps=6, epochs=2, minibatches=2, gamma=0.9, gae_lambda=0.8, **scheduled)
    policy = built(PLAIN)
    weights, reports = weights_of(policy), []
    optimizer, average = algorithm.optimizer(policy), WeightAverage(policy, 0.7)
    average.follow(optimizer)
    torch.manual_seed(5)
    algorithm.learn(policy, Played(rollouts), optimizer, lambda report: bool(reports.append(report)))
    twin, mean, draw = SlowAdam(1e-5), SlowAverage(weights, 0.7), torch.Generator().manual_seed(5)
    share = {"epochs": 2, "minibatches": 2, "gamma": 0.9, "gae_lambda": 0.8, "max_grad_norm": 0.5}
    for index, rollout in enumerate(rollouts):
        rate, clip, entropy_coef = ((a + (b - a) * index / 3) for a, b in LINEAR.values())
        options = {"rate": rate, "clip": clip, "entropy_coef": entropy_coef, "average": mean, **share}
        slow_ppo_update(weights, twin, [Share(rollout, draw)], each_row, looked_at(slow_actor_critic), **options)
        assert reports[index].scalars["charts/learning_rate"] == pytest.approx(rate)
    assert [(r.step, r.iteration) for r in reports] == [(24, 1), (48, 2), (72, 3)] and not policy.training
    compare(policy, weights, atol=5e-5)
    with average.applied():
        compare(policy, mean.weights, atol=5e-5)


def test_training_ends_where_the_watcher_says_and_begins_where_it_stopped():
    algorithm = PPO(total_steps=120, rollout_steps=6, epochs=1, minibatches=1)
    policy, seen = built(PLAIN), []
    collector = Played([played(seed) for seed in range(5)])
    watch = lambda report: seen.append(report.iteration) or len(seen) == 2  # noqa: E731
    algorithm.learn(policy, collector, algorithm.optimizer(policy), watch, iteration=2)
    assert seen == [3, 4] and len(collector.rollouts) == 3


def test_the_share_that_the_value_explains_is_of_what_is_learnt_from():
    rollout = played()
    policy = built(PLAIN)
    algorithm = PPO(gamma=0.9, gae_lambda=0.8, epochs=1)
    scalars = algorithm.update(policy, algorithm.optimizer(policy), rollout)
    columns = algorithm.batches(policy, rollout).columns
    returns, left = columns.returns.double().numpy(), (columns.returns - columns.value).double().numpy()
    assert scalars["losses/explained_variance"] == pytest.approx(1 - np.var(left) / np.var(returns), abs=1e-5)
