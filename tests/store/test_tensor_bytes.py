"""Tensors as bytes: the quick way of writing them gives what the library's own gives."""

import pytest
import safetensors.torch
import torch

from policysmith.errors import CheckpointError
from policysmith.store import tensor_bytes
from policysmith.store.tensor_bytes import pack, stored_tensor, unpacked

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool, torch.complex64)  # fmt: skip


def tensors():
    """Every type, in an order that is not the file's; shapes of no, one and no end of elements."""
    made = {f"b/{dtype}": torch.arange(6).reshape(2, 3).to(dtype) for dtype in DTYPES}
    return {**made, "scalar": torch.tensor(3.5), "none": torch.zeros(0, 4), "a «name»\n": torch.ones(1, 1, 1)}


def test_the_bytes_are_those_of_the_librarys_own_writer():
    assert pack(tensors(), "x") == safetensors.torch.save(tensors(), {"format": "pt"})


def test_older_versions_of_the_library_write_the_same_bytes(monkeypatch):
    expected = pack(tensors(), "x")
    monkeypatch.setattr(tensor_bytes, "TensorSpec", None)
    assert pack(tensors(), "x") == expected


def test_what_was_packed_is_read_again():
    found = unpacked("x", pack(tensors(), "x"))
    assert set(found) == set(tensors())
    assert all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in tensors().items()
    )


def test_a_tensor_that_does_not_lie_in_one_piece_is_refused_and_stored_once_it_does():
    turned = torch.arange(6.0).reshape(2, 3).T
    with pytest.raises(CheckpointError, match="cannot be stored as safetensors"):
        pack({"x": turned}, "file")
    assert torch.equal(unpacked("file", pack({"x": stored_tensor("x", turned, copy=False)}, "file"))["x"], turned)


def test_a_type_that_the_format_lacks_is_told():
    with pytest.raises(CheckpointError, match=r"file: tensors of torch\.complex128"):
        pack({"x": torch.zeros(2, dtype=torch.complex128)}, "file")


def test_a_stored_tensor_has_memory_of_its_own_unless_it_may_share():
    tensor = torch.zeros(3)
    assert stored_tensor("x", tensor).data_ptr() != tensor.data_ptr()
    assert stored_tensor("x", tensor, copy=False).data_ptr() == tensor.data_ptr()
