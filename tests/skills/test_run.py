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
    """A module that nobody has checked: what gets past the lists must still be held by the process."""
    tasks = parse_skill_module(plan_of(0)).tasks
    return SkillModule(source, tasks, frozenset({"numpy"} if "np." in source else ()), frozenset())


def task(body, head=""):
    return raw(f"{head}\ndef task_0_reward(x):\n    {body}\ndef task_0_network_number(): return 0\n")


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
    [("x.sum", "gave a builtin_function"), ("[1]", "gave a list"), ("float('nan')", "not a finite number"),
     ("x", r"an array of shape \(3,\)"), ("1 / 0", "ZeroDivisionError"), ("10 ** 400.0", "OverflowError"),
     ("None", "None, not a finite")],
)  # fmt: skip
def test_a_reward_is_a_finite_number(value, told):
    with (
        SkillProcess(task(f"return {value}", "import numpy as np; np.e" if "x" in value else "")) as process,
        pytest.raises(SkillError, match=told),
    ):
        process.reward(0, {"x": np.ones(3) if value in ("x", "x.sum") else 1})


def test_code_that_takes_too_long_is_ended():
    with SkillProcess(task("while True: pass"), Limits(seconds=0.3)) as process:
        with pytest.raises(SkillError, match=r"task_0_reward took longer than 0\.3 s"):
            process.reward(0, {"x": 1})
        assert process._process.poll() is not None
        with pytest.raises(SkillError, match="its process has ended: task_0_reward took longer"):
            process.reward(0, {"x": 1})
    with pytest.raises(SkillError, match="executing the module took longer than"):
        SkillProcess(raw("while True: pass"), Limits(start_seconds=0.5))


def test_code_that_takes_too_much_memory_fails_alone():
    with SkillProcess(task("return len([0] * 10 ** 9)"), Limits(memory=1 << 28)) as process:
        with pytest.raises(SkillError, match="MemoryError"):
            process.reward(0, {"x": 1})
        assert process.network_number(0) == 0


def test_code_that_recurses_without_end_fails():
    told = pytest.raises(SkillError, match=r"RecursionError|ended its process")
    with SkillProcess(task("return task_0_reward(x)")) as process, told:
        process.reward(0, {"x": 1})


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


@pytest.mark.parametrize("call", ["open('f', 'w')", "__import__('os')", "eval('1')", "print(1)"])
def test_the_process_itself_has_no_other_builtins(call):
    with SkillProcess(task(f"return {call}")) as process, pytest.raises(SkillError, match=r"NameError|ImportError"):
        process.reward(0, {"x": 1})


def test_the_process_imports_only_what_was_declared():
    with pytest.raises(SkillError, match="may not import 'os'"):
        SkillProcess(raw("import os"))


def test_files_cannot_be_written_even_where_a_function_for_it_is_reached(tmp_path):
    place = tmp_path / "stolen"
    writing = task(f"np.ones(99).tofile({str(place)!r}); return 0", "import numpy as np")
    told = pytest.raises(SkillError, match=r"task_0_reward failed|ended its process")
    with SkillProcess(writing) as process, told:
        process.reward(0, {"x": 1})
    assert not place.exists() or place.stat().st_size == 0


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
