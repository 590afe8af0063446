"""`policysmith import`: from another system's checkpoint to an artifact, or a sentence on why not."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch

import policysmith
from policysmith import ModelConfig
from policysmith.dialects.imported import Imported, find_importer
from policysmith.dialects.keisei.grammar import KeiseiGrammar
from policysmith.registry import default_registry
from tests.dialects.metta.legacy_configs import ACTIONS, SHAPE, SIMPLE
from tests.reference.legacy_agent import LegacyAgent
from tests.reference.original_transformer import OriginalTransformer
from tests.reference.res_tower import ResTower
from tests.reference.se_resnet import SEResNet


class Malicious:
    """Unpickled, it would make a file."""

    def __reduce__(self):
        return os.mkdir, ("trace",)


@pytest.fixture
def tower(tmp_path):
    """A tower of the original beside its checkpoint."""
    model = ResTower(5, 11, 2, 8, 0.25, (9, 9)).eval()
    torch.save({"model_state_dict": model.state_dict(), "global_timestep": 7}, tmp_path / "old.pt")
    return model


def test_a_checkpoint_becomes_an_artifact_that_the_other_commands_take(run, tower):
    result = run("import", "keisei", "old.pt", "--output", "runs/new")
    assert (result.exit_code, result.stderr) == (0, "")
    obs = torch.randn(3, 5, 9, 9)
    for mine, theirs in zip(policysmith.load("runs/new")(obs), tower(obs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
    shown = run("show", "runs/new")
    assert shown.exit_code == 0 and "resnet_tower" in shown.stdout


def test_the_summary_says_what_was_found_and_where_it_went(run, tower):
    lines = run("import", "keisei", "old.pt", "--output", "runs/new").stdout.splitlines()
    count = sum(p.numel() for p in tower.parameters())
    assert lines == [
        "model     resnet: tower_depth 2, tower_width 8, se_ratio 0.25, dropout_rate 0.0",
        "observes  Box(-inf, inf, (5, 9, 9), float32)",
        "acts      Discrete(11)",
        f"weights   {count:,} parameters",
        "notes     left behind: global_timestep",
        "policy    runs/new",
        "",
        "next      policysmith show runs/new",
    ]


def test_options_reach_the_importer(run, tmp_path):
    torch.save(SEResNet(5, 7, 1, 8, 4, 6, 4, 10, 9).state_dict(), tmp_path / "old.pth")
    words = ["import", "keisei", "old.pth", "--output", "new", "--board-size", "4x6"]
    result = run(*words, "--input-channels", 7, "--resize-input")
    assert result.exit_code == 0 and "notes     planes 5 to 6 were added with zero weights" in result.stdout
    policy = policysmith.load("new")
    assert policy.observations.space.shape == (7, 4, 6) and policy.actions.space.n == 4 * 6 * 7


@pytest.fixture
def transformer():
    """A policy of the original transformer factory, and its flat configuration."""
    options = {f.name: f.default for f in dataclasses.fields(ModelConfig) if f.name not in ("causal", "decoder_input")}
    sizes = {"n_features": 3, "window_size": 7, "embedding_dim": 8, "n_heads": 2, "feature_extractor_dim": 4}
    config = {**options, **sizes, "n_decoder_layers": 1, "architecture": "decoder_only", "attention_type": "pyr"}
    return OriginalTransformer(config).eval(), config


def test_a_transformer_of_the_original_factory_becomes_an_artifact(run, transformer):
    model, config = transformer
    torch.save({"model_state_dict": model.state_dict(), "epoch": 3, "model_config": config}, "old.pt")
    result = run("import", "model-config", "old.pt", "--output", "runs/new")
    assert (result.exit_code, result.stderr) == (0, "")
    x = torch.randn(5, 7, 3)
    for mine, theirs in zip(policysmith.load("runs/new")(x), model(x), strict=True):
        torch.testing.assert_close(mine, theirs.view_as(mine), rtol=0, atol=1e-5)
    assert "extractor sequence_extractor, stack transformer_stack, pooling sequence_pool" in result.stdout
    assert "ignored its mask" in result.stdout and "left behind: epoch" in result.stdout
    assert run("show", "runs/new").exit_code == 0


def test_its_configuration_may_lie_in_a_file_and_its_mask_may_stay_ignored(run, transformer):
    model, config = transformer
    torch.save(model.state_dict(), "old.pt")
    refused = run("import", "model-config", "old.pt", "--output", "new")
    assert refused.exit_code == 1 and "give the configuration with --config" in refused.stderr
    Path("old.json").write_text(json.dumps(config))
    result = run("import", "model-config", "old.pt", "--output", "new", "--config", "old.json", "--unmasked")
    assert result.exit_code == 0 and "as in the original, which ignored its mask" in result.stdout
    assert policysmith.load("new").config["model"]["components"]["stack"]["causal"] is False


def test_a_legacy_agent_becomes_an_artifact(run):
    agent = LegacyAgent(SIMPLE, SHAPE, ACTIONS, [1.0] * 22).eval()
    torch.save(agent.state_dict(), "old.pt")
    Path("agent.yaml").write_text(json.dumps(SIMPLE))
    words = ["import", "metta", "agent.yaml", "old.pt", "--output", "runs/new", "--obs-shape", "11x11x22"]
    result = run(*words, "--actions", "noop=0,move=1,rotate=3,attack=1")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "570,178 parameters" in result.stdout and "carried: nonlinearity of critic_1, _value_" in result.stdout
    policy = policysmith.load("runs/new")
    obs = torch.zeros(2, 11, 11, 22, dtype=torch.uint8)
    logits = policy.distribution(obs, state=policy.init_state(2)).parameters["logits"]
    torch.testing.assert_close(logits, agent(obs)[0], rtol=0, atol=1e-5)
    assert run("show", "runs/new").exit_code == 0


def test_a_legacy_agent_without_weights_starts_anew(run):
    Path("agent.yaml").write_text(json.dumps(SIMPLE))
    words = ["import", "metta", "agent.yaml", "--output", "new", "--obs-shape", "11x11x22"]
    result = run(*words, "--actions", "noop=0,move=1", "--feature-max", ",".join(["1"] * 22))
    assert result.exit_code == 0 and "weights start anew, by seed 0" in result.stdout
    assert policysmith.load("new").actions.space.n == 3


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--obs-shape", "11x11", "'11x11' is no grid"),
        ("--actions", "noop,move=1", "'noop,move=1' are no actions"),
        ("--trained-actions", "move=-1", "'move=-1' are no actions"),
        ("--feature-max", "1,x", "'1,x' are no numbers"),
    ],
)
def test_an_option_of_a_legacy_agent_that_is_none_is_a_usage_error(run, option, value, message):
    result = run("import", "metta", "agent.yaml", "--output", "new", option, value)
    assert result.exit_code == 2 and message in " ".join(result.stderr.replace("│", " ").split())


def test_weights_beside_a_checkpoint_are_refused(run, tower):
    result = run("import", "keisei", "old.pt", "old.pt", "--output", "new")
    assert result.exit_code == 2 and "unexpected extra argument" in result.stderr


def test_every_problem_of_a_checkpoint_is_told_and_nothing_is_written(run, tower, tmp_path):
    state = tower.state_dict()
    state["stem.wieght"] = state.pop("stem.weight")
    torch.save(state, "old.pt")
    result = run("import", "keisei", "old.pt", "--output", "new", "--board-size", "8x8")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "error: old.pt: cannot be imported as keisei's residual tower:",
        "  stem.weight: missing",
        "  stem.wieght: unexpected (did you mean 'stem.weight'?)",
        "  board size: 8×8 has 64 points, and the heads read 81",
    ]
    assert not (tmp_path / "new").exists()


def test_a_malicious_pickle_is_refused_and_not_run(run, tmp_path):
    torch.save({"model_state_dict": {}, "epoch": Malicious()}, "old.pt")
    result = run("import", "keisei", "old.pt", "--output", "new")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: old.pt: asks for ") and "nothing in it was run" in result.stderr
    assert not (tmp_path / "trace").exists() and not (tmp_path / "new").exists()


def test_a_directory_that_holds_a_policy_is_left_as_it_is(run, tower, tmp_path):
    assert run("import", "keisei", "old.pt", "--output", "new").exit_code == 0
    before = (tmp_path / "new" / "manifest.json").stat().st_mtime_ns
    result = run("import", "keisei", "old.pt", "--output", "new")
    message = "error: new holds a policy already: choose another --output\n"
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", message)
    assert (tmp_path / "new" / "manifest.json").stat().st_mtime_ns == before


def test_a_directory_of_something_else_is_refused(run, tower, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "thesis.txt").write_text("mine")
    result = run("import", "keisei", "old.pt", "--output", "new")
    assert result.exit_code == 1 and "holds files but no policy, and is left as it is" in result.stderr
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("kesei", "old.pt", "--output", "new"),
            "unknown dialect 'kesei' (did you mean 'keisei'?); there are: flowrl, keisei, ",
        ),
        (("keisei", "old.pt"), "--output"),
        (("keisei",), "FILE"),
        (("keisei", "old.pt", "--output", "new", "--board-size", "9"), "'9' is no size of a board"),
        (("keisei", "old.pt", "--output", "new", "--board-size", "0x9"), "write height x width, as in 9x9"),
        (("keisei", "old.pt", "--output", "new", "--input-channels", "0"), "--input-channels"),
        (("keisei", "old.pt", "--output", "new", "--resize-input"), "give the number of planes"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_read(run, words, message):
    result = run("import", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_a_missing_file_is_named(run):
    result = run("import", "keisei", "nowhere.pt", "--output", "new")
    assert result.exit_code == 1
    assert result.stderr == "error: nowhere.pt: cannot be read: No such file or directory; check the path\n"


def test_an_option_that_a_dialect_lacks_is_wrong_usage(run, monkeypatch):
    monkeypatch.setattr(KeiseiGrammar, "read", staticmethod(lambda path: pytest.fail("it was read")))
    result = run("import", "keisei", "old.pt", "--output", "new", "--board-size", "9x9")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No such option" in result.stderr and "--board-size" in result.stderr


def test_what_an_importer_prints_stays_out_of_the_results(run, tower, monkeypatch):
    policy = find_importer("keisei")("old.pt").policy

    def read(path):
        print("chatter")
        return Imported(policy)

    monkeypatch.setattr(KeiseiGrammar, "read", staticmethod(read))
    result = run("import", "keisei", "old.pt", "--output", "new")
    assert result.stderr == "chatter\n" and "notes" not in result.stdout


@pytest.mark.parametrize("dialect", default_registry.names("grammar"))
def test_every_dialect_has_an_importer_and_help_names_it(run, dialect):
    assert callable(find_importer(dialect))
    assert dialect in run("import", "--help").stdout


def test_an_unknown_dialect_is_an_error_in_python_too():
    with pytest.raises(policysmith.errors.RegistryError, match=r"unknown dialect 'other'; there are: flowrl, keisei"):
        find_importer("other")
