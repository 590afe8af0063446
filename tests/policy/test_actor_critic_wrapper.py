"""Two heads on a core of one's own."""

from __future__ import annotations

import torch

from policysmith.parts import DynamicTransformerCore
from policysmith.policy import ActorCriticProtocol, ActorCriticWrapper

B, T, D, A = 4, 5, 8, 3


def wrapper(**options) -> ActorCriticWrapper:
    torch.manual_seed(0)
    core = DynamicTransformerCore(D, layers=1, attention={"type": "mha", "heads": 2})
    return ActorCriticWrapper(core, D, A, **options).eval()


def test_it_is_the_heads_on_the_last_step_of_the_core():
    model, x = wrapper(), torch.randn(B, T, D)
    logits, value = model(x)
    last = model.core(x)[:, -1]
    torch.testing.assert_close(logits, model.actor(last))
    torch.testing.assert_close(value, model.critic(last))
    torch.testing.assert_close(model.get_value(x), value)
    assert logits.shape == (B, A) and value.shape == (B,)
    assert isinstance(model, ActorCriticProtocol)


def test_acting_and_evaluating_agree_and_masks_are_kept():
    model, x = wrapper(), torch.randn(B, T, D)
    mask = torch.tensor([True, False, True])
    for _ in range(20):
        action, log_prob, value = model.get_action_and_value(x, mask)
        assert (action != 1).all()
        again, entropy, value_again = model.evaluate_actions(x, action, mask)
        torch.testing.assert_close(log_prob, again)
        torch.testing.assert_close(value, value_again)
        assert entropy.shape == (B,)
    assert torch.equal(model.get_action_and_value(x, deterministic=True)[0], model(x)[0].argmax(-1))


def test_it_learns_through_the_core():
    model, x = wrapper(pooling="attention"), torch.randn(B, T, D)
    log_prob, entropy, value = model.evaluate_actions(x, torch.tensor([0, 1, 2, 0]))
    (log_prob.sum() + entropy.sum() + value.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_it_takes_any_module_that_keeps_time():
    model = ActorCriticWrapper(torch.nn.Linear(6, D), D, A)
    assert model(torch.randn(B, T, 6))[0].shape == (B, A)
