"""Routers: by score, by task, softly."""

from __future__ import annotations

import copy

import pytest
import torch

from policysmith.ops.balance import expert_load
from policysmith.parts.feedforward import SoftRouter, TaskRouter, TopKRouter
from policysmith.registry import part
from tests.reference.mixture_of_experts import scores_of

D, E, N = 12, 6, 9


def topk(top_k: int = 2, **options) -> TopKRouter:
    torch.manual_seed(0)
    router = TopKRouter(D, E, top_k, **options)
    torch.nn.init.normal_(router.gate.weight)
    return router


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_each_row_takes_its_best_experts(score):
    router, x = topk(score=score), torch.randn(N, D)
    routing = router(x)
    for row, chosen, gates in zip(x, routing.experts_NK, routing.gates_NK, strict=True):
        scores = scores_of(router.gate.weight @ row, score)
        values, expected = scores.sort(descending=True)
        assert torch.equal(chosen, expected[:2])
        torch.testing.assert_close(gates, values[:2] / values[:2].sum())


def test_a_single_gate_keeps_its_score_so_that_the_router_learns():
    router, x = topk(1), torch.randn(N, D)
    routing = router(x)
    torch.testing.assert_close(routing.gates_NK, routing.logits_NE.softmax(-1).amax(-1, keepdim=True))
    assert torch.equal(topk(1, normalize=True)(x).gates_NK, torch.ones(N, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_scores_are_fp32_or_better_whatever_the_weights_are(dtype):
    routing = topk().to(dtype)(torch.randn(N, D, dtype=dtype))
    expected = torch.promote_types(dtype, torch.float32)
    assert routing.logits_NE.dtype == routing.gates_NK.dtype == expected


def test_autocast_does_not_reach_the_scores():
    router, x = topk(), torch.randn(N, D)
    expected = router(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = router(x)
    assert torch.equal(found.logits_NE, expected.logits_NE)
    assert torch.equal(found.gates_NK, expected.gates_NK)


def test_jitter_shakes_the_input_in_training_only():
    router, x = topk(jitter=0.1), torch.randn(N, D)
    router.eval()
    plain = router(x).logits_NE
    assert torch.equal(plain, x @ router.gate.weight.T)
    assert torch.equal(router(x).logits_NE, plain)
    router.train()
    assert not torch.equal(router(x).logits_NE, router(x).logits_NE)
    one_hot = torch.eye(D)  # the noise shows as it is
    ratio = router(one_hot).logits_NE / router.gate.weight.T
    assert ((ratio - 1).abs() <= 0.1 + 1e-6).all()
    assert ratio.min() < 0.95 < 1.05 < ratio.max()


def test_the_bias_moves_only_when_asked_and_only_the_choice():
    router, x = topk(bias_speed=0.5, score="sigmoid"), torch.randn(N, D)
    router.train()
    before = copy.deepcopy(router.state_dict())
    logits = router(x).logits_NE
    assert all(torch.equal(value, before[name]) for name, value in router.state_dict().items())
    router.update_bias(torch.tensor([1.0, 0, 0, 0, 0, 0]))
    assert router.bias_steps.tolist() == [-1, 1, 1, 1, 1, 1]
    assert torch.equal(router(x).logits_NE, logits)


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_updating_the_bias_evens_out_the_load(score):
    router = topk(bias_speed=0.01, score=score)
    with torch.no_grad():
        router.gate.weight[0] += 1
    x = torch.rand(512, D)
    loads = []
    for _ in range(200):
        loads.append(expert_load(router(x).experts_NK, E))
        router.update_bias(loads[-1])
    settled = torch.stack(loads[-50:]).mean(0)
    assert loads[0].max() > 0.4
    assert loads[0].min() < 0.02
    assert 0.05 < settled.min() < settled.max() < 0.25


def test_casting_the_router_leaves_the_bias_exact():
    router = topk(bias_speed=0.001)
    for _ in range(300):
        router.update_bias(torch.arange(E))
    assert router.to(torch.bfloat16).bias_steps.tolist() == [300, 300, 300, -300, -300, -300]


def test_a_bias_that_is_not_there_or_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="bias_speed above 0"):
        topk().update_bias(torch.ones(E))
    with pytest.raises(ValueError, match=r"load has shape \(3,\), but the router has experts \(6,\)"):
        topk(bias_speed=0.1).update_bias(torch.ones(3))


def test_a_task_takes_its_expert():
    routing = TaskRouter(E)(torch.randn(3, D), torch.tensor([5, 0, 5]))
    assert routing.experts_NK.tolist() == [[5], [0], [5]]
    assert routing.gates_NK.tolist() == [[1], [1], [1]]
    assert routing.logits_NE is None


def test_tasks_share_experts_as_assigned():
    routing = TaskRouter(E, [[0, 1], [4, 1], [2, 3]])(torch.randn(2, D), torch.tensor([1, 2], dtype=torch.int32))
    assert routing.experts_NK.tolist() == [[4, 1], [2, 3]]
    assert routing.gates_NK.tolist() == [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_task_out_of_range_is_refused_with_its_value(wrong):
    router = TaskRouter(E, [[0], [1], [2]])
    with pytest.raises(ValueError, match=f"task id {wrong} is out of range: there are 3, 0 to 2"):
        router(torch.randn(2, D), torch.tensor([0, wrong]))


def test_a_task_out_of_range_stops_compiled_code_too():
    x, good, bad = torch.randn(2, D), torch.tensor([0, 2]), torch.tensor([0, E])
    router = TaskRouter(E)
    for function in (
        torch.compile(router, backend="eager", fullgraph=True),
        torch.export.export(router, (x, good)).module(),
    ):
        assert torch.equal(function(x, good)[0], router(x, good).experts_NK)
        with pytest.raises(RuntimeError, match="id of task is out of range: there are 6"):
            function(x, bad)


@pytest.mark.parametrize(
    ("task", "says"), [(None, "pass task=ids"), (torch.zeros(2), "whole numbers, found torch.float32")]
)
def test_tasks_must_be_given_as_whole_numbers(task, says):
    with pytest.raises(ValueError, match=says):
        TaskRouter(E)(torch.randn(2, D), task)


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ([[0], [1, 2]], "tasks 1 to 2 experts"),
        ([[0], [6]], r"assignment\[1\] names expert 6, but experts=6"),
        ([[1, 1]], r"assignment\[0\]=\[1, 1\] names an expert twice"),
    ],
)
def test_an_assignment_that_makes_no_sense_is_refused(assignment, says):
    with pytest.raises(ValueError, match=says):
        TaskRouter(E, assignment)


def test_soft_weights_sum_to_one_over_tokens_and_over_slots():
    router = SoftRouter(D, E, 2)
    dispatch, combine = router(torch.randn(3, 5, D))
    assert dispatch.shape == combine.shape == (3, 5, 2 * E)
    torch.testing.assert_close(dispatch.sum(1), torch.ones(3, 2 * E))
    torch.testing.assert_close(combine.sum(2), torch.ones(3, 5))


def test_only_soft_routing_is_not_causal():
    assert {name: part("router", name).entry.traits["causal"] for name in ("topk", "soft", "task")} == {
        "topk": True,
        "soft": False,
        "task": True,
    }
