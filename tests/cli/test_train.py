"""`policysmith train`: what reaches the API, what is printed, and a run from start to resume."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import policysmith
from policysmith.training.nonfinite.events import LeftOut
from policysmith.training.rollout.evaluation import EvaluationResult
from policysmith.training.run.results import TrainingResult
from tests.training.nonfinite.ill_environment import ill_config


@pytest.fixture
def trained(monkeypatch):
    """`trained(…)` makes `api.train` return a result at once; its list gets the arguments of the calls."""
    calls = []

    def result_with(training=None, **given):
        def train(config, overrides, **options):
            calls.append((config, overrides, options))
            place = options["output"] or options["resume"]
            files = {"learning_curve": place / "learning_curve.png", "diagram": place / "model.svg"}
            policy = SimpleNamespace(config={"training": training or {"total_steps": 50_000}})
            evaluation = EvaluationResult((480.0, 500.0), (480, 500))
            result = {"steps": 49_920, "seconds": 9.6, "artifact": place, "files": files, "evaluation": evaluation}
            return TrainingResult(policy, returns=[], **(result | given))

        monkeypatch.setattr("policysmith.api.train", train)
        return calls

    return result_with


def test_the_summary_says_what_came_out_and_what_to_try(run, trained):
    trained()
    result = run("train", "cartpole")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "steps     49,920 in 9.6 s (5,200 steps/s)\n"
        "return    490.0 ± 10.0 over 2 episodes\n"
        "policy    runs/cartpole\n"
        "curve     runs/cartpole/learning_curve.png\n"
        "diagram   runs/cartpole/model.svg\n"
        "\n"
        "next      policysmith show runs/cartpole\n"
        "          policysmith eval runs/cartpole\n"
        "          policysmith train --resume runs/cartpole training.total_steps=100_000\n"
    )


def test_a_run_that_met_its_goal_goes_on_without_it(run, trained):
    trained({"total_steps": 1000, "solved_at": 475.0})
    assert "training.total_steps=2_000 training.solved_at=null\n" in run("train", "cartpole").stdout


def test_an_interrupted_run_says_how_to_resume(run, trained, tmp_path):
    trained(interrupted=True, evaluation=None)
    plugin = tmp_path / "my parts.py"
    plugin.write_text("")
    result = run("--plugin", plugin, "train", "cartpole", "--output", "my runs/a")
    assert result.exit_code == 0
    assert result.stdout.startswith("stopped   before the end; what was learned is saved\nsteps     49,920 in 9.6 s")
    assert "return" not in result.stdout
    assert result.stdout.endswith(f"\n\nresume    policysmith --plugin '{plugin}' train --resume 'my runs/a'\n")


def test_arguments_reach_the_api(run, trained):
    calls = trained()
    run("train", "p.yaml", "model.hidden=[8]", "--seed", "3", "~model.norm", "--output", "here")
    options = {"output": Path("here"), "seed": 3, "progress": True}
    assert calls == [("p.yaml", ["model.hidden=[8]", "~model.norm"], options)]


def test_quiet_prints_the_directory_alone_and_remarks_to_stderr(run, trained):
    calls = trained(notes=["some episodes began anew"], left_out=LeftOut(rows=3))
    result = run("train", "cartpole", "--quiet")
    assert result.stdout == "runs/cartpole\n"
    assert result.stderr.splitlines() == [
        "note: some episodes began anew", "left out: 3 steps of environments with numbers that are not finite",
    ]  # fmt: skip
    assert calls[0][2]["progress"] is False


def test_a_note_is_printed_once(run, tiny):
    result = run("train", tiny, "training.total_steps=100", "--output", "run")
    assert (result.stdout + result.stderr).count("total_steps=100 is no multiple of an iteration's 64 steps") == 1


def test_too_many_numbers_that_are_not_finite_end_with_1_and_the_last_finite_policy_is_stored(run):
    """Every episode has such a reward; the third ends the fourth iteration."""
    config = ill_config(training={"nonfinite": {"max": 3}}, every=1, at=40, length=45)
    Path("ill.json").write_text(json.dumps(config))
    result = run("train", "ill.json", "--output", "run")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "reward is nan, for the 3rd episode in a row: mend the environment" in result.stderr
    assert "note: what 192 steps taught is saved in run; policysmith train --resume run goes on" in result.stderr
    whole = policysmith.train("ill.json", ["training.total_steps=192"], progress=False, evaluate=False).policy
    for name, tensor in policysmith.load("run").state_dict().items():
        assert tensor.isfinite().all() and torch.equal(tensor, whole.state_dict()[name]), name


def test_resuming_needs_no_configuration(run, trained):
    calls = trained()
    result = run("train", "--resume", "runs/a", "training.total_steps=9")
    options = {"output": None, "resume": Path("runs/a"), "progress": True}
    assert calls == [(None, ["training.total_steps=9"], options)]
    assert result.stdout.startswith("steps     49,920 in all, 9.6 s in this run\n")


def test_resuming_may_name_a_configuration(run, trained):
    calls = trained()
    run("train", "p.yaml", "a=b", "--resume", "runs/a", "--output", "runs/b")
    assert calls[0][:2] == ("p.yaml", ["a=b"])
    assert (calls[0][2]["resume"], calls[0][2]["output"]) == (Path("runs/a"), Path("runs/b"))


def test_a_resumed_run_takes_no_seed(run, trained):
    trained()
    assert run("train", "--resume", "runs/a", "--seed", "1").exit_code == 2


def test_a_configuration_is_needed_otherwise(run):
    result = run("train")
    assert result.exit_code == 2
    assert "an experiment file or a preset is needed, such as 'cartpole'" in result.stderr


@pytest.mark.parametrize(
    ("config", "name"),
    [("cartpole", "cartpole"), ("a/b/policy.v2.yaml", "policy.v2"), ("nested/preset", "preset"), ("p.json", "p")],
)
def test_a_run_is_called_after_its_configuration(run, trained, config, name):
    calls = trained()
    run("train", config)
    assert calls[0][2]["output"] == Path("runs") / name


def test_a_run_never_lands_in_the_directory_of_another(run, trained):
    calls = trained()
    for name in ("cartpole", "cartpole-2"):
        Path("runs", name).mkdir(parents=True)
    run("train", "cartpole")
    assert calls[0][2]["output"] == Path("runs/cartpole-3")


def test_a_stored_policy_is_not_written_over(run, trained):
    calls = trained()
    Path("here").mkdir()
    Path("here/manifest.json").write_text("{}")
    result = run("train", "cartpole", "--output", "here")
    assert (result.exit_code, calls) == (1, [])
    assert (
        result.stderr == "error: here holds a policy already: choose another --output, or train it on with --resume\n"
    )


def test_train_resume_eval_and_show(run, tiny):
    result = run("train", tiny, "--output", "run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("steps     128 in ")
    assert all(Path("run", name).is_file() for name in ("manifest.json", "learning_curve.png", "model.svg"))
    further = shlex.split(result.stdout.splitlines()[-1])
    assert run(*further[1:]).stdout.startswith("steps     256 in all, ")
    assert "over 2 episodes" in run("eval", "run").stdout
    assert "action_head" in run("show", "run").stdout


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_ctrl_c_saves_and_the_printed_command_resumes(tiny, run):
    program = [sys.executable, "-m", "policysmith"]
    words = [*program, "train", tiny, "training.total_steps=10_000_000", "--output", "run"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not Path("run/logs").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert stdout.startswith("stopped   before the end")
    steps = json.loads(Path("run/training_state.json").read_text())["step"]
    resume = stdout.splitlines()[-1].removeprefix("resume    policysmith ")
    again = run(*shlex.split(resume), f"training.total_steps={steps + 64}")
    assert again.stdout.startswith(f"steps     {steps + 64:,} in all"), again.stderr
