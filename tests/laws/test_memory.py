"""What memories of the package keep beside the laws of `policysmith.testing`: numbers, copies, export, compilation."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from policysmith.ops.reset_state import State
from policysmith.testing import memory
from policysmith.testing.memory import B, T, firsts, outcome, require_close

from .cases import IDS, REGISTRY, case_of, subject_of

MEMORIES = [i for i in IDS if REGISTRY.entry("component", case_of(i)[0]).traits.get("stateful")]
every_memory = pytest.mark.parametrize("case_id", MEMORIES)


def memory_of(case_id: str, dtype: torch.dtype = torch.float64) -> Any:
    return memory.memory_of(subject_of(case_id), dtype)


def inputs_of(case_id: str, dtype: torch.dtype = torch.float64) -> Tensor:
    return memory.sequence_of(subject_of(case_id), dtype=dtype)


def state_of(module: Any, case_id: str) -> State:
    return memory.state_of(module, subject_of(case_id))


# type → why one step can't be vectorised with `torch.vmap`.
NOT_VMAPPED: dict[str, str] = {}


@every_memory
def test_a_row_alone_is_that_row_in_the_batch(case_id):
    """Law 7."""
    module, x = memory_of(case_id), inputs_of(case_id)
    state, first = state_of(module, case_id), firsts("some")
    with torch.no_grad():
        y, after = module.unroll(x, state, first)
        for row in range(B):
            one = slice(row, row + 1)
            y_row, after_row = module.unroll(x[one], {n: t[one] for n, t in state.items()}, first[one])
            require_close({"y": y_row, **after_row}, {"y": y[one], **{n: t[one] for n, t in after.items()}})


@every_memory
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_state_is_batch_first_and_of_the_modules_type_and_stays_so(case_id, dtype):
    module = memory_of(case_id, dtype)
    x, initial = inputs_of(case_id, dtype=dtype), module.initial_state(B)
    looks = {n: (t.shape, t.dtype) for n, t in initial.items()}
    assert all(t.shape[0] == B and t.dtype in (dtype, torch.int64) for t in initial.values())
    y_step, after_step = module(x[:, 0], initial)
    y, after = module.unroll(x, initial, firsts("some"))
    assert {n: (t.shape, t.dtype) for n, t in after_step.items()} == looks
    assert {n: (t.shape, t.dtype) for n, t in after.items()} == looks
    assert (y_step.dtype, y.dtype) == (dtype, dtype)
    assert y.shape == (B, T, *y_step.shape[1:])
    assert all(torch.equal(module.initial_state(1)[n].expand_as(t), t) for n, t in initial.items())


@every_memory
def test_on_meta_tensors_shapes_follow(case_id):
    module = memory_of(case_id)
    real = module.unroll(inputs_of(case_id), module.initial_state(B), firsts("some"))
    ghost = copy.deepcopy(module).to("meta")
    initial = ghost.initial_state(B)
    assert all(t.is_meta for t in initial.values())
    x = inputs_of(case_id).to("meta")
    y, after = ghost.unroll(x, initial, firsts("some").to("meta"))
    assert y.is_meta and y.shape == real[0].shape
    assert {n: (t.shape, t.dtype) for n, t in after.items()} == {n: (t.shape, t.dtype) for n, t in real[1].items()}
    assert ghost(x[:, 0], initial)[0].shape == y[:, 0].shape


@every_memory
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_copy_computes_the_same(case_id, copier):
    module, x = memory_of(case_id), inputs_of(case_id)
    state, first = state_of(module, case_id), firsts("some")
    expected = outcome(module.unroll, module, x, state, first)
    twin = copier(module)
    require_close(outcome(twin.unroll, twin, x, state, first), expected, 0.0)


@every_memory
def test_one_step_exports(case_id):
    module = memory_of(case_id)
    x, state = inputs_of(case_id)[:, 0], state_of(module, case_id)
    program = torch.export.export(module, (x, state))
    torch.testing.assert_close(program.module()(x, state), module(x, state))


@every_memory
def test_one_step_compiles_whole(case_id):
    module = memory_of(case_id)
    x, state = inputs_of(case_id)[:, 0], state_of(module, case_id)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, state), module(x, state))


@every_memory
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # attention runs row by row there
def test_one_step_vectorises_or_is_listed(case_id):
    module = memory_of(case_id)
    x, state = inputs_of(case_id)[:, 0], state_of(module, case_id)

    def works() -> None:
        alone = torch.vmap(module)(x.unsqueeze(1), {n: t.unsqueeze(1) for n, t in state.items()})
        y, after = module(x, state)
        torch.testing.assert_close(alone, (y.unsqueeze(1), {n: t.unsqueeze(1) for n, t in after.items()}))

    if case_of(case_id)[0] not in NOT_VMAPPED:
        works()
        return
    with pytest.raises(Exception):  # noqa: B017 - whatever torch raises
        works()
