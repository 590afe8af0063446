"""Actions as vectors, heads that compare a state with them, and outputs that a graph computes itself."""

import pytest
import torch

import policysmith
from policysmith.parts import (
    ActionEmbedding,
    BilinearActionHead,
    ChannelsFirst,
    Divide,
    PolicyOutput,
    SwishResidualMLP,
    ValueOutput,
)

A, H, E = 5, 6, 3


def test_every_row_gets_the_vectors_of_the_rows_named():
    part = ActionEmbedding((4,), num_embeddings=9, dim=E, rows=[8, 0, 3], num_actions=3)
    y = part(torch.zeros(2, 7, 4))
    assert y.shape == (2, 7, 3, E)
    assert all(torch.equal(vectors, part.table.weight[[8, 0, 3]]) for vectors in y.flatten(0, 1))


def test_actions_name_the_first_rows_by_default():
    part = ActionEmbedding((), num_embeddings=9, dim=E, num_actions=A)
    assert torch.equal(part(torch.zeros(2))[1], part.table.weight[:A])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_actions": 0}, "embeds the actions of a Discrete space"),
        ({"num_actions": 2, "rows": [1]}, "rows has 1 entries for 2 actions"),
        ({"num_actions": 2, "rows": [1, 4]}, "row 4 of a table of 4"),
    ],
)
def test_rows_that_fit_no_table_or_space_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ActionEmbedding((4,), num_embeddings=4, **options)


@pytest.mark.parametrize("forms", [None, 4])
def test_a_logit_is_the_score_of_its_own_action(forms):
    head = BilinearActionHead(((H,), (A, E)), ((A, 0),), forms=forms, hidden=8)
    x, vectors = torch.randn(2, 3, H), torch.randn(2, 3, A, E)
    order = torch.tensor([3, 0, 4, 2, 1])
    logits = head(x, vectors)
    assert logits.shape == (2, 3, A)
    torch.testing.assert_close(head(x, vectors[..., order, :]), logits[..., order])
    scores = torch.stack(
        [((x[0, 1] @ w).tanh() * vectors[0, 1, 2]).sum() + b for w, b in zip(head.W, head.bias, strict=True)]
    )
    expected = scores[0] if head.mlp is None else head.mlp(scores.relu())[0]
    torch.testing.assert_close(logits[0, 1, 2], expected)


@pytest.mark.parametrize(
    ("shapes", "layout", "message"),
    [
        (((H,), (A, E)), ((4, 0),), "reads 5 action vectors, and the space has 4 actions"),
        (((H,), (A, E)), ((A, A),), "scores discrete actions"),
        (((A, E), (H,)), ((A, 0),), r"found shapes \(5, 3\), \(6,\)"),
    ],
)
def test_a_head_that_fits_no_space_is_refused(shapes, layout, message):
    with pytest.raises(ValueError, match=message):
        BilinearActionHead(shapes, layout)


def test_an_output_is_what_the_graph_gave():
    x = torch.randn(3, 4)
    assert torch.equal(PolicyOutput((4,), ((4, 0),))(x), x)
    assert torch.equal(ValueOutput((1,))(x[:, :1]), x[:, 0]) and torch.equal(ValueOutput(())(x[:, 0]), x[:, 0])
    with pytest.raises(ValueError, match=r"a value is one number, found an event of shape \(4,\)"):
        ValueOutput((4,))
    with pytest.raises(ValueError, match=r"shape \(3,\), found \(4,\)"):
        PolicyOutput((4,), ((3, 0),))


def test_bytes_keep_their_numbers_as_an_image():
    x = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    y = ChannelsFirst()(x)
    assert y.dtype == torch.float32 and torch.equal(y, x.permute(0, 3, 1, 2).float())


def test_every_channel_has_its_divisor():
    x = torch.randn(2, 3, 4, 5)
    y = Divide((3, 4, 5), [1.0, 2.0, 255.0])(x)
    assert all(torch.equal(y[:, i], x[:, i] / by) for i, by in enumerate((1.0, 2.0, 255.0)))
    assert torch.equal(Divide((3,), [1.0, 2.0, 4.0])(x[:, :, 0, 0])[:, 2], x[:, 2, 0, 0] / 4)
    with pytest.raises(ValueError, match=r"by has 2 entries for an event of shape \(3,\)"):
        Divide((3,), [1.0, 2.0])


def test_a_residual_block_of_zeros_is_the_identity():
    part = SwishResidualMLP(6, blocks=2)
    for parameter in part.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(3, 6)
    assert len(part) == 2 and torch.equal(part(x), x)


def test_a_policy_of_bytes_and_action_vectors_trains_in_a_file():
    from gymnasium import spaces

    components = {
        "map": {"type": "channels_first", "in_keys": "observation"},
        "scaled": {"type": "divide", "in_keys": "map", "by": [1.0, 10.0]},
        "trunk": {"type": "mlp", "in_keys": "scaled", "hidden": [8]},
        "vectors": {"type": "action_embedding", "in_keys": "observation", "num_embeddings": 4, "dim": 2},
        "policy": {"type": "bilinear_action_head", "in_keys": ["trunk", "vectors"]},
        "state_value": {"type": "value_head", "in_keys": "trunk"},
    }
    space = spaces.Box(0, 255, (3, 4, 2), "uint8")
    policy = policysmith.build(
        {"model": {"type": "graph", "components": components}},
        observation_space=space,
        action_space=spaces.Discrete(3),
        seed=0,
    )
    obs = policy.prepare(space.sample())
    _, log_prob, value = policy.get_action_and_value(obs)
    (log_prob.sum() + value.sum()).backward()
    assert policy.components["vectors"].table.weight.grad[:3].any()
    assert not policy.components["vectors"].table.weight.grad[3].any()
