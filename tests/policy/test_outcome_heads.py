import pytest
import torch
from gymnasium import spaces

import policysmith
from policysmith.errors import ConfigError
from policysmith.policy import OutcomeHead, OutcomeValue, ScoreHead

SHAPES = ((3,), (1,))
COMPONENTS = {
    "trunk": {"type": "mlp", "in_keys": "observation", "hidden": [8]},
    "policy": {"type": "action_head", "in_keys": "trunk"},
    "value_logits": {"type": "outcome_head", "in_keys": "trunk", "hidden": 6},
    "score_lead": {"type": "score_head", "in_keys": "trunk", "hidden": 5},
    "state_value": {"type": "outcome_value", "in_keys": ["value_logits", "score_lead"]},
}


def build(**changes):
    components = {name: {**entry, **changes.get(name, {})} for name, entry in COMPONENTS.items()}
    model = {"type": "graph", "components": components}
    return policysmith.build({"model": model}, spaces.Box(-1, 1, (4,)), spaces.Discrete(3), seed=0)


def test_the_value_is_the_chance_to_win_less_the_chance_to_lose():
    chances = torch.tensor([[0.7, 0.1, 0.2], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.25, 0.5, 0.25]], dtype=torch.float64)
    logits, score = (chances + 1e-300).log() + 5.0, torch.full((4, 1), float("nan"), dtype=torch.float64)
    value = OutcomeValue(SHAPES)(logits, score)
    torch.testing.assert_close(value, torch.tensor([0.5, -1.0, 1.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("score", "clamped"), [(0.4, 0.4), (7.0, 1.0), (-7.0, -1.0)])
@pytest.mark.parametrize("blend", [0.25, 1.0])
def test_a_share_of_the_clamped_score_is_mixed_in(score, clamped, blend):
    logits = torch.tensor([[0.3, -0.2, 1.0]])
    plain = OutcomeValue(SHAPES)(logits, torch.tensor([[score]]))
    mixed = OutcomeValue(SHAPES, blend)(logits, torch.tensor([[score]]))
    torch.testing.assert_close(mixed, (1 - blend) * plain + blend * torch.tensor([clamped]))


def test_extreme_logits_give_a_finite_value_and_gradient():
    logits = torch.tensor([[1e4, 0.0, -1e4], [-1e30, 0.0, 1e30]], requires_grad=True)
    value = OutcomeValue(SHAPES)(logits, torch.zeros(2, 1))
    value.sum().backward()
    assert value.tolist() == [1.0, -1.0] and logits.grad.isfinite().all()


def test_heads_have_two_layers_by_the_names_of_stored_weights():
    for head, outputs in ((OutcomeHead(7, 5), 3), (ScoreHead(7, 5), 1)):
        shapes = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
        expected = {"fc1.weight": (5, 7), "fc1.bias": (5,), "fc2.weight": (outputs, 5), "fc2.bias": (outputs,)}
        assert shapes == expected
        assert not torch.equal(
            head(torch.full((1, 7), 9.0)), 2 * head(torch.full((1, 7), 4.5)) - head(torch.zeros(1, 7))
        )


def test_any_policy_can_have_them():
    policy = build()
    params, value = policy(torch.randn(6, 4))
    assert params.shape == (6, 3) and value.shape == (6,) and value.abs().max() <= 1.0
    assert policy.plan.edges["value_logits"].shape == (3,) and policy.plan.edges["score_lead"].shape == (1,)


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        (["score_lead", "value_logits"], r"\(1,\), \(3,\)"),
        (["value_logits"], r"\(3,\)"),
        (["trunk", "score_lead"], r"\(8,\), \(1,\)"),
    ],
)
def test_a_value_of_other_inputs_is_refused(keys, found):
    with pytest.raises(
        ConfigError, match=rf"outcome_value takes outcome logits \(3,\) and a score \(1,\), found {found}"
    ):
        build(state_value={"in_keys": keys})


@pytest.mark.parametrize(("blend", "bound"), [(-0.1, "≥ 0"), (1.1, "≤ 1")])
def test_a_blend_is_a_share(blend, bound):
    with pytest.raises(ConfigError, match=rf"state_value\.score_blend: must be {bound}, found {blend}"):
        build(state_value={"score_blend": blend})


def test_evaluating_hands_out_edges_for_losses():
    policy = build()
    obs, action = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    plain = policy.evaluating()(obs, action)
    extended = policy.evaluating(0, extra=("score_lead", "value_logits", "state_value"))(obs, action)
    assert len(plain) == 3 and [tuple(t.shape) for t in extended[3:]] == [(6, 1), (6, 3), (6,)]
    for mine, theirs in zip(plain, extended, strict=False):
        assert torch.equal(mine, theirs)
    torch.testing.assert_close(OutcomeValue(SHAPES)(extended[4], extended[3]), extended[5])
    *compiled, sink = policy.evaluating(0, return_aux=True, extra=("score_lead",))(obs, action)
    assert sink == {} and torch.equal(compiled[3], extended[3])


def test_edges_that_there_are_not_are_named_with_those_there_are():
    message = r"the policy \(model 'graph'\) has no edge 'no' and 'none'; it has 'observation', 'trunk', 'policy', 'val"
    with pytest.raises(ConfigError, match=message):
        build().evaluating(extra=("no", "trunk", "none"))
