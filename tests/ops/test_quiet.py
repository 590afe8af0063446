"""Threads that silence warnings leave the filters of the process as they were."""

from __future__ import annotations

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from policysmith.ops.quiet import quiet
from policysmith.parts.memory.lstm import LSTM
from policysmith.store.weights_file import read_weights


@pytest.fixture(autouse=True)
def hasty_threads():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_eight_threads_that_read_checkpoints_leave_the_filters_alone(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            list(pool.map(lambda _: read_weights(tmp_path / "weights.pt"), range(16)))
            assert list(warnings.filters) == before


def test_a_memory_on_the_cpu_touches_no_filters(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the filters of the process were touched")

    memory = LSTM(3, hidden_size=4)
    with monkeypatch.context() as patch:  # pytest itself uses it
        patch.setattr(warnings, "catch_warnings", refuse)
        output, *_ = memory.unroll(torch.ones(2, 5, 3), memory.initial_state(2), torch.zeros(2, 5, dtype=torch.bool))
    assert output.shape == (2, 5, 4)


def test_only_what_is_named_is_silent():
    with quiet("known"):
        warnings.warn("known and of no use", stacklevel=1)
        with pytest.raises(UserWarning, match="news"):
            warnings.warn("news", stacklevel=1)
