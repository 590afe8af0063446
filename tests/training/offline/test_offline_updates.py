"""`Offline.learn` against loops over transitions: from the same episodes the same weights, for every objective."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import policysmith
from policysmith.registry import default_registry
from policysmith.training.datasets import from_arrays
from policysmith.training.offline.objectives import Start
from policysmith.training.offline.offline import Offline
from policysmith.training.optim.averaging import WeightAverage
from tests.reference import offline as twin
from tests.reference.networks import slow_trunk, weights_of
from tests.reference.optimizers import SlowAdam, SlowAverage
from tests.training.offline_data import BOX, flowing
from tests.training.played import PLAIN, REGULARIZED, REMEMBERING, compare, penalty

CHOICES = gym.spaces.Discrete(3, start=2)
FORCES = gym.spaces.Box(-1, 1, (2,), np.float32)
WANTED = gym.spaces.Dict(observation=BOX, return_to_go=gym.spaces.Box(-np.inf, np.inf, (1,), np.float32))
UPDATES, SIZE, SEED, RATE = 7, 8, 3, 0.02


def recorded(space=CHOICES, final=True, masks=False):
    """Six episodes of 2 to 6 steps, some ended by themselves and some cut off: for the product, and for the twin."""
    draw = np.random.default_rng(1)
    lengths = np.array([4, 2, 6, 3, 5, 4])
    steps, ended = int(lengths.sum()), np.array([1, 0, 1, 0, 0, 1], bool)
    seen = draw.normal(size=(steps, 3)).astype(np.float32)
    last = draw.normal(size=(len(lengths), 3)).astype(np.float32)
    choices = draw.integers(3, size=steps)
    acted = 2 + choices if space is CHOICES else draw.uniform(-1, 1, (steps, 2)).astype(np.float32)
    terminated = np.zeros(steps, bool)
    terminated[lengths.cumsum() - 1] = ended
    arrays = {"observation": seen, "action": acted, "reward": draw.normal(size=steps).astype(np.float32)}
    arrays |= {"terminated": terminated, "lengths": lengths} | ({"last_observation": last} if final else {})
    legal = draw.random((steps, 3)) < 0.5
    legal[np.arange(steps), choices] = True
    if masks:
        arrays["action_mask"] = legal
    told, start = [], 0
    for e, length in enumerate(lengths):
        own = slice(start, start + length)
        parts = [torch.as_tensor(column[own]) for column in (np.asarray(acted), arrays["reward"])]
        everything = torch.as_tensor(np.concatenate([seen[own], last[e : e + 1]]))
        told.append(twin.Told(everything, *parts, legal[own] if masks else None, bool(ended[e]), final))
        start += length
    return from_arrays(arrays, BOX, space), told


def learned(model, data, objective, space=CHOICES, observations=BOX, prepare=None, **options):
    """The product's run: the policy before it (as weights), the policy and the learner after it, and its reports."""
    policy = policysmith.build({"model": model}, observations, space, seed=0)
    given = {"updates": UPDATES, "batch_size": SIZE, "learning_rate": RATE, "validation_share": 0.0}
    algorithm = Offline(objective=objective, **(given | options))
    learner = algorithm.objective.start(Start(policy, data, SEED, default_registry))
    before = weights_of(policy) | {n.removeprefix("critics."): w for n, w in _critics(learner).items()}
    if prepare is not None:
        prepare(learner)
    reports, optimizer = [], algorithm.optimizer(learner)
    average = WeightAverage(policy, 0.7)
    average.follow(optimizer)
    watcher = type("Watcher", (), {"report": lambda _, r: bool(reports.append(r)), "update": lambda *_: False})()
    torch.manual_seed(9)
    algorithm.learn(learner, algorithm.samplers(learner, data, SEED), optimizer, watcher)
    return before, policy, learner, reports, average


def _critics(learner):
    found = weights_of(learner.extra)
    return {name.replace(".components.", "."): w for name, w in found.items() if name.startswith("critics.")}


def agree(before, policy, reports, average, units, loss, max_grad_norm=1.0, rate=lambda progress: RATE, **options):
    """Run the twin from the same weights and compare what came of it."""
    mean = SlowAverage({n: w for n, w in before.items() if n[:2] not in ("0.", "1.")}, 0.7)
    after = options.pop("after", lambda weights: None)

    def both(weights):
        after(weights)
        mean.follow(mean_of(weights, mean))

    start = {name: weight.detach().clone() for name, weight in before.items()}
    told = twin.slow_offline_learn(before, SlowAdam(), units, loss, UPDATES, SIZE, SEED, rate, max_grad_norm, both)
    assert any(not torch.allclose(before[name], start[name], atol=0.01) for name in start)
    compare(policy, before)
    with average.applied():
        compare(policy, mean.weights)
    per_epoch = -(-len(units) // SIZE)
    whole = [told[i : i + per_epoch] for i in range(0, UPDATES, per_epoch)]
    means = [sum(part) / len(part) for part in whole]
    assert [r.scalars["training/loss"] for r in reports] == pytest.approx(means, abs=2e-5)
    return told


def mean_of(weights, mean):
    return {name: weights[name] for name in mean.weights}


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("masks", [False, True], ids=["all legal", "masks"])
def test_cloning_of_choices(accumulate, masks):
    data, told = recorded(masks=masks)
    run = learned(PLAIN, data, {"type": "bc", "entropy_coef": 0.2}, accumulate=accumulate, max_grad_norm=0.2)
    units = twin.steps_of(told, range(6))
    agree(run[0], run[1], *run[3:], units, twin.slow_cloning(twin.looked_at(told, 2), 0.2), 0.2)


def test_cloning_of_numbers():
    data, told = recorded(FORCES)
    run = learned(PLAIN, data, {"type": "bc", "entropy_coef": 0.1}, FORCES, max_grad_norm=None)
    loss = twin.slow_cloning(twin.looked_at(told), 0.1)
    agree(run[0], run[1], *run[3:], twin.steps_of(told, range(6)), loss, None)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_auxiliary_losses_are_added_once(accumulate):
    data, told = recorded()
    run = learned(REGULARIZED, data, "bc", accumulate=accumulate)
    loss = twin.slow_cloning(twin.looked_at(told, 2, slow_trunk), penalty=penalty)
    agree(run[0], run[1], *run[3:], twin.steps_of(told, range(6)), loss)


def test_steps_follow_a_schedule():
    data, told = recorded()
    run = learned(PLAIN, data, "bc", learning_rate={"type": "linear", "start": 0.03, "end": 0.01})
    loss = twin.slow_cloning(twin.looked_at(told, 2))
    agree(run[0], run[1], *run[3:], twin.steps_of(told, range(6)), loss, rate=lambda progress: 0.03 - 0.02 * progress)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("length", "burn_in"), [(None, 0), (2, 0), (3, 2)])
def test_cloning_over_windows(length, burn_in, accumulate):
    data, told = recorded()
    options = {"sequence_length": length, "burn_in": burn_in, "accumulate": accumulate}
    run = learned(REMEMBERING, data, {"type": "bc", "entropy_coef": 0.1}, **options)
    units = twin.windows_of(told, range(6), length, burn_in)
    agree(run[0], run[1], *run[3:], units, twin.slow_cloning(twin.remembered(told, 2), 0.1))


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("normalize", [True, False], ids=["normalised", "as it is"])
def test_advantage_weighted_regression(normalize, accumulate):
    data, told = recorded()
    options = {"gamma": 0.9, "temperature": 0.6, "max_weight": 1.5, "value_coef": 0.8}
    objective = {"type": "awr", "normalize_advantage": normalize, **options}
    run = learned(PLAIN, data, objective, accumulate=accumulate)
    loss = twin.slow_regression(twin.looked_at(told, 2), told, **options, normalize=normalize)
    agree(run[0], run[1], *run[3:], twin.steps_of(told, range(6)), loss)


def test_advantage_weighted_regression_over_windows():
    data, told = recorded()
    options = {"gamma": 0.9, "temperature": 0.6, "max_weight": 1.5, "value_coef": 0.8}
    run = learned(REMEMBERING, data, {"type": "awr", **options}, sequence_length=3, burn_in=1, accumulate=2)
    loss = twin.slow_regression(twin.remembered(told, 2), told, **options, normalize=True)
    agree(run[0], run[1], *run[3:], twin.windows_of(told, range(6), 3, 1), loss)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("final", [True, False], ids=["last observations", "none"])
def test_implicit_q_learning(final, accumulate):
    """The targets begin elsewhere than the Q networks, so that a swap of the two would show."""
    data, told = recorded(final=final)

    def elsewhere(learner):
        draw = torch.Generator().manual_seed(4)
        for parameter in learner.targets.parameters():
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=draw)
        judges.extend({n.removeprefix("components."): p.detach().double() for n, p in t.named_parameters()}
                      for t in learner.targets)  # fmt: skip

    judges = []
    options = {"gamma": 0.9, "expectile": 0.8, "inverse_temperature": 2.0, "max_weight": 1.2, "value_coef": 0.6}
    objective = {"type": "iql", "target_rate": 0.3, **options}
    before, policy, learner, *rest = learned(PLAIN, data, objective, prepare=elsewhere, accumulate=accumulate)
    loss = twin.slow_implicit_q(told, judges, **options, start=2)
    agree(before, policy, *rest, twin.steps_of(told, range(6)), loss, after=twin.slow_follow(judges, 0.3))
    for index, (critic, target) in enumerate(zip(learner.critics, learner.targets, strict=True)):
        compare(critic, {n.removeprefix(f"{index}."): w for n, w in before.items() if n.startswith(f"{index}.")})
        compare(target, judges[index])


def test_return_conditioned_cloning():
    data, told = recorded()
    objective = {"type": "decision_transformer", "entropy_coef": 0.1}
    run = learned(PLAIN, data, objective, observations=WANTED)
    loss = twin.slow_cloning(twin.looked_at(told, 2, wanted=True), 0.1)
    agree(run[0], run[1], *run[3:], twin.steps_of(told, range(6)), loss)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_flow_matching(accumulate):
    data, told = recorded(FORCES)
    run = learned(flowing(hidden=[6], horizon=3), data, "flow_matching", FORCES, accumulate=accumulate)
    loss = twin.slow_flow(told, 3, torch.Generator().manual_seed(9))
    agree(run[0], run[1], *run[3:], twin.steps_of(told, range(6)), loss)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_held_out_episodes_teach_nothing_and_are_measured_as_they_are(share):
    data, told = recorded()
    before, policy, _, reports, average = learned(PLAIN, data, "bc", validation_share=share)
    teaching, others = twin.held_out(told, share, SEED)
    loss = twin.slow_cloning(twin.looked_at(told, 2))
    agree(before, policy, reports, average, twin.steps_of(told, teaching), loss)
    assert reports[-1].scalars["validation/loss"] == pytest.approx(
        loss(before, twin.steps_of(told, others)).item(), abs=2e-5
    )
