"""`policysmith show`: a table, pictures, JSON and code of configurations and stored policies."""

import json
from pathlib import Path

import pytest

from policysmith import api


@pytest.fixture
def artifact(tmp_path):
    place = tmp_path / "stored"
    api.save(api.build("cartpole", overrides=["model.hidden=[8]"]), place)
    return place


def test_a_table_by_default(run):
    result = run("show", "cartpole", "model.hidden=[8]")
    assert (result.exit_code, result.stderr) == (0, "")
    for word in ("component", "actor", "value_head", "total", "memory: parameters"):
        assert word in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


@pytest.mark.parametrize("width", [80, 120])
def test_long_names_fold_and_nothing_is_lost(run, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run("show", "minigrid-empty").stdout.splitlines()
    assert all(len(line) <= width for line in lines)
    header = next(line for line in lines if "component" in line)
    assert all(heading in header for heading in ("component", "type", "inputs", "output shape", "parameters", "FLOPs"))
    head = header.index("type")
    assert "observation_direction_encoder" in "".join(line[:head].strip() for line in lines)


def test_json_is_the_description(run):
    assert json.loads(run("show", "cartpole", "--json").stdout) == api.describe("cartpole")


def test_a_batch_has_a_line_of_its_own(run):
    one, many = run("show", "board/large").stdout, run("show", "board/large", "--batch", "256").stdout
    assert "26,923,631" in one and "parameters 102.7 MiB" in one and "buffers" in one and "activations" in one
    assert "rows" not in one
    assert "256 rows: 985.4 GFLOP · activations 4.1 GiB" in many
    assert json.loads(run("show", "cartpole", "--json", "--batch", "8").stdout) == api.describe("cartpole", batch=8)


def test_the_batch_of_an_artifact(run, artifact):
    assert "8 rows: 1.4 kFLOP" in run("show", artifact, "--batch", "8").stdout


@pytest.mark.parametrize("words", [["--batch", "0"], ["--batch", "8", "--code"], ["--batch", "8", "--diagram", "svg"]])
def test_a_batch_that_means_nothing_is_refused(run, words):
    result = run("show", "cartpole", *words)
    assert result.exit_code == 2
    assert "--batch" in result.stderr


def test_a_profile_can_be_laid_over(run):
    assert run("show", "cartpole", "+fast-inference").exit_code == 0
    code = run("show", "cartpole", "+fast-inference", "execution.compile=false", "--code").stdout
    assert code.startswith("# amp: auto, compile: false; chosen: {}\n")
    result = run("show", "cartpole", "+fast-inferense")
    assert result.exit_code == 1
    assert "(did you mean 'fast-inference'?)" in result.stderr


def test_an_artifact_is_shown_too(run, artifact):
    assert json.loads(run("show", artifact, "--json").stdout)["totals"]["parameters"] == 107


def test_an_artifact_takes_no_overrides(run, artifact):
    result = run("show", artifact, "model.hidden=[8]")
    assert result.exit_code == 2
    assert "is a stored policy, which cannot be changed here" in result.stderr


def test_mermaid_is_printed(run):
    assert run("show", "cartpole", "--diagram", "mermaid").stdout.startswith("flowchart TD\n")


@pytest.mark.parametrize(("kind", "start"), [("svg", "<svg "), ("html", "<!doctype html>")])
def test_pictures_go_to_a_file_named_after_the_configuration(run, kind, start):
    result = run("show", "cartpole", "--diagram", kind)
    assert result.stdout == f"wrote cartpole.{kind}\n"
    assert Path(f"cartpole.{kind}").read_text(encoding="utf-8").startswith(start)


def test_a_picture_of_an_artifact_is_named_after_its_directory(run, artifact, monkeypatch):
    monkeypatch.chdir(artifact)
    assert run("show", ".", "--diagram", "svg").stdout == "wrote stored.svg\n"


@pytest.mark.parametrize(
    ("file", "start"), [("a/net.svg", "<svg "), ("net.html", "<!doctype html>"), ("net.mmd", "flowchart TD")]
)
def test_the_suffix_of_the_output_says_what_is_wanted(run, file, start):
    assert run("show", "cartpole", "--output", file).stdout == f"wrote {file}\n"
    assert Path(file).read_text(encoding="utf-8").startswith(start)


def test_a_suffix_that_says_nothing_is_refused(run):
    result = run("show", "cartpole", "--output", "net.txt")
    assert result.exit_code == 2
    assert "'net.txt' is no .svg, .html or .mmd: say what with --diagram" in result.stderr
    assert not Path("net.txt").exists()


def test_json_and_code_may_go_to_a_file(run):
    run("show", "cartpole", "--json", "--output", "net.txt")
    assert json.loads(Path("net.txt").read_text()) == api.describe("cartpole")
    run("show", "cartpole", "--code", "--output", "net.py")
    compile(Path("net.py").read_text(), "net.py", "exec")


@pytest.mark.parametrize("stored", [True, False])
def test_code_is_python(run, artifact, stored):
    result = run("show", artifact if stored else "cartpole", "--code")
    assert result.exit_code == 0
    compile(result.stdout, "code", "exec")


def test_only_one_form_at_a_time(run):
    result = run("show", "cartpole", "--json", "--code")
    assert result.exit_code == 2
    assert "only one of these at a time" in result.stderr


def test_problems_go_to_stderr(run):
    result = run("show", "cartpole", "model.hiden=[8]")
    assert (result.exit_code, result.stdout) == (1, "")
    assert (
        result.stderr == "override 'model.hiden=[8]'  model.hiden: unknown option of 'mlp' (did you mean 'hidden'?)\n"
    )
