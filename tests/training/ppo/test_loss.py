import pytest
import torch

from policysmith.training.ppo.loss import clip_diagnostics, ppo_terms
from tests.reference.ppo import slow_ppo_terms


@pytest.mark.parametrize("value_clip", [None, 0.2])
def test_terms_equal_the_row_by_row_twin(value_clip):
    torch.manual_seed(0)
    columns = [torch.randn(33, dtype=torch.float64) for _ in range(7)]
    fast = ppo_terms(*columns, clip=0.2, value_clip=value_clip)
    slow = slow_ppo_terms(*columns, 0.2, value_clip)
    for mine, theirs in zip(fast, slow, strict=True):
        assert mine.item() == pytest.approx(theirs.item(), rel=1e-12)


def test_a_clipped_row_gives_the_policy_no_gradient():
    log_prob = torch.tensor([1.0, 0.0], requires_grad=True)  # ratio e, far above 1 + clip, and ratio 1
    zeros = torch.zeros(2)
    terms = ppo_terms(log_prob, zeros, zeros, zeros, torch.ones(2), zeros, zeros, clip=0.2, value_clip=None)
    terms.policy.backward()
    assert log_prob.grad[0] == 0.0
    assert log_prob.grad[1] == pytest.approx(-0.5)


def test_divergence_is_zero_for_the_same_policy_and_positive_for_another():
    old = torch.randn(100) - 1
    same, share = clip_diagnostics(old, old, 0.2)
    assert same == 0.0 and share == 0.0
    moved, share = clip_diagnostics(old + 0.5, old, 0.2)
    assert moved > 0.0 and share == 1.0
