"""Checkpoints are read as numbers alone: nothing in them runs, and nothing is larger than the file."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict

import pytest
import safetensors.torch
import torch
from torch import nn

from policysmith.errors import CheckpointError
from policysmith.store.weights_file import read_weights

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(4)}


class Malicious:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Grown:
    """Unpickled, a tensor that is larger than its storage."""

    def __reduce__(self):
        storage = torch.storage.TypedStorage(
            wrap_storage=torch.zeros(1).untyped_storage(), dtype=torch.float32, _internal=True
        )
        return torch._utils._rebuild_tensor_v2, (storage, 0, (10**6,), (1,), False, OrderedDict())


def stored(path, data, **options):
    torch.save(data, path, **options)
    return path


def same(weights):
    return weights.keys() == WEIGHTS.keys() and all(torch.equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)


def prefixed(prefix):
    return {f"{prefix}{name}": tensor for name, tensor in WEIGHTS.items()}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("holder", [None, "model_state_dict", "model", "state_dict"])
def test_weights_are_found_bare_or_under_a_usual_name(tmp_path, holder, zipped):
    data = {holder: OrderedDict(WEIGHTS), "epoch": 3} if holder else WEIGHTS
    found = read_weights(stored(tmp_path / "c.pth", data, _use_new_zipfile_serialization=zipped))
    assert same(found.tensors)
    assert found.left == (("epoch",) if holder else ())


def test_a_holder_of_something_else_than_weights_is_passed_over(tmp_path):
    found = read_weights(stored(tmp_path / "c.pt", {"model": {"type": "resnet"}, "state_dict": WEIGHTS}))
    assert same(found.tensors) and found.left == ("model",)


def test_safetensors_are_read(tmp_path):
    safetensors.torch.save_file(WEIGHTS, tmp_path / "c.safetensors")
    assert same(read_weights(tmp_path / "c.safetensors").tensors)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_stripped(tmp_path, prefix):
    assert same(read_weights(stored(tmp_path / "c.pt", prefixed(prefix))).tensors)


def test_parameters_come_as_tensors_without_gradients(tmp_path):
    found = read_weights(stored(tmp_path / "c.pt", {"a.weight": nn.Parameter(torch.ones(2))})).tensors["a.weight"]
    assert type(found) is torch.Tensor and not found.requires_grad


class TestNothingRuns:
    """A pickle with code in it is refused, and its code is not run."""

    @pytest.fixture(params=["zip", "legacy", "pickle", "new pickle", "under a key", "among weights"])
    def malicious(self, tmp_path, request):
        file, trace = tmp_path / "c.pt", tmp_path / "trace"
        data = Malicious(trace)
        if request.param in ("pickle", "new pickle"):
            file.write_bytes(pickle.dumps(data, protocol=2 if request.param == "pickle" else 5))
        else:
            wrapped = {"under a key": {"epoch": data, "model": WEIGHTS}, "among weights": {**WEIGHTS, "b": data}}
            options = {"_use_new_zipfile_serialization": request.param != "legacy"}
            stored(file, wrapped.get(request.param, data), **options)
        return file, trace

    def test_code_is_refused_and_not_run(self, malicious):
        file, trace = malicious
        with pytest.raises(CheckpointError, match=r"(?s)c\.pt: .*(nothing in it was run|no checkpoint of torch)"):
            read_weights(file)
        assert not trace.exists()

    def test_what_the_file_asks_for_is_named(self, tmp_path):
        file = stored(tmp_path / "c.pt", {"model": WEIGHTS, "b": Malicious(tmp_path / "trace")})
        with pytest.raises(CheckpointError, match=r"asks for \w+\.mkdir, which is no weight, and was refused"):
            read_weights(file)

    def test_the_example_would_run_if_it_were_unpickled(self, tmp_path):
        """Or the tests above would prove nothing."""
        pickle.loads(pickle.dumps(Malicious(tmp_path / "trace")))
        assert (tmp_path / "trace").is_dir()

    def test_a_whole_module_is_refused(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"asks for torch\.nn\.\S+Linear, .*store the weights alone"):
            read_weights(stored(tmp_path / "c.pt", nn.Linear(2, 2)))


class TestNothingIsLargerThanTheFile:
    """A few bytes cannot claim gigabytes."""

    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
    def test_a_tensor_spread_by_strides(self, tmp_path, zipped):
        huge = {"a": torch.zeros(1).expand(10**12)}
        file = stored(tmp_path / "c.pt", huge, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match=r"claim 4,000,000,000,000 bytes, and the file has [\d,]{3,5}$"):
            read_weights(file)

    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
    def test_a_tensor_larger_than_its_storage(self, tmp_path, zipped):
        file = stored(tmp_path / "c.pt", {"a": Grown()}, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match="is no checkpoint of torch, or a damaged one: RuntimeError: "):
            read_weights(file)

    def test_one_storage_under_many_names(self, tmp_path):
        shared = torch.zeros(10_000)
        with pytest.raises(CheckpointError, match="claim 40,000,000 bytes"):
            read_weights(stored(tmp_path / "c.pt", {f"a{i}": shared for i in range(1000)}))

    def test_a_compressed_archive(self, tmp_path):
        plain, packed = io.BytesIO(), tmp_path / "c.pt"
        torch.save({"a": torch.zeros(10**6)}, plain)
        with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as goal:
            for name in source.namelist():
                goal.writestr(name, source.read(name))
        assert packed.stat().st_size < 20_000
        with pytest.raises(CheckpointError, match=r"is a compressed archive, which torch\.save does not write"):
            read_weights(packed)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"PK\x03\x04garbage", b"\x80\x02.", b"\x80\x02}q\x00.", bytes(99)]
)
def test_what_is_no_checkpoint_is_refused_in_a_sentence(tmp_path, content, suffix):
    file = tmp_path / f"c{suffix}"
    file.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_weights(file)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0.2, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_cut_short_is_refused(tmp_path, suffix, kept):
    file = tmp_path / f"c{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save({"a": torch.zeros(1000), "b": torch.zeros(10)}, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CheckpointError):
        read_weights(file)


@pytest.mark.parametrize("flipped", range(7))
def test_flipped_bits_never_end_in_another_error(tmp_path, flipped):
    file = stored(tmp_path / "c.pt", WEIGHTS)
    content = bytearray(file.read_bytes())
    for place in range(flipped, len(content), 37):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        file.write_bytes(damaged)
        try:
            read_weights(file)
        except CheckpointError as error:
            assert str(error).startswith(f"{file}: ")


def test_paths_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pt: cannot be read: No such file or directory"):
        read_weights(tmp_path / "nowhere.pt")
    with pytest.raises(CheckpointError, match="it is a directory, not a regular file"):
        read_weights(tmp_path)


@pytest.mark.parametrize("data", [[torch.zeros(2)], torch.zeros(2), 3, None])
def test_what_is_no_mapping_is_refused(tmp_path, data):
    with pytest.raises(CheckpointError, match=f"holds a {type(data).__name__}; expected a state dict"):
        read_weights(stored(tmp_path / "c.pt", data))


def test_a_checkpoint_without_weights_says_what_it_holds(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no weights; .*, found epoch, policy$"):
        read_weights(stored(tmp_path / "c.pt", {"epoch": 3, "policy": {"a": torch.zeros(2)}}))


def test_every_entry_that_is_no_plain_tensor_is_named(tmp_path):
    data = {
        "module.a": torch.zeros(2),
        "a": torch.zeros(2),
        "epoch": 3,
        7: torch.zeros(2),
        "thin": torch.zeros(3, 3).to_sparse(),
        "ghost": torch.zeros(2, device="meta"),
        "red\x1b[31m": None,
    }
    with pytest.raises(CheckpointError) as caught:
        read_weights(stored(tmp_path / "c.pt", {"model": data}))
    assert str(caught.value).splitlines()[1:] == [
        "  7: is no text; names are texts",
        "  epoch: int, expected a tensor",
        "  thin: a sparse, quantized or empty tensor, expected plain numbers",
        "  ghost: a sparse, quantized or empty tensor, expected plain numbers",
        r"  'red\x1b[31m': NoneType, expected a tensor",
        "  a: stored twice, as module.a and a",
    ]
