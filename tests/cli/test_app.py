"""The command line as a whole: its surface, help, exit codes, plugins, and that it starts at once."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

import policysmith
from policysmith.cli import app, main
from policysmith.errors import ConfigError, PolicysmithError, Problem

ROOT = Path(__file__).parents[2]
GLOBAL = ["--plugin", "--debug"]
SURFACE = {
    "train": ["CONFIG", "OVERRIDE", "--output", "--seed", "--resume", "--base-dir", "--quiet", *GLOBAL],
    "eval": [
        "ARTIFACT",
        "--episodes/--games",
        "--deterministic/--sampled",
        "--seed",
        "--video",
        "--opponent",
        "--environment",
        "--json",
        *GLOBAL,
    ],
    "record": [
        "ARTIFACT",
        "--output",
        "--episodes",
        "--random-share",
        "--deterministic/--sampled",
        "--seed",
        "--json",
        *GLOBAL,
    ],
    "train-offline": ["CONFIG", "OVERRIDE", "--output", "--seed", "--resume", "--base-dir", "--quiet", *GLOBAL],
    "tune": [
        "CONFIG",
        "OVERRIDE",
        "--trials",
        "--output",
        "--workers",
        "--metric",
        "--sampler",
        "--pruner",
        "--seed",
        "--base-dir",
        "--quiet",
        *GLOBAL,
    ],
    "show": ["CONFIG", "OVERRIDE", "--diagram", "--output", "--json", "--code", "--batch", "--base-dir", *GLOBAL],
    "check": ["CONFIG", "OVERRIDE", "--base-dir", "--env", "--json", *GLOBAL],
    "list": ["PATTERN", "--slot", "--json", *GLOBAL],
    "new": ["FILE", "--env", "--force", *GLOBAL],
    "swap": ["ARTIFACT", "NAME=NEW", "--output", "--keep-weights", "--resize", "--seed", *GLOBAL],
    "schema": ["--output", *GLOBAL],
    "import": [],
    "store": [],
    "skills": [],
}
IMPORTS = {
    "flowrl": ["FILE", "--output", "--remap", "--activation", "--library", "--skill", *GLOBAL],
    "keisei": ["FILE", "--output", "--board-size", "--input-channels", "--resize-input", *GLOBAL],
    "metta": [
        "FILE",
        "WEIGHTS",
        "--output",
        "--obs-shape",
        "--actions",
        "--trained-actions",
        "--feature-max",
        "--seed",
        *GLOBAL,
    ],
    "model-config": ["FILE", "--output", "--config", "--unmasked", *GLOBAL],
    "policy-constructor": ["FILE", "WEIGHTS", "--output", "--input", *GLOBAL],
}
PLUGIN = """\
from policysmith import register
print("chatter of a plugin")

@register("of_a_plugin_{name}", slot="activation")
def made_up(slope: float = 0.5):
    \"\"\"An activation made up for a test.\"\"\"
"""


def _names(command):
    return [
        p.metavar if p.param_type_name == "argument" else "/".join([*p.opts, *p.secondary_opts]) for p in command.params
    ]


def test_commands_and_options_are_frozen():
    """A change here is a line in the CHANGELOG."""
    group = typer.main.get_command(app)
    assert {name: _names(command) for name, command in group.commands.items()} == SURFACE
    assert _names(group) == [*GLOBAL, "--version"]
    dialects = group.commands["import"]
    assert {name: _names(dialects.get_command(None, name)) for name in dialects.list_commands(None)} == IMPORTS


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_what_needs_no_work_imports_nothing_heavy(word):
    heavy = ["torch", "pydantic", "gymnasium", "tensordict", "matplotlib", "numpy", "yaml"]
    code = (
        "import sys\nfrom policysmith.cli import main\n"
        f"sys.argv = ['policysmith', {word!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        f"print('heavy:', [m for m in {heavy} if m in sys.modules], code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.splitlines()[-1] == "heavy: [] 0"


def test_python_m_is_the_same_program():
    words = [sys.executable, "-m", "policysmith", "--help"]
    result = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.startswith("Usage: policysmith COMMAND [OPTIONS]")


def test_the_entry_point_is_main():
    assert callable(main)
    assert 'policysmith = "policysmith.cli:main"' in (ROOT / "pyproject.toml").read_text()


def test_version(run):
    assert run("--version").stdout == f"policysmith {policysmith.__version__}\n"


def test_help_lists_every_command_in_a_line(run):
    text = run("--help").stdout
    lines = text.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == list(SURFACE)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "\x1b" not in text


@pytest.mark.parametrize("name", SURFACE)
def test_every_command_explains_its_options_and_gives_examples(run, name):
    result = run(name, "--help")
    assert result.exit_code == 0
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    assert f"\nExamples:\n  policysmith {name}" in result.stdout
    for parameter in typer.main.get_command(app).commands[name].params:
        assert parameter.help, parameter.name


def test_no_command_shows_help_as_a_usage_error(run):
    result = run()
    assert "Commands:" in result.stdout + result.stderr
    assert result.exit_code in (0, 2)  # click changed its mind


@pytest.mark.parametrize(
    "words",
    [
        ("trian", "cartpole"),
        ("train",),
        ("check",),
        ("check", "cartpole", "--sed", "1"),
        ("check", "cartpole", "other.yaml"),
        ("check", "cartpole", "=3"),
        ("show", "cartpole", "--diagram", "png"),
    ],
)
def test_wrong_usage_ends_with_2(run, words):
    result = run(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Usage: policysmith ")


def test_a_word_that_is_no_override_is_explained(run):
    message = run("check", "cartpole", "model.hidden=[8]", "other.yaml").stderr
    assert "'other.yaml' is no override: write 'a.b=value' to set (model.hidden=[128]) and '~a.b' to remove" in message


@pytest.mark.parametrize("word", ["a=b", "a.b=[1, 2]", "a[0]=", "~a.b", "a.b=c=d", "a=~b", "a=x\ny"])
def test_overrides_of_every_form_reach_the_configuration(run, monkeypatch, word):
    seen = []
    monkeypatch.setattr(
        "policysmith.api.check", lambda config, overrides, **_: seen.append(overrides) or [Problem("", "no")]
    )
    run("check", "cartpole", word)
    assert seen == [[word]]


class TestErrors:
    """Expected errors are sentences on stderr; `--debug` adds where they came from."""

    @pytest.fixture
    def failing(self, monkeypatch):
        def fail_with(error):
            def fail(*_, **__):
                raise error

            monkeypatch.setattr("policysmith.api.describe", fail)

        return fail_with

    def test_every_problem_of_a_configuration_takes_a_line(self, run, failing):
        far = "x/" * 60
        failing(
            ConfigError([Problem("a.b", "is [bold]wrong", f"{far}p.yaml:1:2"), Problem("c", "too"), Problem("", "all")])
        )
        result = run("show", "cartpole")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"{far}p.yaml:1:2  a.b: is [bold]wrong\nc: too\nerror: all\n"

    def test_other_expected_errors_are_a_sentence(self, run, failing):
        failing(PolicysmithError("no room left"))
        result = run("show", "cartpole")
        assert (result.exit_code, result.stderr) == (1, "error: no room left\n")

    def test_unexpected_errors_are_a_line_with_a_hint(self, run, failing):
        failing(ZeroDivisionError("first line\nsecond line"))
        result = run("show", "cartpole")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "error: ZeroDivisionError: first line (unexpected: add --debug to see where)\n"

    @pytest.mark.parametrize("words", [("--debug", "show", "cartpole"), ("show", "cartpole", "--debug")])
    def test_debug_shows_the_traceback(self, run, failing, words):
        failing(KeyError("x"))
        result = run(*words)
        assert result.exit_code == 1
        assert result.stderr.startswith("Traceback (most recent call last):\n")
        assert result.stderr.endswith("error: KeyError: 'x'\n")

    def test_json_leaves_stdout_empty_on_failure(self, run, failing):
        failing(PolicysmithError("no"))
        assert run("show", "cartpole", "--json").stdout == ""


@pytest.mark.parametrize(("words", "override"), [
    (["--total_steps", "5"], "training.total_steps=5"),
    (["--training.gamma=0.9"], "training.gamma=0.9"),
    (["--num-envs=4"], "environment.num_envs=4"),
    (["--hidden", "[8]"], "model.hidden=[8]"),
    (["--total-timesteps", "100"], "training.total_steps=100"),  # CleanRL's
    (["--n_steps"], "training.rollout_steps=…"),  # Stable-Baselines3's
    (["--nothing-of-the-kind", "5"], None),
])  # fmt: skip
def test_a_flag_that_is_an_option_of_the_experiment_is_answered_with_the_override(run, words, override):
    result = run("train", "cartpole", *words)
    assert result.exit_code == 2
    assert f"No such option: {words[0].partition('=')[0]}" in result.stderr
    told = f"; options of the experiment are written without dashes: {override}\n"
    assert told in result.stderr if override else "without dashes" not in result.stderr


class TestPlugins:
    """Types from a local file, given before the command or after it."""

    @pytest.mark.parametrize("before", [True, False])
    def test_types_of_a_plugin_can_be_used(self, run, tmp_path, before):
        name = f"{before}".lower()
        file = tmp_path / f"plugin_{name}.py"
        file.write_text(PLUGIN.format(name=name))
        words = ["check", "cartpole", f"model.activation=of_a_plugin_{name}"]
        option = ["--plugin", file]
        result = run(*option, *words) if before else run(*words, *option)
        assert "unknown activation" not in result.stdout

    def test_what_a_plugin_prints_stays_out_of_the_results(self, run, tmp_path):
        file = tmp_path / "chatty.py"
        file.write_text(PLUGIN.format(name="chatty"))
        result = run("--plugin", file, "list", "of_a_plugin_chatty")
        assert result.stderr == "chatter of a plugin\n"
        assert result.stdout.startswith("activation of_a_plugin_chatty\nAn activation made up for a test.\n")

    def test_a_missing_file_is_named(self, run):
        result = run("--plugin", "nowhere.py", "list")
        assert result.exit_code == 1
        assert result.stderr.startswith("error: no plugin file at ")

    def test_a_broken_file_is_named(self, run, tmp_path):
        file = tmp_path / "broken.py"
        file.write_text("1 / 0\n")
        result = run("list", "--plugin", file)
        assert (result.exit_code, result.stderr) == (
            1,
            f"error: plugin {file} failed: ZeroDivisionError: division by zero\n",
        )

    def test_help_does_not_run_plugins(self, run):
        assert run("--plugin", "nowhere.py", "check", "--help").exit_code == 0


def test_of_several_processes_one_tells_what_is_wrong_with_the_configuration(run, monkeypatch):
    words = ["train", "cartpole", "model.hiden=[8]", "--output", "unused"]
    told = run(*words)
    assert told.exit_code == 1 and "hiden" in told.stderr
    monkeypatch.setenv("RANK", "1")
    silent = run(*words)
    assert silent.exit_code == 1 and silent.stderr == ""
