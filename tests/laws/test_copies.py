"""Law 12: deepcopy, pickle, `torch.export` and `torch.compile` work, or the type is listed as one that can't."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.thinning import thinned

from .cases import IDS, NAMES, model_of, results, tensors_of

# type → why it can't. A type that is listed here and works, or isn't and fails, breaks the law.
NOT_EXPORTED: dict[str, str] = {}
NOT_COMPILED: dict[str, str] = {}

COPIERS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}
copied = pytest.mark.parametrize("copier", COPIERS)


def assert_equal(found: Any, expected: Any) -> None:
    for a, b in zip(results(found), results(expected), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("case_id", thinned(IDS, 2))
@copied
def test_a_copy_computes_the_same_and_is_independent(case_id, copier):
    model = model_of(case_id).eval()
    tensors = tensors_of(case_id)
    fresh = COPIERS[copier](model)
    expected = results(model(*tensors))
    called = COPIERS[copier](model)
    for twin in (fresh, called):
        assert not twin.training
        assert list(twin.state_dict()) == list(model.state_dict())
        assert_equal(twin(*tensors), expected)
        assert twin.code == model.code
    with torch.no_grad():
        for tensor in (*called.parameters(), *called.buffers()):
            tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
    assert_equal(model(*tensors), expected)
    assert_equal(fresh(*tensors), expected)
    if list(called.parameters()):
        assert all(output.isnan().any() for output in results(called(*tensors)))  # its code reads its own weights


def holds(works: Callable[[], None], reason: str | None) -> None:
    """`works` succeeds, or fails and a reason is on the list."""
    if reason is None:
        works()
        return
    with pytest.raises(Exception):  # noqa: B017 - whatever torch raises
        works()


@pytest.mark.parametrize("case_id", thinned(IDS, 3))
def test_exported_or_listed(case_id):
    model, tensors = model_of(case_id).eval(), tensors_of(case_id)

    def works() -> None:
        program = torch.export.export(model, tuple(tensors))
        for found, expected in zip(results(program.module()(*tensors)), results(model(*tensors)), strict=True):
            torch.testing.assert_close(found, expected)

    holds(works, NOT_EXPORTED.get(case_id.rsplit("-", 1)[0]))


@pytest.mark.parametrize("name", thinned(NAMES, 4))
def test_compiled_whole_or_listed(name):
    model, tensors = model_of(name).eval(), tensors_of(name)

    def works() -> None:
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        with torch.no_grad():
            for found, expected in zip(results(compiled(*tensors)), results(model(*tensors)), strict=True):
                torch.testing.assert_close(found, expected)

    torch._dynamo.reset()
    holds(works, NOT_COMPILED.get(name))
