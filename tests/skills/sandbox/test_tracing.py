"""Translated code is traced as Python's own would be: only operations on arrays, whatever an array is."""

import sys
from types import ModuleType

import numpy as np
import pytest

from policysmith.skills.sandbox.running import Skill
from policysmith.skills.sandbox.translate import translated

SOURCE = """
import jax.numpy as jnp

WEIGHTS = (0.5, 0.25)

def near(distance, scale=4.0):
    return jnp.maximum(scale - distance, 0.0) / scale

def task_0_is_done(inventory, n=2):
    return inventory["wood"] >= n

def task_0_reward(inventory_diff, closest, closest_prev):
    total = near(closest["tree"]) - near(closest_prev["tree"])
    for weight, item in zip(WEIGHTS, ("wood", "stone")):
        total += weight * inventory_diff[item]
    return jnp.where(total > 0, total, 0.1 * total) + 0.01 * (closest["tree"].mean() ** 2) - -closest_prev["tree"].sum()

def task_0_network_number(): return 0
"""


class Traced:
    """An array without values: it notes what is done to it, and refuses to be a number or a truth value."""

    dtype, ndim, shape = np.dtype("float32"), 0, ()

    def __init__(self, text):
        self.text = text

    def __bool__(self):
        raise TypeError("a traced value has no truth")

    __float__ = __int__ = __index__ = __iter__ = __bool__

    def mean(self):
        return Traced(f"mean({self.text})")

    def sum(self):
        return Traced(f"sum({self.text})")


def _operator(name):
    return lambda self, *others: _noted(name, self, *others)


def _noted(name, *values):
    return Traced(f"{name}({', '.join(getattr(value, 'text', repr(value)) for value in values)})")


for _name in [
    "add",
    "radd",
    "sub",
    "rsub",
    "mul",
    "rmul",
    "truediv",
    "rtruediv",
    "pow",
    "rpow",
    "neg",
    "gt",
    "ge",
    "lt",
    "le",
    "eq",
]:
    setattr(Traced, f"__{_name}__", _operator(_name))


@pytest.fixture
def stand_in(monkeypatch):
    jax, numpy = ModuleType("jax"), ModuleType("jax.numpy")
    jax.Array, jax.numpy = Traced, numpy
    for name in ("maximum", "where"):
        setattr(numpy, name, lambda *values, name=name: _noted(name, *values))
    monkeypatch.setitem(sys.modules, "jax", jax)
    monkeypatch.setitem(sys.modules, "jax.numpy", numpy)


def features(array):
    names = ("inventory_diff", ("wood", "stone")), ("closest", ("tree",)), ("closest_prev", ("tree",))
    return {name: {item: array(f"{name}_{item}") for item in items} for name, items in names}


def test_a_traced_value_goes_through_as_through_python(stand_in):
    skill, names = Skill(translated(SOURCE)), {}
    skill.execute()
    exec(SOURCE, names)
    ours = skill.functions["task_0_reward"].of(features(Traced))
    assert ours.text == names["task_0_reward"](**features(Traced)).text
    done = skill.functions["task_0_is_done"].of({"inventory": {"wood": Traced("wood")}, "n": Traced("n")})
    assert done.text == "ge(wood, n)"


@pytest.mark.jax
def test_jax_compiles_and_maps_it():
    jax = pytest.importorskip("jax")
    skill, names = Skill(translated(SOURCE)), {}
    skill.execute()
    exec(SOURCE, names)
    rng = np.random.default_rng(0)
    rows = features(lambda name: rng.normal(size=(16, 3)).astype(np.float32))
    ours = jax.jit(jax.vmap(skill.functions["task_0_reward"].of))(rows)
    wanted = jax.jit(jax.vmap(lambda row: names["task_0_reward"](**row)))(rows)
    assert np.array_equal(ours, wanted) and ours.shape == (16, 3)
