"""What a transformer is assembled from, as data and in the Mermaid diagram."""

import pytest

import policysmith
from policysmith.transform.diagram import mermaid


def described(**model):
    config = {
        "spaces": {"observation": {"type": "box", "shape": [6, 4]}, "action": {"type": "discrete", "n": 3}},
        "model": {"type": "transformer", "dim": 16, "attention": {"type": "mla", "heads": 2}, **model},
    }
    return policysmith.describe(config)


def stages(description, name="stack"):
    (node,) = (node for node in description["nodes"] if node["name"] == name)
    return node["assembly"]


def names(parts):
    return [part["name"] for part in parts]


@pytest.mark.parametrize(
    ("placement", "order"),
    [
        ("pre", ["norm", "attention", "residual", "norm", "feed-forward", "residual"]),
        ("post", ["attention", "residual", "norm", "feed-forward", "residual", "norm"]),
        ("sandwich", ["norm", "attention", "norm", "residual", "norm", "feed-forward", "norm", "residual"]),
    ],
)
def test_a_block_shows_its_parts_in_the_order_the_data_passes(placement, order):
    position, block, *_ = stages(described(placement=placement, layers=3))
    assert (position["name"], position["detail"]) == ("position", "rope")
    assert block["name"] == "block × 3" and names(block["parts"]) == order
    assert block["parts"][order.index("attention")]["detail"] == "mla · heads 2"


def test_an_encoder_and_a_decoder_have_blocks_of_their_own():
    _, encoder, decoder, *_ = stages(described(architecture="encoder_decoder", layers=2, decoder_layers=1))
    assert (encoder["name"], decoder["name"]) == ("encoder block × 2", "decoder block × 1")
    details = [part["detail"] for part in decoder["parts"] if part["name"] == "attention"]
    assert details == ["mla · heads 2", "cross"]


def test_a_mixture_shows_its_router_before_its_experts():
    _, block, *_ = stages(described(feedforward={"type": "moe", "experts": 3}))
    mixture = next(part for part in block["parts"] if part["name"] == "feed-forward")
    assert mixture["detail"].startswith("moe · experts 3") and names(mixture["parts"]) == ["router", "expert"]


def test_other_components_are_boxes():
    description = described()
    assert stages(description, "policy") == [] and stages(description, "pooling") == []


def test_the_diagram_frames_the_assembly():
    text = mermaid(described(layers=2))
    assert text.count("subgraph") == text.count("\n    end") + text.count("\n        end") == 2
    assert 'subgraph n1["stack<br/>transformer_stack' in text
    assert '["block × 2"]' in text and '("attention<br/>mla · heads 2")' in text
    assert 'n0 -->|"6 × 4"| n1' in text
