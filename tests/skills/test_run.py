"""Skill code runs in a process of its own, under limits, and the one that asks survives whatever it does."""

import builtins
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from policysmith.errors import SkillError
from policysmith.skills.modules.module_file import SkillModule, parse_skill_module
from policysmith.skills.modules.process import Limits, SkillProcess

from .modules import GOOD, plan_of

FEATURES = {
    "inventory": {"wood": 3, "stone": 0},
    "inventory_diff": {"wood": 2, "stone": 1},
    "health_penalty": 0.25,
    "closest_blocks": np.arange(8.0).reshape(4, 2),
    "closest_blocks_prev": torch.ones(4, 2),
    "achievements": [0, 0, 0, 0, 0, True],
    "achievements_diff": np.arange(6, dtype=np.int8),
}


def raw(source):
    """A module that nobody has checked."""
    return SkillModule(source, parse_skill_module(plan_of(0)).tasks, frozenset(), frozenset())


def task(body, head=""):
    return parse_skill_module(f"{head}\n{plan_of(0, body=body)}")


@pytest.fixture(scope="module")
def good():
    with SkillProcess(parse_skill_module(GOOD)) as process:
        yield process


def test_functions_get_the_features_they_name(good):
    assert good.is_done(0, FEATURES) is False and good.is_done(0, {"inventory": {"wood": 4}}) is True
    assert good.reward(0, FEATURES) == pytest.approx(2 / 4 - 0.25)
    assert good.is_done(1, FEATURES) is False
    assert good.is_done(1, {"closest_blocks": np.zeros((4, 2), np.float32)}) is True
    assert good.reward(1, FEATURES) == 8 - 28, "tensors and arrays pass"
    assert good.is_done(2, FEATURES) is True and good.reward(2, FEATURES) == 50.0
    assert [good.network_number(i) for i in range(3)] == [0, 2, 7]
    assert good.value("SCALE") == {"wood": 0.25} and good.value("NEEDED") == 4 and good.value("nothing") is None


def test_what_is_missing_or_out_of_range_is_told(good):
    with pytest.raises(SkillError, match="task_0_reward reads health_penalty, which was not given"):
        good.reward(0, {"inventory_diff": {}})
    with pytest.raises(SkillError, match="tasks 0 to 2, found task 3"):
        good.reward(3, FEATURES)
    with pytest.raises(SkillError, match="task_0_reward failed: KeyError"):
        good.reward(0, {**FEATURES, "inventory_diff": {}})
    assert good.is_done(2, FEATURES), "an error of the code does not end the process"


def test_the_asking_process_runs_none_of_the_code(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("code was executed here")

    parsed, modules = parse_skill_module(plan_of(0)), set(sys.modules)  # ast.parse goes through compile, to a tree
    with monkeypatch.context() as patched:
        for name in ("exec", "eval", "compile"):
            patched.setattr(builtins, name, refuse)
        with SkillProcess(parsed) as process:
            found = process.reward(0, {"x": 1})
    assert found == 0.0
    assert not {name for name in set(sys.modules) - modules if "skill" in name}


@pytest.mark.parametrize(
    ("value", "told"),
    [("x.sum", r"no attribute 'sum'; a method is called: \.sum\(\)"), ("[1]", "gave a list"),
     ("float('nan')", "not a finite number"),
     ("x", r"an array of shape \(3,\)"), ("1 / 0", "ZeroDivisionError"), ("10 ** 400.0", "OverflowError"),
     ("None", "None, not a finite")],
)  # fmt: skip
def test_a_reward_is_a_finite_number(value, told):
    with (
        SkillProcess(task(f"return {value}", "import numpy as np")) as process,
        pytest.raises(SkillError, match=told),
    ):
        process.reward(0, {"x": np.ones(3) if value in ("x", "x.sum") else 1})


ENDLESS = "[np.sin(ROW).sum() for i in range(900000)]"
ROW = "import numpy as np\nROW = np.array([0.5] * 100000)"


def test_code_that_takes_too_long_is_ended():
    with SkillProcess(task(f"return len({ENDLESS})", ROW), Limits(seconds=0.3)) as process:
        with pytest.raises(SkillError, match=r"task_0_reward took longer than 0\.3 s"):
            process.reward(0, {"x": 1})
        assert process._process.poll() is not None
        with pytest.raises(SkillError, match="its process has ended: task_0_reward took longer"):
            process.reward(0, {"x": 1})


def test_the_time_of_a_call_is_that_of_the_constants_too():
    with pytest.raises(SkillError, match=r"executing the module took longer than 0\.3 s"):
        SkillProcess(task("return 0.0", f"{ROW}\nLONG = {ENDLESS}"), Limits(seconds=0.3))


def test_code_that_takes_too_much_memory_fails_alone():
    with SkillProcess(
        task("return (x[:, None] + x[None, :]).sum()", "import numpy"), Limits(memory=1 << 28)
    ) as process:
        with pytest.raises(SkillError, match=r"<skill>:3: task_0_reward failed: .*MemoryError"):
            process.reward(0, {"x": np.ones(100_000)})
        assert process.network_number(0) == 0


def test_code_that_recurses_without_end_fails():
    with SkillProcess(task("return task_0_reward(x)")) as process:
        with pytest.raises(SkillError, match="its functions call themselves more than 100 deep"):
            process.reward(0, {"x": 1})
        assert process.network_number(0) == 0


@pytest.mark.parametrize(
    "value", [object(), np.array([object()]), {1, 2}, open], ids=["object", "array of objects", "set", "function"]
)
def test_a_feature_that_cannot_be_sent_is_told(good, value):
    with pytest.raises(SkillError, match="task_0_is_done: a feature cannot be sent"):
        good.is_done(0, {"inventory": {"wood": value}})
    assert good.is_done(2, FEATURES), "and the process lives on"


def test_scalars_of_numpy_and_torch_are_numbers():
    with SkillProcess(task("return x['a'] + x['b'] + x['c'][0]")) as process:
        given = {"a": np.float32(1.5), "b": torch.tensor(2), "c": (np.int8(3), True)}
        assert process.reward(0, {"x": given}) == 6.5


@pytest.mark.slow
def test_a_module_of_torch_computes_with_tensors():
    source = plan_of(0, body="return torch.where(x > 0, x, 0.0).sum()")
    with SkillProcess(parse_skill_module(f"import torch\n{source}")) as process:
        assert process.reward(0, {"x": np.array([1.0, -5.0, 2.5])}) == 3.5


@pytest.mark.parametrize(
    ("source", "told"),
    [("import os", "importing 'os' is not allowed"), ("X = open('f', 'w')", "'open' is not a function"),
     ("X: [A := 1] = 1", "is not a plain type"), ("X = (abs := 1)", "gives 'abs' another meaning")],
)  # fmt: skip
def test_the_process_translates_the_text_itself(source, told):
    with pytest.raises(SkillError, match=rf"starting failed: (.*\n)?<skill>:1  .*{told}"):
        SkillProcess(raw(f"{source}\n{plan_of(0)}"))


def test_a_process_that_dies_is_told_and_none_is_left_behind():
    process = SkillProcess(parse_skill_module(plan_of(0)))
    process._process.kill()
    with pytest.raises(SkillError, match=r"ended its process \(exit status -9\)"):
        process.reward(0, {"x": 1})
    process.close()
    process.close()
    with SkillProcess(parse_skill_module(plan_of(0))) as other:
        pid = other._process.pid
    assert subprocess.run(["ps", "-p", str(pid)], capture_output=True).returncode != 0


def test_a_process_starts_without_the_libraries_that_its_code_does_not_need():
    with SkillProcess(parse_skill_module(plan_of(0))) as process:
        assert process.reward(0, {"x": 1}) == 0.0
        maps = Path(f"/proc/{process._process.pid}/maps").read_text()
    assert "torch" not in maps and "numpy" not in maps
