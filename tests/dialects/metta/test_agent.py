"""What a legacy configuration says reaches ours: composition, references, new-style classes, actions, the report."""

import json

import numpy as np
import pytest
import torch

from policysmith.dialects.metta import ActionPairs, import_agent, pack_state, read, unpack_state
from policysmith.dialects.metta.hydra import read_composed
from policysmith.errors import ConfigError, ShapeError
from tests.dialects.metta.legacy_configs import ACTIONS, HEAD, layer, small
from tests.reference.legacy_agent import LegacyAgent

TINY = (5, 5, 3)
GIVEN = {"obs_shape": TINY, "actions": ACTIONS}


def written(tmp_path, config, name="agent.yaml"):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def components(imported):
    return imported.policy.config["model"]["components"]


def test_references_are_resolved_from_the_top_and_from_agent(tmp_path):
    config = small(encoded_obs=layer("Linear", "flat", out_features="${agent.width}"))
    config["width"], config["components"]["actor_1"]["nn_params"]["out_features"] = 12, "${width}"
    made = components(read(written(tmp_path, config), **GIVEN))
    assert made["encoded_obs_layer"]["out_features"] == made["actor_1_layer"]["out_features"] == 12


def test_a_whole_configuration_holds_the_agent(tmp_path):
    config = {
        "trainer": {"width": 11},
        "agent": small(actor_1=layer("Linear", "_core_", out_features="${trainer.width}")),
    }
    assert components(read(written(tmp_path, config), **GIVEN))["actor_1_layer"]["out_features"] == 11


def test_defaults_are_composed_as_hydra_does(tmp_path):
    written(tmp_path, small(), "base.yaml")
    written(tmp_path, {"width": 4}, "sizes/wide.yaml")
    over = "components: {encoded_obs: {nn_params: {out_features: '${sizes.width}'}}}\n"
    wins = written(tmp_path, "defaults: [base, sizes: wide, _self_]\n" + over)
    assert components(read(wins, **GIVEN))["encoded_obs_layer"]["out_features"] == 4
    written(tmp_path, "defaults: [base, sizes: wide]\n" + over)
    assert components(read(wins, **GIVEN))["encoded_obs_layer"]["out_features"] == 4
    written(tmp_path, "defaults: [_self_, sizes: wide, base]\n" + over)
    assert components(read(wins, **GIVEN))["encoded_obs_layer"]["out_features"] == 10


@pytest.mark.parametrize(
    ("defaults", "sentence"),
    [
        ("[override sizes: wide]", "compose it with Hydra first"),
        ("['sizes@top: wide']", "compose it with Hydra first"),
        ("[3]", "compose it with Hydra first"),
        ("base", "expected a list of files"),
        ("[gone]", "gone.yaml does not exist"),
        ("[agent]", "a cycle"),
    ],
)
def test_defaults_that_are_not_understood_are_told(tmp_path, defaults, sentence):
    path = written(tmp_path, f"defaults: {defaults}\nwidth: 3\n")
    with pytest.raises(ConfigError, match=sentence):
        read_composed(path)


def test_an_environment_cannot_be_reached_by_other_resolvers(tmp_path):
    with pytest.raises(ConfigError, match=r"oc\.env"):
        read_composed(written(tmp_path, "width: ${oc.env:HOME}\n"))


def test_classes_of_the_proposal_have_no_activation_and_take_plain_names(tmp_path):
    lib = "metta.agent.lib.metta_modules"
    config = {
        "components": {
            "_obs_": {"_target_": f"{lib}.ObsModule"},
            "cnn": {"_target_": f"{lib}.Conv2dModule", "sources": ["_obs_"], "in_channels": 3, "out_channels": 2,
                    "kernel_size": 3},
            "flat": {"_target_": f"{lib}.FlattenModule", "sources": "cnn"},
            "fc": {"_target_": f"{lib}.LinearModule", "sources": ["flat"], "in_features": 18, "out_features": 8},
            "act": {"_target_": f"{lib}.ReLUModule", "sources": ["fc"]},
            "norm": {"_target_": f"{lib}.LayerNormModule", "sources": ["act"], "normalized_shape": 8},
            "drop": {"_target_": f"{lib}.DropoutModule", "sources": ["norm"], "p": 0.1},
            "both": {"_target_": f"{lib}.MergeModule", "merge_type": "concat",
                     "sources": ["drop", {"name": "fc", "slice": [0, 3], "dim": 1}]},
            "_core_": {"_target_": f"{lib}.LSTMModule", "sources": ["both"], "hidden_size": 6},
            "_value_": {"_target_": f"{lib}.LinearModule", "sources": ["_core_"], "out_features": 1},
            "actor_1": {"_target_": f"{lib}.LinearModule", "sources": ["_core_"], "out_features": 7},
            "_action_embeds_": HEAD["_action_embeds_"],
            "_action_": {**HEAD["_action_"], "_target_": f"{lib}.ActorModule"},
        }
    }  # fmt: skip
    path = written(tmp_path, config)
    policy = read(path, **GIVEN).policy
    types = {name: entry["type"] for name, entry in policy.config["model"]["components"].items()}
    assert types["fc"] == "nn.Linear" and types["_value_"] == "value_head" and types["both"] == "join"
    # Their weights, under whatever name each module gave its layer.
    state = {name.replace("components.", "policy.components."): t + 0.5 for name, t in policy.state_dict().items()}
    names = {
        "_value_.out": "_value_.linear",
        "fc": "fc.linear",
        "cnn": "cnn.conv",
        "actor_1": "actor_1.linear",
        "norm": "norm.layer_norm",
        "_core_": "_core_.lstm",
        "_action_embeds_.table": "_action_embeds_._net",
        "_action_.mlp": "_action_._MLP",
    }
    for ours, theirs in names.items():
        state = {name.replace(f".{ours}.", f".{theirs}."): tensor for name, tensor in state.items()}
    torch.save(state, tmp_path / "old.pt")
    other = import_agent(path, weights=tmp_path / "old.pt", **GIVEN)
    for name, tensor in other.state_dict().items():
        torch.testing.assert_close(tensor, policy.state_dict()[name] + 0.5)


def test_a_size_that_does_not_follow_from_the_sources_is_refused(tmp_path):
    config = small(odd={"_target_": "x.LinearModule", "sources": ["flat"], "in_features": 3, "out_features": 10},
                   encoded_obs=layer("Linear", "odd", out_features=10))  # fmt: skip
    with pytest.raises(ConfigError, match="stated as 3, but the inputs give 75"):
        read(written(tmp_path, config), **GIVEN)


def test_the_report_tells_what_became_of_every_option(tmp_path):
    trained = {"clip_range": 1.0, "clip_scale": 1, "l2_norm_scale": 0.01, "l2_init_scale": 0.2, "analyze_weights": True}
    options = {**trained, "initialization": "Normal", "effective_rank": True, "colour": "red"}
    config = small(encoded_obs=layer("Linear", "flat", out_features=10, **options))
    config |= {"clip_range": 0.3, "observations": {"obs_key": "grid_obs"}, "mood": 3}
    notes = read(written(tmp_path, config), **GIVEN).notes
    assert [" ".join(note.split(": ")[:2]) for note in notes] == [
        "carried nonlinearity of _value_",
        "carried initialization of encoded_obs",
        "carried the ReLU that follows where nothing was written",
        "left behind clip_range of the agent, encoded_obs",
        "left behind l2_norm_scale of encoded_obs",
        "left behind l2_init_scale of encoded_obs",
        "left behind analyze_weights of encoded_obs",
        "left behind effective_rank of encoded_obs",
        "ignored there and here mood, encoded_obs.colour",
        "changed an action is one flat index; ActionPairs turns it into (type, parameter) and back",
        "changed what _core_ remembers is state, _core_/h and _core_/c (unpack_state), and is begun anew where an "
        "episode begins",
        "weights start anew, by seed 0",
    ]
    assert "{type: monitoring, clip_value: …}" in notes[3] and notes[2].endswith("actor_1, encoded_obs")


def test_slices_where_they_were_ignored_are_ignored_and_told(tmp_path):
    config = small(encoded_obs=layer("Linear", {"name": "flat", "slice": [0, 3], "dim": 1}, out_features=10))
    imported = read(written(tmp_path, config), **GIVEN)
    assert imported.policy.plan.node("encoded_obs_layer").inputs[0].shape == (75,)
    assert imported.notes[0].startswith("ignored there and here: slices of encoded_obs")


def test_fresh_weights_start_as_they_did(tmp_path):
    config = small(encoded_obs=layer("Linear", "flat", out_features=10, nonlinearity="nn.Tanh"))
    policy = import_agent(written(tmp_path, config), seed=4, **GIVEN)
    rows = policy.components["encoded_obs_layer"].weight
    torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(10), atol=1e-5, rtol=0)
    rows = policy.components["actor_1_layer"].weight
    torch.testing.assert_close(rows.T @ rows, torch.eye(6), atol=1e-5, rtol=0)
    assert (policy.components["_core_"].bias_hh_l0 == 1).all()
    same = import_agent(written(tmp_path, config), seed=4, **GIVEN)
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), same.parameters(), strict=True))


def test_actions_keep_their_embeddings_in_another_environment(tmp_path):
    torch.manual_seed(1)
    agent = LegacyAgent(small(), TINY, ACTIONS).eval()
    torch.save(agent.state_dict(), tmp_path / "old.pt")
    options = {"weights": tmp_path / "old.pt", "obs_shape": TINY, "trained_actions": ACTIONS}
    moved = {"attack": 1, "swim": 0, "noop": 0}
    policy = import_agent(written(tmp_path, small()), actions=moved, **options)
    obs = torch.randint(0, 4, (3, *TINY), dtype=torch.uint8)
    logits = policy.distribution(obs, state=policy.init_state(3)).parameters["logits"]
    with torch.no_grad():
        before = agent(obs)[0]
        agent.components["_action_embeds_"].activate_actions(ActionPairs(moved).names)
        torch.testing.assert_close(logits, agent(obs)[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits[:, 3], before[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits[:, :2], before[:, 7:], rtol=0, atol=1e-5)


def test_weights_alone_tell_how_many_actions_there_are(tmp_path):
    torch.save(LegacyAgent(small(), TINY, {"a": 2}).state_dict(), tmp_path / "old.pt")
    policy = import_agent(written(tmp_path, small()), weights=tmp_path / "old.pt", obs_shape=TINY)
    assert policy.actions.space.n == 3


def test_tensors_that_lie_there_twice_are_taken_once(tmp_path):
    state = LegacyAgent(small(), TINY, ACTIONS).state_dict()
    torch.save(state, tmp_path / "once.pt")
    twice = {name.replace("_net.0.", "weight_net."): state[name] for name in state if "encoded_obs._net.0." in name}
    torch.save(state | twice, tmp_path / "twice.pt")
    assert len(twice) == 2
    path = written(tmp_path, small())
    once, found = (import_agent(path, weights=tmp_path / f"{n}.pt", **GIVEN).state_dict() for n in ("once", "twice"))
    assert once.keys() == found.keys() and all(torch.equal(once[name], found[name]) for name in once)


def test_pairs_and_flat_indices_are_the_same_actions():
    pairs = ActionPairs(ACTIONS)
    assert len(pairs) == 9 and pairs.names[:4] == ["noop_0", "move_0", "move_1", "rotate_0"]
    flat = np.arange(9).reshape(3, 3)
    assert pairs.pairs(flat).tolist()[0] == [[0, 0], [1, 0], [1, 1]]
    assert (pairs.flat(pairs.pairs(flat)) == flat).all()
    largest = np.array(list(ACTIONS.values()))
    for kind, parameter in pairs.pairs(np.arange(9)):  # the original's rule
        assert pairs.flat([kind, parameter]) == kind + largest[:kind].sum() + parameter


def test_a_packed_state_is_unpacked_and_packed_again():
    packed = torch.randn(4, 3, 5)
    state = unpack_state(packed, "memory")
    assert set(state) == {"memory/h", "memory/c"} and state["memory/h"].shape == (3, 2, 5)
    assert torch.equal(state["memory/c"][:, 1], packed[3])
    assert torch.equal(pack_state(state, "memory"), packed)
    with pytest.raises(ShapeError, match=r"\(2L, B, H\), found \(3, 3, 5\)"):
        unpack_state(torch.zeros(3, 3, 5))
