"""Choosing experts, and three ways to compute only those."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from policysmith.ops.route import Routing, check_ids, edges_of, mix, probabilities, top_k_gates

N, D, E, K = 11, 6, 5, 2
IMPLEMENTATIONS = ["dense", "gather", "sorted", "auto"]
every_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


class Experts(nn.ModuleList):
    """Linear experts; `in_order` takes each row by itself, which is right whatever the order."""

    def one(self, index: int, x_MD: Tensor) -> Tensor:
        return self[index](x_MD)

    def in_order(self, x_PD: Tensor, expert_P: Tensor) -> Tensor:
        edges_of(expert_P, len(self))
        return torch.cat([self[int(e)](x[None]) for x, e in zip(x_PD, expert_P, strict=True)])


@pytest.fixture
def experts():
    torch.manual_seed(0)
    return Experts(nn.Linear(D, D) for _ in range(E)).double()


def random_routing(rows: int = N, k: int = K) -> Routing:
    logits = torch.randn(rows, E, dtype=torch.double)
    return Routing(*top_k_gates(logits, k), logits)


def by_rows(x: Tensor, routing: Routing, experts: Experts) -> Tensor:
    rows = []
    for row, chosen, gates in zip(x, routing.experts_NK.tolist(), routing.gates_NK, strict=True):
        rows.append(sum(gate * experts[e](row) for e, gate in zip(chosen, gates, strict=True)))
    return torch.stack(rows)


@every_implementation
@pytest.mark.parametrize("k", [1, 2, E])
def test_values_and_gradients_equal_those_of_a_loop_over_rows(implementation, k, experts):
    x = torch.randn(N, D, dtype=torch.double)
    routing = random_routing(k=k)
    out = torch.randn(N, D, dtype=torch.double)

    def outcome(function):
        leaf, gates = x.clone().requires_grad_(), routing.gates_NK.clone().requires_grad_()
        experts.zero_grad()
        y = function(leaf, routing._replace(gates_NK=gates))
        y.backward(out)
        weights = [torch.zeros_like(p) if p.grad is None else p.grad for p in experts.parameters()]
        return [y, leaf.grad, gates.grad, *weights]

    fast = outcome(lambda x, r: mix(x, r, experts, implementation))
    for found, expected in zip(fast, outcome(lambda x, r: by_rows(x, r, experts)), strict=True):
        torch.testing.assert_close(found, expected)


@every_implementation
def test_nan_in_an_expert_reaches_only_rows_that_chose_it(implementation, experts):
    nn.init.constant_(experts[2].weight, float("nan"))
    x = torch.randn(N, D, dtype=torch.double, requires_grad=True)
    routing = random_routing()
    gates = routing.gates_NK.clone().requires_grad_()
    y = mix(x, routing._replace(gates_NK=gates), experts, implementation)
    hit = (routing.experts_NK == 2).any(-1)
    assert 0 < hit.sum() < N
    assert torch.equal(y.isnan().any(-1), hit)
    y.sum().backward()
    assert torch.equal(x.grad.isnan().any(-1), hit)
    assert torch.equal(gates.grad.isnan().any(-1), hit)
    others = [p for i, expert in enumerate(experts) if i != 2 for p in expert.parameters()]
    assert all(p.grad.isfinite().all() for p in others)


@every_implementation
def test_nan_in_a_row_reaches_only_that_row_and_the_experts_it_chose(implementation, experts):
    x = torch.randn(N, D, dtype=torch.double)
    x[3] = float("nan")
    routing = random_routing()
    y = mix(x, routing, experts, implementation)
    assert y.isnan().any(-1).tolist() == [i == 3 for i in range(N)]
    y.sum().backward()
    poisoned = {
        i for i, expert in enumerate(experts) if expert.weight.grad is not None and expert.weight.grad.isnan().any()
    }
    assert poisoned == set(routing.experts_NK[3].tolist())


@every_implementation
def test_rows_without_experts_in_common_do_not_meet(implementation, experts):
    """Each row alone gives what it gives in the batch."""
    x, routing = torch.randn(N, D, dtype=torch.double), random_routing()
    whole = mix(x, routing, experts, implementation)
    for row in range(N):
        alone = Routing(routing.experts_NK[row : row + 1], routing.gates_NK[row : row + 1])
        torch.testing.assert_close(mix(x[row : row + 1], alone, experts, implementation)[0], whole[row])


@pytest.mark.parametrize("implementation", ["gather", "sorted"])
def test_an_expert_that_no_row_chose_gets_no_gradient(implementation, experts):
    ids = torch.tensor([[0, 3], [3, 4]])
    mix(torch.randn(2, D).double(), Routing(ids, torch.ones(2, 2)), experts, implementation).sum().backward()
    assert [expert.weight.grad is None for expert in experts] == [False, True, True, False, False]


@every_implementation
@pytest.mark.parametrize("wrong", [-1, E])
def test_an_id_that_names_no_expert_is_refused_with_its_value(implementation, wrong, experts):
    ids = torch.tensor([[0, 1], [2, wrong], [3, 0]])
    with pytest.raises(ValueError, match=rf"expert id {wrong} is out of range: there are {E}, 0 to {E - 1}"):
        mix(torch.randn(3, D).double(), Routing(ids, torch.ones(3, 2)), experts, implementation)


@every_implementation
def test_no_rows_make_no_rows(implementation, experts):
    x = torch.zeros(0, D, dtype=torch.double, requires_grad=True)
    y = mix(x, Routing(torch.zeros(0, K, dtype=torch.int64), torch.zeros(0, K)), experts, implementation)
    assert y.shape == (0, D)
    y.sum().backward()
    assert x.grad.shape == (0, D)


@pytest.mark.parametrize(("implementation", "computed"), [("sorted", K), ("auto", K), ("dense", E)])
def test_on_meta_tensors_the_work_is_that_of_a_real_choice(implementation, computed, experts):
    calls = []
    experts.one = lambda index, x: calls.append(len(x)) or x
    routing = Routing(torch.zeros(3, K, dtype=torch.int64, device="meta"), torch.ones(3, K, device="meta"))
    assert mix(torch.zeros(3, D, device="meta"), routing, experts, implementation).shape == (3, D)
    assert calls == [3] * computed


def test_auto_calls_each_choice_of_a_few_rows_and_sorts_more(experts):
    calls = []
    experts.in_order = lambda x, ids: calls.append(len(ids)) or x
    x = torch.randn(N, D).double()
    mix(x[:1], random_routing(1), experts)
    assert calls == []
    mix(x, random_routing(), experts)
    assert calls == [N * K]


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_gates_are_the_scores_of_the_chosen_divided_by_their_sum(score):
    logits = torch.randn(N, E, dtype=torch.double)
    scores = logits.softmax(-1) if score == "softmax" else logits.sigmoid()
    values, ids = scores.topk(K)
    experts, gates = top_k_gates(logits, K, score)
    assert torch.equal(experts, ids)
    torch.testing.assert_close(gates, values / values.sum(-1, keepdim=True))
    torch.testing.assert_close(top_k_gates(logits, K, score, normalize=False)[1], values)
    torch.testing.assert_close(probabilities(logits, score), scores / scores.sum(-1, keepdim=True))


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_gates_stay_right_where_scores_underflow(score):
    logits = torch.tensor([[-200.0, -201.0, -300.0]])
    _, gates = top_k_gates(logits, 2, score)
    torch.testing.assert_close(gates, torch.tensor([[1.0, -1.0]]).mul(0.5).softmax(-1))


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_a_bias_shifts_the_choice_and_leaves_the_gates_alone(score):
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    experts, gates = top_k_gates(logits, 2, score, torch.tensor([0.0, 0.0, 0.0, 2.0]))
    assert sorted(experts[0].tolist()) == [0, 3]
    scores = logits.softmax(-1) if score == "softmax" else logits.sigmoid()
    expected = scores.gather(-1, experts)
    torch.testing.assert_close(gates, expected / expected.sum())


def test_edges_are_where_each_experts_rows_begin():
    assert edges_of(torch.tensor([0, 0, 2, 3, 3, 3]), 5) == [0, 2, 2, 3, 6, 6]


def test_ids_in_range_pass_and_meta_ids_are_not_looked_at():
    check_ids(torch.tensor([0, 4]), 5, "task")
    check_ids(torch.zeros(0, dtype=torch.int64), 5, "task")
    check_ids(torch.tensor([9], device="meta"), 5, "task")
    with pytest.raises(ValueError, match="task id 9 is out of range: there are 5, 0 to 4"):
        check_ids(torch.tensor([1, 9, 7]), 5, "task")
