"""Skill modules are read, never run; whatever is not on a list is refused, all of it at once."""

import sys

import pytest

from policysmith.errors import SkillError
from policysmith.skills.modules.module_file import parse_skill_module, read_skill_module

from .modules import GOOD, plan_of


def problems(source, features=None):
    with pytest.raises(SkillError) as caught:
        parse_skill_module(source, features, "7.py")
    return str(caught.value).splitlines()


def inside(statement, parameters="x", head=""):
    """A module whose only reward has this statement."""
    return f"{head}\ndef task_0_is_done(x): return False\ndef task_0_network_number(): return 0\n" + (
        f"def task_0_reward({parameters}):\n    {statement}\n    return 0.0\n"
    )


def test_a_module_says_what_its_tasks_are_and_read():
    module = parse_skill_module(GOOD)
    assert [(task.index, task.network_number) for task in module.tasks] == [(0, 0), (1, 2), (2, 7)]
    assert module.tasks[0].is_done == ("inventory",), "n has a default"
    assert module.tasks[1].reward == ("closest_blocks", "closest_blocks_prev")
    assert module.modules == {"numpy", "math"}
    assert "gained" in module.defines and "inventory_diff" in module.features


def test_tasks_are_in_the_order_of_their_numbers():
    source = plan_of(*range(12))
    parts = source.split("\n\n")
    module = parse_skill_module("\n\n".join(sorted(parts)))
    assert [task.network_number for task in module.tasks] == list(range(12))


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("open('f')", "'open' is not a function"),
        ("y = open('f')", "'open' is not a function"),
        ("y = eval('1')", "'eval' is not a function"),
        ("y = exec", "unknown name 'exec'"),
        ("y = __import__('os')", "two underscores"),
        ("y = __builtins__", "two underscores"),
        ("import os", "import is not allowed"),
        ("y = ().__class__", "'__class__' is not allowed"),
        ("y = x._private", "'_private' is not allowed"),
        ("y = '{0.__class__}'.format(x)", "'format' is not allowed"),
        ("y = 'a'.format_map", "'format_map' is not allowed"),
        ("y = f'{x!r}'", "an f-string is not allowed"),
        ("y = np.load('f')", "numpy.load is not on the list"),
        ("y = np.lib.npyio.DataSource", "numpy.lib.npyio.DataSource is not on the list"),
        ("y = np.add.at", "numpy.add.at is not on the list"),
        ("y = np.add", "numpy.add is not on the list of what a skill may use"),
        ("y = [np][0].load('f')", "'np' can be called, but not passed on"),
        ("x.tofile('f')", "'tofile' is not allowed"),
        ("y = x.tofile", "'tofile' is not allowed"),
        ("y = x.sort()", "the method 'sort' is not on the list"),
        ("y = (i for i in x).gi_frame.f_globals", "'gi_frame' is not allowed"),
        ("y = x[0]()", "is not a function that may be called"),
        ("y = (lambda: 0)()", "lambda is not allowed"),
        ("y = x()", "'x' is a value, not a function"),
        ("y = sorted(x, key=x.get)", "argument 'key' is not on the list"),
        ("y = np.sum(x, out=x)", "argument 'out' is not on the list"),
        ("y = np.sum(**x)", r"** is not allowed"),
        ("x['wood'] = 99", "not changed in place"),
        ("x.wood = 99", "not changed in place"),
        ("del x", "delete is not allowed"),
        ("global y", "global is not allowed"),
        ("raise x", "raise is not allowed"),
        ("try: pass\n    finally: pass", "try is not allowed"),
        ("with x: pass", "with is not allowed"),
        ("yield x", "yield is not allowed"),
        ("y = await_me", "unknown name 'await_me'"),
        ("def inner(): return 0", "functiondef is not allowed"),
        ("class A: pass", "a class is not allowed"),
        ("np = x", "gives 'np' another meaning"),
        ("max = x", "gives 'max' another meaning"),
        ("y = [max for max in x]", "gives 'max' another meaning"),
        ("y = task_0_is_done", "can be called, but not passed on"),
        ("y: open('f') = 0", "is not a plain type"),
        ("y = b'bytes'", "bytes are not allowed"),
        ("x + 1", "does nothing"),
        ("y = unknwon(x)", "'unknwon' is not a function"),
        ("match x:\n        case 0: pass", "match is not allowed"),
    ],
)
def test_what_is_not_on_a_list_is_refused(statement, told):
    found = problems(inside(statement, head="import numpy as np"))
    assert any(line.startswith("7.py:5  ") and told in line for line in found), found


@pytest.mark.parametrize(
    "statement",
    [
        "y = np.where(x > 0, np.float32(1), 0.0).sum() + math.sqrt(2) * np.pi",
        "y = np.linalg.norm(x, axis=-1) if x.shape[0] else 0",
        "y, (z, *rest) = 1, [2, 3]\n    y += z",
        "y = sum(i ** 2 for i in range(3) if i not in (1, 2)) | 3",
        "y = {k: v for k, v in x.items()}.get('wood', 0) + x.inventory.wood",
        "while x is None: break",
        "assert (y := len(x)) < 5, 'short'",
        "y: np.ndarray = x[..., 1:3, None]",
    ],
)
def test_what_computes_is_allowed(statement):
    parse_skill_module(inside(statement, head="import math; import numpy as np"))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "there is no task"),
        ("import os\n", "importing 'os' is not allowed; a skill may import jax.numpy, math, numpy, torch"),
        ("from numpy import load\n", "write 'import numpy'"),
        ("from . import x\n", "write 'import …'"),
        ("import jax.numpy\n", "give jax.numpy a short name"),
        ("import numpy as max\n", "can't be the name of a module"),
        ("import torch.hub\n", "importing 'torch.hub' is not allowed"),
        ("if True: pass\n", "if is not allowed"),
        ("class A: pass\n", "classdef is not allowed"),
        ("print('hello')\n", "expr is not allowed"),
        ("A = open('f')\n", "'open' is not a function"),
        ("A = task_0_is_done()\ndef task_0_is_done(x): return 1\n", "not a function that may be called"),
        ("a, b = 1, 2\n", "a constant is written NAME = value"),
        ("import numpy as np\nnp = 3\n", "'np' is the name of something else"),
        ("def sum(x): return x\n", "'sum' is the name of something else"),
        ("@open\ndef f(): return 0\n", "decorators are not allowed"),
        ("def f(*x): return 0\n", "must name its arguments"),
        ("def f(x=open('f')): return 0\n", "a default must be a number"),
        ("def f(x: open('f')): return 0\n", "not a plain type"),
        ("async def f(): return 0\n", "asyncfunctiondef is not allowed"),
        ("def task_0_is_done(x): return 0\n", "task_0_reward, task_0_network_number is missing"),
        ("def task_0_rewards(x): return 0\n", "'task_0_rewards' is no function of a task (did you mean 'task_0_"),
        ("def task_00_reward(x): return 0\n", "'task_00_reward' is no function of a task"),
        ("def task_٣_reward(x): return 0\n", "is no function of a task"),
        ("def task_1_reward(x): return 0\n", "found task 1 where task 0 should be"),
        (plan_of(0) + plan_of(1), "task_0_reward is defined twice"),
        ("task_0_is_done = 1\n", "there is no task"),
        ("def f(:\n", "is not Python"),
        ("x = '\0'", "null byte"),
        ("x = " + "(" * 1000 + ")" * 1000, "too many nested parentheses"),
        ("x = " + "-" * 20_000 + "1", ""),
        ("x = " + "1+" * 90_000 + "1", ""),
        ("#" * 500_001, "500,001 characters"),
    ],
)  # fmt: skip
def test_what_is_no_module_of_a_skill_is_refused(source, told):
    assert any(told in line for line in problems(source)), problems(source)


@pytest.mark.parametrize(
    "number",
    ["-1", "True", "1.0", "'1'", "N", "1 + 1", "GLOBAL[0]", "None", "[0]"],
)
def test_a_network_number_is_a_whole_number_written_out(number):
    source = "N = 1\nGLOBAL = {0: 0}\ndef task_0_is_done(x): return 0\ndef task_0_reward(x): return 0\n"
    told = problems(f"{source}def task_0_network_number(): return {number}\n")
    assert any(line.startswith("7.py:5  task_0_network_number must take nothing") for line in told), told
    told = problems(f"{source}def task_0_network_number(x): return 1\n")
    assert "must take nothing" in told[0]


def test_everything_is_told_at_once_in_the_order_of_the_lines():
    source = (
        "import os\nimport numpy as np\ndef task_0_is_done(x): return open(x)\n"
        "def task_0_reward(x): return np.load(x).__class__\ndef task_0_network_number(): return -1\n"
        "def task_2_is_done(x): return 0\n"
    )
    lines = problems(source)
    assert [line.split("  ")[0] for line in lines] == [
        "7.py:1",
        "7.py:3",
        "7.py:4",
        "7.py:4",
        "7.py:5",
        "7.py:6",
        "7.py:6",
    ]


def test_a_function_reads_only_what_the_environment_offers():
    told = problems(inside("y = inventry", "inventry, n=3"), features=["inventory", "x"])
    assert told == [
        "7.py:4  task_0_reward reads 'inventry' (did you mean 'inventory'?); the environment offers inventory, x"
    ]
    parse_skill_module(inside("y = inventory", "inventory, n=3"), features=["inventory", "x"])


def test_parsing_runs_nothing_and_imports_nothing(tmp_path):
    before = set(sys.modules)
    marker = tmp_path / "marker"
    problems(f"open({str(marker)!r}, 'w')\nimport antigravity\n{plan_of(0)}")
    parse_skill_module(GOOD)
    assert not marker.exists() and "antigravity" not in sys.modules
    assert not {n for n in set(sys.modules) - before if n.startswith(("task", "skill"))}


def test_files_that_cannot_be_read_are_told(tmp_path):
    with pytest.raises(SkillError, match=r"nowhere\.py: cannot be read"):
        read_skill_module(tmp_path / "nowhere.py")
    (tmp_path / "latin.py").write_bytes(b"# \xe4\n")
    with pytest.raises(SkillError, match="is not UTF-8"):
        read_skill_module(tmp_path / "latin.py")
    (tmp_path / "good.py").write_text(GOOD)
    assert len(read_skill_module(tmp_path / "good.py").tasks) == 3
