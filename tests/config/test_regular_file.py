"""Only regular files of a size that has room are read, whatever names them; nothing hangs, nothing grows."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch

import policysmith
from policysmith.config.regular_file import read_regular, require_regular
from policysmith.errors import CheckpointError, ConfigError
from policysmith.store.weights_file import read_weights

CARTPOLE = {"environment": {"id": "CartPole-v1"}, "model": "mlp"}
SPECIAL = ("fifo", "socket", "device", "directory", "link")


@pytest.fixture(params=SPECIAL)
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A path that is no regular file."""
    path = tmp_path / "special.yaml"
    if request.param == "fifo":
        os.mkfifo(path)
    elif request.param == "socket":
        listening = socket.socket(socket.AF_UNIX)
        request.addfinalizer(listening.close)
        previous = Path.cwd()
        os.chdir(tmp_path)  # a socket's path may have 107 letters
        listening.bind(path.name)
        os.chdir(previous)
    elif request.param == "device":
        return Path("/dev/zero")
    elif request.param == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path


def test_what_is_no_regular_file_is_refused_without_waiting(special):
    for read in (read_regular, require_regular):
        with pytest.raises(OSError, match="not a regular file"):
            read(special)


def test_a_configuration_and_its_defaults_are_regular_files(special):
    with pytest.raises(ConfigError, match="not a regular file"):
        policysmith.build(special)
    (problem,) = policysmith.check({**CARTPOLE, "defaults": [str(special)]})
    assert "not a regular file" in problem.message


def test_a_file_of_weights_is_a_regular_file(special):
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_weights(special)


@pytest.mark.parametrize("name", ["manifest.json", "config.json", "model.safetensors"])
def test_an_artifact_whose_file_is_a_pipe_is_refused(name, tmp_path):
    place = tmp_path / "policy"
    policysmith.save(policysmith.build({**CARTPOLE, "model": {"type": "mlp", "hidden": [4]}}), place)
    (place / name).unlink()
    os.mkfifo(place / name)
    with pytest.raises(CheckpointError):
        policysmith.load(place)


def test_a_larger_file_than_allowed_is_not_read(tmp_path):
    path = tmp_path / "large.yaml"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)  # a hole: it takes no disk
    with pytest.raises(OSError, match=r"it has 1\.0 TiB, at most 64\.0 MiB are read"):
        read_regular(path)
    with pytest.raises(ConfigError, match="at most 64"):
        policysmith.build(path)


def test_a_file_is_read_as_it_is(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\0\n" * 1000)
    assert read_regular(path) == b"\0\n" * 1000 and require_regular(path) == 2000
    (tmp_path / "link").symlink_to(path)
    assert read_regular(tmp_path / "link", None) == b"\0\n" * 1000


def test_what_stands_in_another_file_is_never_quoted(tmp_path):
    secret = tmp_path / "passwd"
    secret.write_text("root:x:0:0:root:/root\n")
    found = policysmith.check({**CARTPOLE, "defaults": [str(secret)]})
    assert found and "root:x" not in "\n".join(map(str, found))
    secret.write_text("- root\n- x\n")
    assert "root" not in policysmith.check({**CARTPOLE, "defaults": [str(secret)]})[0].message


def test_an_environment_variable_is_never_printed(monkeypatch):
    monkeypatch.setenv("MY_SECRET_TOKEN", "hunter2")
    (problem,) = policysmith.check({**CARTPOLE, "seed": "${env:int:MY_SECRET_TOKEN}"})
    assert "MY_SECRET_TOKEN" in problem.message and "hunter2" not in str(problem)


def test_weights_are_still_read(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "w.pt")
    assert torch.equal(read_weights(tmp_path / "w.pt").tensors["a"], torch.ones(2))


@pytest.mark.parametrize("name", ["\x1b[31mred", "\u202eabc", "a\x07b", "a\u200bb", "a\x9bb"])
def test_a_name_that_a_terminal_would_obey_is_shown_escaped(name):
    components = {name: {"type": "mlp", "in_keys": "observation"}}
    with pytest.raises(ConfigError) as caught:
        policysmith.build({**CARTPOLE, "model": {"type": "graph", "components": components}})
    for text in (str(caught.value), *map(str, caught.value.problems)):
        assert all(letter.isprintable() or letter == "\n" for letter in text)
    with pytest.raises(ConfigError) as caught:
        policysmith.build(f"{name}.yaml")
    assert all(letter.isprintable() or letter == "\n" for letter in str(caught.value))
