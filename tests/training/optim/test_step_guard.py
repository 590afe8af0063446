"""Steps of an optimiser whose loss or gradients are not finite: not taken, and counted."""

import pytest
import torch
from torch import nn

from policysmith.training.optim.averaging import WeightAverage
from policysmith.training.optim.optimizers import Optimizers
from policysmith.training.optim.rules import AdamRule, AdamWRule, SgdRule
from policysmith.training.optim.step_guard import Skipped

MAKERS = {
    "adam": lambda p: Optimizers.of(p, 0.1),
    "adamw": lambda p: Optimizers({"others": (AdamWRule(), p)}, 0.1),
    "sgd": lambda p: Optimizers({"others": (SgdRule(momentum=0.9, weight_decay=0.1), p)}, 0.1),
    "two": lambda p: Optimizers({"one": (AdamRule(), p[:1]), "two": (SgdRule(momentum=0.9), p[1:])}, 0.1),
}
NAN, INF = float("nan"), float("inf")
BAD = {
    "loss": lambda w: w[0].sum() + INF,  # its gradients are finite
    "gradient": lambda w: torch.where(w[0] > 1e9, w[0], 0 * w[0]).sqrt().sum(),  # 0 · inf behind a finite loss
    "one": lambda w: w[0].sum() + w[1].sum() * NAN,
    "overflow": lambda w: (w[0] * 1e30).sum(),  # whose square Adam could not hold
    "part": lambda w: iter([w[0].sum(), w[1].sum() * INF, w[0].sum()]),  # of an accumulated step
}


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("maker", MAKERS)
def test_a_step_that_is_not_finite_leaves_weights_moments_and_averages_as_they_were(maker, bad, clip):
    def run(*losses):
        torch.manual_seed(0)
        weights = nn.ParameterList([nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2, 2))])
        optimizer, average = MAKERS[maker](list(weights)), WeightAverage(weights, 0.5)
        average.follow(optimizer)
        for loss in losses:
            optimizer.step(loss(weights), clip)
        return [*weights, *optimizer.state().values(), *average.tensors], optimizer.guard.taken()

    def good(weights):
        return sum(w.square().sum() for w in weights)

    (found, skipped), (expected, none) = run(good, BAD[bad], good, BAD[bad], BAD[bad]), run(good, good)
    assert skipped == Skipped(3, 2) and none == Skipped(0, 0)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)


def test_steps_in_a_row_are_counted_over_what_was_asked_for():
    weight = nn.Parameter(torch.ones(1))
    optimizer = Optimizers.of([weight])
    for _ in range(3):
        optimizer.step(weight.sum() * NAN)
    assert optimizer.guard.taken() == Skipped(3, 3)
    optimizer.step(weight.sum() * NAN)
    assert optimizer.guard.taken() == Skipped(1, 4)
    optimizer.step(weight.sum())
    assert optimizer.guard.taken() == Skipped(0, 0)


def test_the_flag_that_fused_optimisers_obey_on_an_accelerator_has_the_same_effect():
    """The path that waits for nothing, run here on the CPU."""

    def run(there):
        torch.manual_seed(0)
        weights = [nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2, 2))]
        optimizer = MAKERS["two"](weights)
        if there:
            optimizer.guard._step = optimizer.guard._step_there
        for factor in (1.0, NAN, 2.0, INF, INF):
            optimizer.step(sum(w.square().sum() for w in weights) * factor, 0.5)
        return [*weights, *optimizer.state().values()], optimizer.guard.taken()

    (found, counts), (expected, counted) = run(True), run(False)
    assert counts == counted == Skipped(3, 2)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)


def test_an_average_never_takes_a_weight_that_is_not_finite():
    weights = nn.ParameterList([nn.Parameter(torch.ones(3))])
    average = WeightAverage(weights, 0.5)
    with torch.no_grad():
        weights[0][1] = NAN
    average.update()
    assert torch.equal(average.tensors[0], torch.ones(3))
