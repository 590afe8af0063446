"""Commands run in an empty directory, in this process."""

import pytest
from typer.testing import CliRunner

from policysmith.cli import app


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))


@pytest.fixture
def run():
    """`run("check", "cartpole")` → result with exit_code, stdout and stderr."""

    def invoke(*words):
        return _runner().invoke(app, [str(word) for word in words], prog_name="policysmith")

    return invoke


def _runner():
    try:
        return CliRunner(mix_stderr=False)  # before click 8.2
    except TypeError:
        return CliRunner()


@pytest.fixture
def tiny(tmp_path):
    """A file whose training takes a moment."""
    file = tmp_path / "tiny.yaml"
    file.write_text(
        "environment: {id: CartPole-v1, num_envs: 2}\n"
        "model: {type: mlp, hidden: [8]}\n"
        "training: {type: ppo, total_steps: 128, rollout_steps: 32, minibatches: 2}\n"
        "evaluation: {episodes: 2}\n"
    )
    return file
