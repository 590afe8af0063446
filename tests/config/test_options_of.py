"""A signature that extends another takes its options over: types, defaults and all."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from policysmith.config.options import OptionSchema, options_of
from policysmith.types import Count, Dropout


class Base:
    def __init__(self, dim: int, heads: Count = 8, dropout: Dropout = 0.0, bias: bool = False) -> None:
        self.options = (dim, heads, dropout, bias)


class Narrower(Base):
    @options_of(Base, ("bias",), heads=2)
    def __init__(self, dim: int, *, size: Count = 3, **options: Any) -> None:
        super().__init__(dim, bias=True, **options)
        self.size = size


def test_the_signature_reads_as_if_it_were_written_out():
    assert list(inspect.signature(Narrower).parameters) == ["dim", "heads", "dropout", "size"]
    schema = OptionSchema(Narrower, "narrower")
    assert {name: default for name, (_, default) in schema.parameters.items() if name != "dim"} == {
        "heads": 2,
        "dropout": 0.0,
        "size": 3,
    }
    assert schema.decode({"dim": 4, "size": 1}, {}) == {"dim": 4, "heads": 2, "dropout": 0.0, "size": 1}


@pytest.mark.parametrize("arguments, named", [((4, 5, 0.5), {}), ((4,), {"heads": 5, "dropout": 0.5})])
def test_positional_and_named_arguments_arrive_alike(arguments, named):
    found = Narrower(*arguments, **named)
    assert found.options == (4, 5, 0.5, True)
    assert found.size == 3


def test_defaults_of_the_base_arrive_as_options():
    assert Narrower(4).options == (4, 2, 0.0, True)


@pytest.mark.parametrize("wrong", [{"bias": False}, {"hedas": 2}])
def test_an_option_left_out_or_unknown_is_refused(wrong):
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        Narrower(4, **wrong)


def test_a_function_takes_options_of_a_class():
    @options_of(Narrower)
    def build(*, dropout: Dropout = 0.25, **options: Any) -> dict[str, Any]:
        return {"dropout": dropout, **options}

    assert build(dim=1) == {"dim": 1, "heads": 2, "size": 3, "dropout": 0.25}
    assert list(OptionSchema(build, "build").parameters) == ["dim", "heads", "size", "dropout"]
