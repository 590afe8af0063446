"""What cannot be had of a legacy agent is told, all at once, each with its place; and nothing is imported or run."""

import json

import pytest
import torch

from policysmith.dialects.metta import read
from policysmith.errors import CheckpointError, ConfigError
from tests.dialects.metta.legacy_configs import ACTIONS, SIMPLE, changed, layer, small
from tests.reference.legacy_agent import LegacyAgent

TINY = (5, 5, 3)
GIVEN = {"obs_shape": TINY, "actions": ACTIONS}


def problems(tmp_path, config, **options):
    """The sentences of the error, by path."""
    path = tmp_path / "agent.yaml"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(ConfigError) as caught:
        read(path, **{**GIVEN, **options})
    return {problem.path: problem.message for problem in caught.value.problems}


REFUSED = {
    "a pool": (layer("MaxPool2d", "_obs_"), "gave its channels as kernel_size, and no such layer ever ran"),
    "a list normalizer": (layer("FeatureListNormalizer", "_obs_"), "was marked as not working"),
    "a token encoder": (layer("ObsLatentAttn", "_obs_"), "tokens changed their meaning from version to version"),
    "an embedding": (layer("Embedding", "_obs_", num_embeddings=3, embedding_dim=2), "reads whole numbers"),
    "rows from the batch": (layer("BatchReshapeLayer", "_obs_"), "leave it out with the ReshapeLayer before it"),
    "the batch in a fold": (layer("ReshapeLayer", "_obs_", popped_dim=1, squeezed_dim=0), "folds the batch"),
    "a fold forwards": (layer("ReshapeLayer", "_obs_", popped_dim=1, squeezed_dim=2), "which failed there"),
    "an unknown size": (layer("ExpandLayer", "_obs_", expand_dim=1, dims_source="flat"), "write it as expand_value"),
    "no size": (layer("ExpandLayer", "_obs_", expand_dim=0), "needs expand_dim, 1 or more"),
    "three to subtract": (layer("SubtractMergeLayer", "flat", "flat", "flat"), "subtracts one source from another"),
    "two ways to join": (
        layer("ConcatMergeLayer", {"name": "flat", "dim": 1}, {"name": "_obs_", "dim": 2}),
        "joins its sources along one dim, and they say 1, 2",
    ),
    "half a block": (layer("ResNetMLP", "flat", depth=6), "needs a depth, 4 or a multiple of it; found 6"),
    "an empty slice": (
        layer("AddMergeLayer", {"name": "flat", "slice": [3, 3], "dim": 1}), "start must be below end"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_that_cannot_be_had_is_refused_with_a_sentence(tmp_path, name):
    entry, sentence = REFUSED[name]
    both = layer("ConcatMergeLayer", "odd", "flat")
    found = problems(tmp_path, small(odd=entry, both=both, encoded_obs=layer("Linear", "both", out_features=10)))
    assert list(found) == ["components.odd"] and sentence in found["components.odd"]


MISWRITTEN = {
    "components.odd.sources.0": (layer("Linear", "flt", out_features=2), "reads 'flt', which does not exist (did you"),
    "components.odd.nonlinearity": (layer("Linear", "flat", out_features=2, nonlinearity="nn.Rlu"), "'nn.Rlu' (did"),
    "components.odd.initialization": (layer("Linear", "flat", out_features=2, initialization="x"), "there were: ortho"),
    "components.odd.nn_params.kernel_size": (layer("Linear", "flat", kernel_size=2), "unknown argument of Linear"),
    "components.odd.nn_params": ({**layer("ReLU", "flat"), "nn_params": 3}, "expected a mapping, found 3"),
    "components.odd.sources": (layer("ReLU", "flat", "_obs_"), "ReLU reads 1 sources, found 2"),
    "components.odd.sources.0.dim": (layer("AddMergeLayer", {"name": "flat", "dim": 0}), "0 is the batch"),
    "components.odd.sources.0.slice": (layer("AddMergeLayer", {"name": "flat", "slice": 3, "dim": 1}), "[start, end]"),
    "components.odd": ({"sources": None}, "expected a mapping with '_target_'"),
}


@pytest.mark.parametrize("path", MISWRITTEN)
def test_a_mistake_is_told_at_its_place(tmp_path, path):
    entry, sentence = MISWRITTEN[path]
    found = problems(tmp_path, small(odd=entry, encoded_obs=layer("Linear", "odd", out_features=10)))
    assert sentence in found[path]


def test_every_unknown_class_is_told_at_once_by_its_last_name_and_none_is_imported(tmp_path):
    broken = small(
        one=layer("Lineer", "flat", out_features=3),
        two={"_target_": "os.mkdir", "sources": ["one"]},
        encoded_obs=layer("Linear", "two", out_features=10),
    )
    found = problems(tmp_path, broken)
    assert found == {
        "components.one._target_": "unknown class 'Lineer' (did you mean 'Linear'?); classes are never imported",
        "components.two._target_": "unknown class 'mkdir'; classes are never imported",
    }


def test_a_component_that_nothing_depends_on_is_refused_as_it_was(tmp_path):
    found = problems(tmp_path, small(idle=layer("Linear", "flat", out_features=3)))
    assert list(found) == ["components.idle"] and "neither _action_ nor _value_" in found["components.idle"]


def test_problems_name_the_line(tmp_path):
    text = "components:\n  _value_:\n    _target_: a.Linear\n    sources: [gone]\n  _action_: {_target_: b.Nothing}\n"
    (tmp_path / "agent.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "agent.yaml", **GIVEN)
    places = {problem.path: problem.place for problem in caught.value.problems}
    assert places["components._value_.sources.0"].endswith("agent.yaml:4:15")
    assert places["components._action_._target_"].endswith("agent.yaml:5:24")


def test_what_the_file_cannot_know_is_asked_for(tmp_path):
    found = problems(tmp_path, SIMPLE, obs_shape=None, actions=None)
    assert "--obs-shape HxWxC" in found["obs_shape"] and "--actions noop=0,move=1" in found["actions"]
    assert "--feature-max" in found["components.obs_normalizer"]
    assert "found {'move': -1}" in problems(tmp_path, small(), actions={"move": -1})["actions"]


def test_divisors_of_another_number_of_features_are_refused(tmp_path):
    with_table = small(normed=layer("ObservationNormalizer", "_obs_"), flat=layer("Flatten", "normed"))
    found = problems(tmp_path, with_table, feature_max=[1.0, 2.0])
    assert "by has 2 entries for an event of shape (3, 5, 5)" in found["components.normed"]


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("hidden: 3\n", "this is no legacy agent"),
        ("components: [1]\n", "this is no legacy agent"),
        ("components: {a: 1}\n", "expected a mapping with '_target_'"),
    ],
)
def test_what_is_no_agent_is_refused(tmp_path, config, sentence):
    assert any(sentence in message for message in problems(tmp_path, config).values())


def test_weights_of_another_agent_are_refused_tensor_by_tensor(tmp_path):
    torch.manual_seed(0)
    agent = LegacyAgent(small(), TINY, ACTIONS)
    state = agent.state_dict()
    state["components.encoded_obs._net.0.wieght"] = state.pop("components.encoded_obs._net.0.weight")
    state["components._value_._net.weight"] = torch.zeros(1, 9)
    torch.save(state, tmp_path / "old.pt")
    (tmp_path / "agent.yaml").write_text(json.dumps(small()))
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path / "agent.yaml", weights=tmp_path / "old.pt", **GIVEN)
    assert str(caught.value).splitlines()[1:] == [
        "  components.encoded_obs._net.0.weight: missing",
        "  components._value_._net.weight: float32 (1, 9), expected float (1, 6)",
        "  components.encoded_obs._net.0.wieght: unexpected (did you mean 'components.encoded_obs._net.0.weight'?)",
    ]


def test_a_pickled_agent_is_refused_and_not_run(tmp_path):
    torch.save(LegacyAgent(small(), TINY, ACTIONS), tmp_path / "old.pt")
    (tmp_path / "agent.yaml").write_text(json.dumps(small()))
    with pytest.raises(CheckpointError, match="nothing in it was run"):
        read(tmp_path / "agent.yaml", weights=tmp_path / "old.pt", **GIVEN)


def test_other_actions_than_the_weights_had_need_those_too(tmp_path):
    torch.save(LegacyAgent(small(), TINY, ACTIONS).state_dict(), tmp_path / "old.pt")
    found = problems(tmp_path, small(), weights=tmp_path / "old.pt", actions={"move": 2})
    assert found == {
        "actions": "are 3, and the weights had 9 active: give those as well, with --trained-actions "
        "(trained_actions=), so that actions find their embeddings"
    }
    options = {"actions": {"move": 2}, "trained_actions": {"move": 3}, "weights": tmp_path / "old.pt"}
    assert problems(tmp_path, small(), **options) == {"trained_actions": "are 4, and the weights had 9 active"}


def test_a_number_of_logits_that_is_no_number_of_actions_is_refused(tmp_path):
    plain = {"_action_embeds_": None, "actor_1": None}
    config = small(_action_=layer("Linear", "_core_", out_features=4, nonlinearity=None), **plain)
    found = problems(tmp_path, config)
    assert "needs parameters of shape (9,), found (4,)" in found["components._action_"]
    assert changed(config) == config


@pytest.mark.parametrize(
    "rows",
    [torch.rand(9), torch.ones(3, 3, dtype=torch.long), torch.tensor(3)],
    ids=["fractions", "a table", "a number"],
)
def test_active_rows_that_are_none_are_refused(tmp_path, rows):
    state = LegacyAgent(small(), TINY, ACTIONS).state_dict()
    torch.save({**state, "components._action_embeds_.active_indices": rows}, tmp_path / "old.pt")
    (tmp_path / "agent.yaml").write_text(json.dumps(small()))
    with pytest.raises(CheckpointError, match="active_indices must be one list of whole numbers"):
        read(tmp_path / "agent.yaml", weights=tmp_path / "old.pt", **GIVEN)


def test_what_does_not_fit_together_is_told_at_the_legacy_component(tmp_path):
    config = small(cnn=layer("Conv2d", "flat", out_channels=2, kernel_size=3), flat2=layer("Flatten", "cnn"),
                   encoded_obs=layer("Linear", "flat2", out_features="many"))  # fmt: skip
    found = problems(tmp_path, config)
    assert found["components.encoded_obs"] == "out_features: expected an integer, found 'many'"
    config["components"]["encoded_obs"]["nn_params"]["out_features"] = 3
    assert "'nn.Conv2d' cannot take flat (75,)" in problems(tmp_path, config)["components.cnn"]


@pytest.mark.parametrize(
    ("name", "message"), [("a.b", "illegal component name"), ("observation", "reserved for a standard key")]
)
def test_a_name_that_cannot_be_had_here_is_told(tmp_path, name, message):
    config = small(**{name: layer("Identity", "flat"), "encoded_obs": layer("Linear", name, out_features=3)})
    assert any(message in sentence for sentence in problems(tmp_path, config).values())


def test_a_buffer_of_no_component_is_unexpected(tmp_path):
    state = LegacyAgent(small(), TINY, ACTIONS).state_dict()
    torch.save({**state, "components.flat.obs_norm": torch.ones(1, 3, 1, 1)}, tmp_path / "old.pt")
    (tmp_path / "agent.yaml").write_text(json.dumps(small()))
    with pytest.raises(CheckpointError, match=r"components\.flat\.obs_norm: unexpected"):
        read(tmp_path / "agent.yaml", weights=tmp_path / "old.pt", **GIVEN)
