"""Translated code gives what Python gives, and holds no word of the text. Python itself is the slow twin."""

import ast
import copy
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.skills.sandbox.running import Skill
from policysmith.skills.sandbox.translate import translated
from policysmith.skills.sandbox.translated_module import check_flat

from ..modules import GOOD
from .watch import watched

FEATURES = {
    "x": np.linspace(-2, 3, 12).reshape(4, 3),
    "d": {"wood": 3, "stone": 0, "iron": -2.5},
    "n": 5,
    "f": 0.75,
    "flag": True,
    "items": [3, 1, 2],
}
HEAD = "import math\nimport numpy as np\nSCALE = {'wood': 0.5, 'stone': 2}\nORDER = ('wood', 'stone')\n"
HELPERS = """
def gained(diff, weight: float = 1.0) -> float:
    return weight * max(diff, 0)

def rest(a, *, b=2, c=-1):
    if a > b:
        return a - c
    return rest(a + 1, b=b) + 1

def task_0_is_done(x): return False
def task_0_network_number(): return 0
"""


def skill(body, parameters="x, d, n, f, flag, items"):
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"{HEAD}{HELPERS}\ndef task_0_reward({parameters}):\n{lines}\n"


def both(source, features=FEATURES):
    """What translated code gives, and what Python does."""
    made = Skill(translated(source))
    made.execute()
    names = {}
    exec(source, names)
    with watched() as events:
        ours = made.functions["task_0_reward"].of(copy.deepcopy(features))
    assert events == []
    return ours, names["task_0_reward"](**copy.deepcopy(features))


@pytest.mark.parametrize(
    "body",
    [
        "return gained(d['wood'], weight=0.5) + sum(gained(v) for v in d.values()) - f",
        "total = 0.0\nfor name in ORDER:\n    total += SCALE[name] * d[name]\nelse:\n    total -= 1\nreturn total",
        "a, (b, *c) = 1, items\nreturn [a, b, c, rest(n), rest(1, b=3, c=n)]",
        "y = n\nwhile y > 0:\n    y -= 2\n    if y == 1: continue\n    if y < -5: break\nelse:\n    y = 100\nreturn y",
        "return [(i, j) for i in range(4) if i % 2 for j in reversed(items) if j != i and (k := j) > 1] + [k]",
        "return {k: v ** 2 for k, v in sorted(d.items())}, {v > 0 for v in d.values()}, d.get('gold', -1)",
        "return np.where(x > 0, x, 0.0).sum(axis=-1) + math.sqrt(2) * np.pi - x[..., 1] @ x[:, 0]",
        "return np.linalg.norm(x, axis=-1), np.clip(x, -1, 1).T, x[1:3, ::-1, None].shape, x.reshape(*x.shape[::-1])",
        "return x.astype('float32').dtype == np.float32, x.tolist()[0][:2], x.max(), x.size, (1 + 2j).imag",
        "return 7 // 2, 7 % 3, -7 >> 1, 3 << 2, 5 & 6, 5 | 6, 5 ^ 6, ~5, +n, -f, not flag, 2 ** -1",
        "return n if flag and f or items else d, 1 < n <= 5 != 4, 2 in items, n is not None, 'a' not in 'bc'",
        "return [1, *items][1:], (*items, 4), {*items}, 'ab'[0] + 'c' * 2, 'wood_%s' % 'a', '%03d' % n",
        "return [0] * 2 + items",
        "return len(d), abs(-n), any(items), all(items), bool(x.any()), dict([(1, 2)]), divmod(n, 2)",
        "return list(zip(items, ORDER))",
        "return min(items), max(n, f), max(items, default=0), pow(n, 2, 3), round(f, 1), round(2.5)",
        "return set(items), tuple(d), int('7')",
        "assert n == 5, 'five'\ny: np.ndarray = x + 1\ny *= 2\nz: int\nreturn y, sum([[1], [2]], [])",
        "return list(enumerate(items, 1))",
        "return sum(x), sum(items, 10), float('inf'), x.min(axis=0).argmax(), np.isclose(f, 0.75), ..., items.index(2)",
    ],
)  # fmt: skip
def test_it_gives_what_python_gives(body):
    ours, wanted = both(skill(body))
    assert repr(ours) == repr(wanted)


def test_arguments_are_not_changed_where_python_would():
    source = skill("x += 1\nitems += [4]\nreturn x.sum() + len(items)")
    made, given_features = Skill(translated(source)), copy.deepcopy(FEATURES)
    made.execute()
    assert made.functions["task_0_reward"].of(given_features) == FEATURES["x"].sum() + 12 + 4
    assert given_features["items"] == [3, 1, 2] and np.array_equal(given_features["x"], FEATURES["x"])


def test_flat_code_holds_no_word_of_the_text():
    program = translated(GOOD)
    check_flat(program.tree)
    words = set(re.findall(r"\w+", ast.unparse(program.tree)))
    ours = {word for word in words if re.fullmatch(r"[vgfs]\d+", word)}
    assert words - ours <= {"def", "return", "for", "in", "pass", "not", "and"}, "what is left is Python's"
    assert not [node for node in ast.walk(program.tree) if isinstance(node, ast.Constant | ast.Attribute | ast.Import)]


@pytest.mark.parametrize("code", ["x.y", "1", "'text'", "lambda: s0", "s0(axes=s1)", "a", "import os", "f's0'"])
def test_what_the_translator_never_makes_is_not_compiled(code):
    with pytest.raises(ValueError, match="in translated code"):
        check_flat(ast.parse(code))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("y = 1\nreturn d['gold']", ("7.py:19: ", "KeyError: 'gold'")),
        ("for i in range(0): late = 1\nreturn late", ("7.py:19: ", "UnboundLocalError: .*'late'")),
        ("return d.wood", ("7.py:18: ", r"'dict' has no attribute 'wood'; a dict is read by \['wood'\]")),
        ("return rest('a')", ("7.py:10: ", "TypeError")),
        ("return (1 +\n    1 / 0)", ("7.py:19: ", "ZeroDivisionError")),
    ],
)
def test_errors_are_told_with_the_line_and_in_the_words_of_the_text(body, told):
    made = Skill(translated(skill(body), "7.py"))
    made.execute()
    with pytest.raises(Exception) as raised:
        made.functions["task_0_reward"].of(FEATURES)
    place, text = made.explained(raised.value)
    assert place == told[0]
    assert re.search(told[1], text), text


NUMBERS = st.sampled_from(
    ["n", "f", "flag", "d['wood']", "d['iron']", "items[1]", "1", "0.5", "3", "SCALE['stone']", "-2"]
)
ARRAYS = st.sampled_from(["x", "x[0]", "x[:, 1]", "np.abs(x)", "x.sum(axis=0)", "np.where(x > 0, x, f)"])


def wider(inner):
    operators = st.sampled_from(["+", "-", "*", "/", "//", "%", "<", "==", "and", "or"])
    return st.one_of(
        st.tuples(inner, operators, inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, inner).map(lambda t: f"max({t[0]}, {t[1]})"),
        inner.map(lambda t: f"gained({t})"),
        inner.map(lambda t: f"(-{t})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})"),
        inner.map(lambda t: f"sum([{t} for i in items])"),
        st.tuples(inner, inner).map(lambda t: f"[{t[0]}, {t[1]}][0]"),
    )


def outcome(call):
    try:
        return repr(call())
    except (ArithmeticError, TypeError, ValueError) as error:
        return type(error).__name__


def agree(expression, lines):
    body = "y = 0\n" + "\n".join(f"y = {line}" for line in lines) + f"\nreturn {expression}"
    source = skill(body)
    made = Skill(translated(source))
    made.execute()
    names = {}
    exec(source, names)
    with np.errstate(all="ignore"):
        ours = outcome(lambda: made.functions["task_0_reward"].of(FEATURES))
        wanted = outcome(lambda: names["task_0_reward"](**copy.deepcopy(FEATURES)))
    assert ours == wanted or (ours == "SkillError" and wanted != "SkillError"), source


SCALARS = st.recursive(NUMBERS, wider, max_leaves=8)


@settings(max_examples=60, deadline=None)
@given(SCALARS, st.lists(SCALARS, max_size=2))
def test_generated_code_gives_what_python_gives(expression, lines):
    agree(expression, lines)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(st.recursive(NUMBERS | ARRAYS | st.just("y"), wider, max_leaves=12), st.lists(SCALARS, max_size=4))
def test_much_generated_code_gives_what_python_gives(expression, lines):
    agree(expression, lines)
