"""Generated code, hostile by construction: refused, or run without touching anything outside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.errors import SkillError
from policysmith.skills.sandbox.running import Skill
from policysmith.skills.sandbox.translate import translated

from .watch import watched

LEAVES = """
x | y | abs | np | math | C | _x | __builtins__ | task_0_is_done | f | open | 0 | 1 | -1 | 2.5 | True | None | ...
'a' | '%s' | '{0.__class__}' | b'a' | 10 ** 9 | 10 ** 400 | x.shape | np.pi | np.load | np.array([1, 2]) | range(9)
[] | {} | () | 1j | np.float32 | x.dtype
"""
ATTRIBUTES = ["__class__", "__globals__", "shape", "T", "sum", "tolist", "gi_frame", "format", "real", "base", "wood"]
CALLED = [
    "abs",
    "max",
    "sum",
    "list",
    "range",
    "sorted",
    "pow",
    "np.add",
    "np.where",
    "np.array",
    "math.prod",
    "f",
    "open",
    "getattr",
    "type",
    "np.load",
    "x.astype",
    "x.reshape",
    "x.clip",
    "eval",
    "zip",
    "reversed",
    "int",
    "round",
]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "@", "<<", ">>", "&", "|", "^", "and", "or", "<", "==", "in"]
STATEMENTS = [
    "y = {0}", "y += {0}", "y *= {0}", "y: {0} = {1}", "y, *z = {0}", "for y in {0}: z = {1}", "while {0}: y = {1}",
    "if {0}: y = {1}", "assert {0}, {1}", "return {0}", "{0}", "x[0] = {0}", "x.a = {0}", "abs = {0}", "del y",
    "with {0}: pass", "raise {0}", "global y", "import os", "try: y = {0}\n    except: pass",
    "def g(a={0}): return {1}",
    "class A: y = {0}", "y = yield {0}", "y = [a for a in {0} if {1}]", "y = {{a: {1} for a in {0}}}", "break",
    "match {0}:\n        case _: y = {1}",
]  # fmt: skip
MODULES = ["C = {0}", "C: {0} = {1}", "C = [a for a in {0}]", "@abs\ndef h(): return {0}", "def h(a={0}): return {1}",
           "class A: a = {0}", "C = (abs := {0})"]  # fmt: skip


def wider(inner):
    pairs = st.tuples(inner, inner)
    return st.one_of(
        st.tuples(inner, st.sampled_from(OPERATORS), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, st.sampled_from(ATTRIBUTES)).map(lambda t: f"({t[0]}).{t[1]}"),
        st.tuples(inner, st.sampled_from(ATTRIBUTES), inner).map(lambda t: f"({t[0]}).{t[1]}({t[2]})"),
        st.tuples(st.sampled_from(CALLED), st.lists(inner, max_size=3)).map(lambda t: f"{t[0]}({', '.join(t[1])})"),
        st.tuples(st.sampled_from(CALLED), inner).map(lambda t: f"{t[0]}(*{t[1]})"),
        st.tuples(st.sampled_from(CALLED), inner, inner).map(lambda t: f"{t[0]}({t[1]}, key={t[2]})"),
        pairs.map(lambda t: f"{t[0]}[{t[1]}]" if t[0][0] not in "-10" else f"({t[0]})[{t[1]}]"),
        pairs.map(lambda t: f"[a for a in {t[0]} if {t[1]}]"),
        pairs.map(lambda t: f"sum({t[0]} for a in {t[1]})"),
        pairs.map(lambda t: f"({t[0]} if {t[1]} else {t[0]})"),
        pairs.map(lambda t: f"[{t[0]}, *{t[1]}]"),
        pairs.map(lambda t: f"{{{t[0]}: {t[1]}}}"),
        inner.map(lambda t: f"(lambda: {t})"),
        inner.map(lambda t: f"(z := {t})"),
        inner.map(lambda t: f"f'{{({t})}}'" if "'" not in t else f"(not {t})"),
        inner.map(lambda t: f"({t})[:]"),
    )


EXPRESSIONS = st.recursive(
    st.sampled_from([leaf.strip() for leaf in LEAVES.replace("\n", "|").split("|") if leaf.strip()]),
    wider,
    max_leaves=6,
)
FILLED = st.tuples(st.sampled_from(STATEMENTS), EXPRESSIONS, EXPRESSIONS).map(lambda t: t[0].format(*t[1:]))
HEADS = st.tuples(st.sampled_from(MODULES), EXPRESSIONS, EXPRESSIONS).map(lambda t: t[0].format(*t[1:]))


def survives(head, statements):
    body = "\n    ".join(["y = 0", *statements])
    source = (
        f"import math\nimport numpy as np\n{head}\ndef f(a=1): return a\ndef task_0_is_done(x): return False\n"
        f"def task_0_network_number(): return 0\ndef task_0_reward(x):\n    {body}\n    return 0.0\n"
    )
    try:
        skill = Skill(translated(source))
    except SkillError:
        return
    x = np.arange(6.0).reshape(2, 3)
    raised = None
    with watched() as events, np.errstate(all="ignore"):
        try:
            skill.execute()
            skill.functions["task_0_reward"](x=x)
        except Exception as error:
            raised = error
    assert raised is None or skill.explained(raised)[1]
    assert [event for event in events if "<module>" not in event] == [] and len(events) <= 1, "our own code alone"
    assert np.array_equal(x, np.arange(6.0).reshape(2, 3)), source


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=25, deadline=None)
@given(HEADS | st.just(""), st.lists(FILLED, min_size=1, max_size=2))
def test_generated_code_stays_inside(head, statements):
    survives(head, statements)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=20_000, deadline=None)
@given(HEADS | st.just(""), st.lists(FILLED, min_size=1, max_size=5))
def test_much_generated_code_stays_inside(head, statements):
    survives(head, statements)
