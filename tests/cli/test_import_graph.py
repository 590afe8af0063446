"""`policysmith import policy-constructor`: a configuration and its weights become one graph."""

import pytest
import torch

import policysmith

TEXT = """\
schema_version: 1
model:
  sequential:
    inputs: [obs]
    layers:
      - {_type_: nn.Linear, _args_: [4, 2]}
      - {_type_: nn.Tanh}
"""


@pytest.fixture
def head(tmp_path):
    (tmp_path / "head.yaml").write_text(TEXT, encoding="utf-8")
    model = policysmith.build_model(tmp_path / "head.yaml", seed=1)
    torch.save(model.state_dict(), tmp_path / "head.pt")
    return model


def test_a_graph_is_written_in_our_grammar_and_the_summary_says_so(run, head):
    result = run("import", "policy-constructor", "head.yaml", "head.pt", "--output", "new", "--input", "obs=4")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "our own (format: 1)" in result.stdout and "10 numbers" in result.stdout
    model = policysmith.build_model("new/graph.yaml")
    import safetensors.torch

    model.load_state_dict(safetensors.torch.load_file("new/model.safetensors"))
    x = torch.randn(3, 4)
    torch.testing.assert_close(model(x), head(x), rtol=0, atol=1e-6)
    again = run("import", "policy-constructor", "head.yaml", "head.pt", "--output", "new")
    assert again.exit_code != 0 and "choose another --output" in again.stderr


def test_what_stands_against_our_grammar_is_told(run, head):
    result = run("import", "policy-constructor", "head.yaml", "--output", "new")
    assert result.exit_code == 0
    assert "schema version 1, composed" in result.stdout and "--input" in result.stdout
    assert "no weights were given" in result.stdout


@pytest.mark.parametrize("text", ["obs", "obs=", "obs=4x", "obs=0", "=4"])
def test_a_shape_is_a_name_and_sizes(run, head, text):
    result = run("import", "policy-constructor", "head.yaml", "--output", "new", "--input", text)
    assert result.exit_code == 2 and "image=3x84x84" in result.stderr
