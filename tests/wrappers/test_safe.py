"""SafeModule: what is wrong is said at once and by name; actions stay inside their bounds."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from policysmith.errors import ShapeError, WiringError
from policysmith.graph import TensorSpec
from policysmith.wrappers import SafeModule

from .parts import Bare, Constant, LinearModule

X = torch.ones(3, 4)


def giving(value, out_key="output", **options):
    return SafeModule(Constant(value, out_key), **options)


def test_a_missing_input_is_named_with_what_there_is():
    with pytest.raises(ValueError, match="Missing required input key: 'input'; there are: other"):
        SafeModule(LinearModule(4, 3))({"other": X})
    nested = SafeModule(Constant(X))
    nested.in_keys = [("agent", "position")]
    with pytest.raises(ValueError, match=r"'agent\.position'"):
        nested(TensorDict({"input": X}, [3]))


def test_an_output_that_is_not_written_is_named():
    bare = Bare()
    bare.out_keys = ["action"]
    safe = SafeModule(bare)
    bare.out_keys = ["elsewhere"]
    with pytest.raises(ValueError, match="no expected output: 'action'"):
        safe({"input": X})


@pytest.mark.parametrize(("value", "word"), [(torch.nan, "NaN"), (torch.inf, "Inf"), (-torch.inf, "Inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64])
def test_one_bad_value_is_found_in_the_same_call(value, word, dtype):
    bad = torch.ones(3, 4, dtype=dtype)
    bad[2, 1] = value
    with pytest.raises(ValueError, match=rf"{word} \(1 of 12 values\), first at \(2, 1\) detected in input 'input'"):
        SafeModule(Constant(X))({"input": bad})
    with pytest.raises(ValueError, match=rf"{word} .*detected in output 'output'"):
        giving(bad)({"input": X})


def test_opposite_infinities_do_not_cancel():
    with pytest.raises(ValueError, match=r"Inf \(2 of 2"):
        giving(torch.tensor([torch.inf, -torch.inf]))({"input": X})


def test_large_numbers_whose_sum_overflows_are_fine():
    giving(torch.full((4,), 3e38))({"input": torch.full((4,), 6e4, dtype=torch.float16)})


def test_without_nan_check_nothing_is_looked_at():
    result = giving(X * torch.nan, nan_check=False)({"input": X * torch.inf})
    assert result["output"].isnan().all()


def test_whole_numbers_and_masks_are_no_concern():
    giving(torch.ones(3, dtype=torch.bool))({"input": torch.ones(3, dtype=torch.int64)})


def test_the_check_leaves_no_trace_in_the_gradient():
    module = LinearModule(4, 3)
    x = X.clone().requires_grad_()
    SafeModule(module)({"input": x})["output"].sum().backward()
    expected = X.clone().requires_grad_()
    module({"input": expected})["output"].sum().backward()
    assert torch.equal(x.grad, expected.grad)


GOOD = [
    ((None, 4), (3, 4)),
    ((7, 4), (3, 4)),
    ((None, None), (3, 4)),
    ((None, 4), (2, 5, 4)),
    ((1, 2, None), (3, 2, 9)),
]
BAD = [((None, 5), (3, 4)), ((None, 4), (4,)), ((None, 2, 4), (3, 4)), ((None, 2, 4), (3, 5, 4))]


@pytest.mark.parametrize(("spec", "shape"), GOOD)
def test_a_shape_that_fits_passes_whatever_its_batch(spec, shape):
    SafeModule(Constant(X), input_specs={"input": spec})({"input": torch.zeros(shape)})
    giving(torch.zeros(shape), output_specs={"output": spec})({"input": X})


@pytest.mark.parametrize(("spec", "shape"), BAD)
def test_a_shape_that_does_not_fit_is_told_with_both(spec, shape):
    with pytest.raises(ShapeError, match=r"Shape mismatch for input 'input': expected \(batch, .*got \("):
        SafeModule(Constant(X), input_specs={"input": spec})({"input": torch.zeros(shape)})
    with pytest.raises(ValueError, match="Shape mismatch for output 'output'"):
        giving(torch.zeros(shape), output_specs={"output": spec})({"input": X})


def test_outputs_have_the_batch_of_the_inputs():
    """A value (B, 1) where (B,) is meant would broadcast in a loss."""
    safe = giving(torch.zeros(3, 1), input_specs={"input": (None, 4)}, output_specs={"output": (None,)})
    with pytest.raises(ShapeError, match=r"expected \(batch\), got \(3, 1\)"):
        safe({"input": X})


def test_a_tensor_spec_tells_the_type_too():
    safe = SafeModule(Constant(X), input_specs={"input": TensorSpec((4,))})
    safe({"input": X})
    with pytest.raises(ShapeError, match="Type mismatch"):
        safe({"input": X.double()})


def test_a_spec_of_no_key_is_refused():
    with pytest.raises(WiringError, match=r"input_specs: 'inputs' is none of the keys input.*did you mean 'input'"):
        SafeModule(Constant(X), input_specs={"inputs": (None, 4)})


@pytest.mark.parametrize("key", ["action", "mean_action", "_action_", ("agent", "action"), ("agent", "left_action")])
@pytest.mark.parametrize("in_tensordict", [False, True], ids=["dict", "TensorDict"])
def test_every_action_is_bounded_out_of_place(key, in_tensordict):
    wild = torch.tensor([[-3.0, 0.5, 3.0]])
    mapping = TensorDict({"input": torch.ones(1, 4)}, [1]) if in_tensordict else {"input": torch.ones(1, 4)}
    result = giving(wild, key, action_bounds=(-1.0, 1.0))(mapping)
    for name in (key,) if isinstance(key, str) else key:
        result = result[name]
    assert result.tolist() == [[-1.0, 0.5, 1.0]]
    assert wild.tolist() == [[-3.0, 0.5, 3.0]]


@pytest.mark.parametrize("key", ["actions", "transaction", "reaction", "action_logits", ("action", "logits")])
def test_what_is_no_action_is_left_alone(key):
    wild = torch.tensor([[-3.0, 3.0]])
    result = giving(wild, key, action_bounds=(-1.0, 1.0))({"input": X})
    for name in (key,) if isinstance(key, str) else key:
        result = result[name]
    assert result is wild


def test_bounds_may_differ_by_dimension_and_keep_the_type():
    bounds = (np.array([-1.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32))
    assert giving(torch.tensor([[-9.0, 9.0]]), "action", action_bounds=bounds)({"input": X})["action"].tolist() == [
        [-1, 5]
    ]
    whole = giving(torch.tensor([-9, 9]), "action", action_bounds=(-1.0, 1.0))({"input": X})["action"]
    assert (whole.tolist(), whole.dtype) == ([-1, 1], torch.int64)


def test_gradients_pass_inside_the_bounds_only():
    x = torch.tensor([-3.0, 0.5, 3.0], requires_grad=True)
    giving(x, "action", action_bounds=(-1, 1))({"input": X})["action"].sum().backward()
    assert x.grad.tolist() == [0, 1, 0]


def test_bounds_out_of_order_or_number_are_refused():
    with pytest.raises(ValueError, match=r"low 1\.0 lies above high -1\.0"):
        SafeModule(Bare(), action_bounds=(1.0, -1.0))
    with pytest.raises(ValueError, match="found 3 entries"):
        SafeModule(Bare(), action_bounds=(1.0, 2.0, 3.0))


def test_bounds_with_nothing_to_clamp_are_told(caplog):
    giving(X, "logits", action_bounds=(-1, 1))
    assert "nothing to clamp" in caplog.text


@pytest.mark.parametrize("key", ["value", "state_value", "_value_"])
def test_extreme_values_go_to_the_log_and_the_metrics(key, caplog, capsys):
    safe = giving(torch.tensor([1.0, -2000.0]), key)
    for _ in range(9):
        safe({"input": X})
    told = [r.message for r in caplog.records if r.name == "policysmith.wrappers.safe"]
    assert f"extreme values in {key!r}: -2000 to 1" in told[0]
    assert len(told) == 4, "the 1st, 2nd, 4th and 8th"
    assert safe.metrics() == {f"extreme/{key}": 9.0}
    assert capsys.readouterr().out == ""


def test_the_limit_of_values_is_an_option(caplog):
    giving(torch.tensor([50.0]), "value", value_limit=40.0)({"input": X})
    assert len(caplog.records) == 1
    for safe in (giving(torch.tensor([5e4]), "value", value_limit=None), giving(torch.tensor([5e4]), "returns")):
        safe({"input": X})
    giving(torch.zeros(0), "value")({"input": X})
    assert len(caplog.records) == 1


class OnAccelerator(torch.Tensor):
    """A tensor that says it lies on an accelerator."""

    @property
    def device(self):
        return torch.device("cuda")


@pytest.mark.parametrize("synchronize", [False, True])
def test_on_an_accelerator_the_check_waits_only_if_told(synchronize, monkeypatch):
    """Not waiting means: no value is brought to the host, the assertion is left to the device."""
    asserted = []
    monkeypatch.setattr(torch, "_assert_async", lambda good, text: asserted.append((good, text)))
    bad = torch.full((3,), torch.nan).as_subclass(OnAccelerator)
    safe = SafeModule(Constant(X), synchronize=synchronize)
    if synchronize:
        with pytest.raises(ValueError, match="NaN"):
            safe({"input": bad})
        assert not asserted
    else:
        safe({"input": bad})
        ((good, text),) = asserted
        assert isinstance(good, torch.Tensor) and not good and text == "NaN or Inf in input 'input'"


def test_a_deferred_assertion_of_torch_raises_what_it_was_told():
    with pytest.raises(RuntimeError, match="NaN or Inf in input 'x'"):
        torch._assert_async(torch.tensor([torch.nan]).isfinite().all(), "NaN or Inf in input 'x'")


def test_compiled_whole_it_still_checks():
    torch._dynamo.reset()
    safe = SafeModule(LinearModule(4, 3), input_specs={"input": (None, 4)})
    compiled = torch.compile(lambda x: safe({"input": x})["output"], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X), safe({"input": X})["output"])
    with pytest.raises(RuntimeError, match="NaN or Inf in input 'input'"):
        compiled(X * torch.nan)


def test_it_can_be_transformed_by_functorch():
    safe = SafeModule(LinearModule(4, 3))
    result = torch.vmap(lambda x: safe({"input": x})["output"])(X)
    torch.testing.assert_close(result, safe({"input": X})["output"])
