"""The slot's types as a configuration meets them: wrong options are told apart, every type is in the schema."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

import policysmith.parts as parts
from policysmith.config.options import failures
from policysmith.registry import default_registry, part

CLASSES = {
    "cross": parts.CrossAttention,
    "gqa": parts.GroupedQueryAttention,
    "latent_queries": parts.LatentQueryAttention,
    "mha": parts.MultiHeadAttention,
    "mla": parts.MultiHeadLatentAttention,
    "mqa": parts.MultiQueryAttention,
    "pyramid": parts.PyramidAttention,
    "window": parts.WindowAttention,
}


@pytest.mark.parametrize("name", CLASSES)
def test_every_type_is_a_public_class_built_from_its_name(name):
    module = part("attention", {"type": name, "heads": 2}).build(dim=8)
    assert type(module) is CLASSES[name]
    assert type(module)(dim=8, heads=2).state_dict().keys() == module.state_dict().keys()
    assert {m.init_role for m in module.modules() if hasattr(m, "init_role")} == {"projection"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"type": "mha", "n_latents": 4}, "unknown option of 'mha'"),
        ({"type": "mha", "kv_heads": 4}, "unknown option of 'mha'"),
        ({"type": "mla", "kv_rnk": 4}, "did you mean 'kv_rank'"),
        ({"type": "gqa", "kv_heads": 0}, "must be > 0, found 0"),
        ({"type": "window", "size": 2.5}, "expected an integer"),
        ({"type": "mha", "dropout": 1.0}, "must be < 1"),
        ({"type": "pyramid", "qk_norm": 1}, "expected true or false"),
        ({"type": "mhaa"}, "did you mean 'mha'"),
    ],
)
def test_a_wrong_option_is_a_problem_with_its_place(options, problem):
    with pytest.raises(ValidationError) as caught:
        default_registry.decode("attention", options)
    assert [problem in message for _, message in failures(caught.value)] == [True]


def test_the_width_is_inferred_and_compared_when_stated():
    assert part("attention", {"type": "mha", "dim": 16}).build(dim=16).query.in_features == 16
    with pytest.raises(ValueError, match="dim is stated as 16, but must be 32"):
        part("attention", {"type": "mha", "dim": 16}).build(dim=32)
