"""Datasets: what is stored is what is read, and what is damaged or does not fit is refused in a sentence."""

import json
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from gymnasium import spaces

from policysmith import api
from policysmith.errors import DatasetError, MissingExtraError
from policysmith.training.datasets import (
    ArraysDataset,
    MemmapDataset,
    MinariDataset,
    ParquetDataset,
    from_arrays,
    write_episodes,
)

OBSERVATION = np.arange(10, dtype=np.float32).reshape(5, 2)
ARRAYS = {
    "observation": OBSERVATION,
    "action": np.array([0, 1, 2, 1, 0]),
    "reward": np.array([1, 2, 4, 8, 16], np.float32),
    "terminated": np.array([0, 0, 1, 0, 0], bool),
    "truncated": np.array([0, 0, 0, 0, 1], bool),
    "last_observation": np.array([[50, 51], [60, 61]], np.float32),
}
SPACES = {"observation_space": spaces.Box(0, 99, (2,), np.float32), "action_space": spaces.Discrete(3)}


@pytest.fixture
def stored(tmp_path):
    return write_episodes(tmp_path / "data", from_arrays(ARRAYS, **SPACES), {"by": "hand"})


def test_every_episode_is_closed_by_the_observation_after_it():
    episodes = from_arrays(ARRAYS)
    assert episodes.lengths.tolist() == [3, 2] and episodes.starts.tolist() == [0, 4] and episodes.steps == 5
    assert episodes.columns["observation"][:, 0].tolist() == [0, 2, 4, 50, 6, 8, 60]
    assert episodes.rows(torch.tensor([1, 0])).tolist() == [4, 5, 0, 1, 2]
    assert episodes.final and not from_arrays({k: v for k, v in ARRAYS.items() if k[:4] != "last"}).final


def test_returns_are_sums_of_later_rewards():
    returns = from_arrays(ARRAYS).returns(0.5)
    assert returns.tolist() == [1 + 0.5 * (2 + 0.5 * 4), 2 + 0.5 * 4, 4, 0, 8 + 0.5 * 16, 16, 0]


def test_what_is_stored_is_what_is_read(stored):
    ours, theirs = from_arrays(ARRAYS, **SPACES), MemmapDataset(str(stored)).open()
    assert ours.columns.keys() == theirs.columns.keys()
    for name, column in ours.columns.items():
        assert torch.equal(column, theirs.columns[name]) and column.dtype == theirs.columns[name].dtype
    assert torch.equal(ours.lengths, theirs.lengths) and theirs.final
    assert (theirs.observation_space, theirs.action_space) == tuple(SPACES.values())
    assert json.loads((stored / "dataset.json").read_text())["origin"] == {"by": "hand"}


def test_the_columns_are_a_tensordict(stored):
    from tensordict import TensorDict

    columns = TensorDict.load_memmap(stored / "steps")
    assert torch.equal(columns["reward"], from_arrays(ARRAYS).columns["reward"]) and columns.batch_size == (7,)


def test_reading_never_changes_the_files(stored):
    before = (stored / "steps" / "reward.memmap").read_bytes()
    MemmapDataset(str(stored)).open().columns["reward"].fill_(7)
    assert (stored / "steps" / "reward.memmap").read_bytes() == before


@pytest.mark.parametrize("key", ["image", "a/b", "../x", "ö"])
def test_leaves_may_have_any_name(tmp_path, key):
    arrays = {name: array for name, array in ARRAYS.items() if "observation" not in name}
    space = spaces.Dict({key: spaces.Box(0, 99, (2,), np.float32)})
    episodes = from_arrays(arrays | {f"observation.{key}": OBSERVATION}, space, SPACES["action_space"])
    write_episodes(tmp_path / "data", episodes)
    found = MemmapDataset(str(tmp_path / "data")).open()
    assert torch.equal(found.columns[f"observation.{key}"], episodes.columns[f"observation.{key}"])
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_recorded_data_is_not_written_over(stored):
    with pytest.raises(DatasetError, match="holds something already"):
        write_episodes(stored, from_arrays(ARRAYS, **SPACES))
    assert len(MemmapDataset(str(stored)).open()) == 2


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(Exception, match="cannot be stored"):
        write_episodes(tmp_path / "data", from_arrays(ARRAYS))  # it knows no spaces
    assert list(tmp_path.iterdir()) == []


def truncate(folder):
    file = folder / "steps" / "action.memmap"
    file.write_bytes(file.read_bytes()[:-1])


def edit(**changes):
    def apply(folder):
        file = folder / "dataset.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return apply


def column(**entry):
    return edit(columns={"observation": {"key": "observation", "dtype": "float32", "shape": [2]} | entry})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"action.memmap: has 55 bytes, and 56 are needed: the dataset was not copied or written whole"),
        (lambda folder: (folder / "steps" / "reward.memmap").unlink(), "reward.memmap: is missing"),
        (lambda folder: (folder / "dataset.json").write_text("{"), "dataset.json: cannot be read"),
        (lambda folder: (folder / "dataset.json").write_text("{}"), "not the description of a policysmith dataset"),
        (lambda folder: (folder / "dataset.json").unlink(), "holds no dataset.json"),
        (edit(format=2), "has format 2, and this version reads 1; install a newer one"),
        (edit(lengths=[3, 9]), "bytes, and"),
        (edit(lengths=[]), "lists no episode"),
        (edit(lengths=[7, -1]), "or one without a step"),
        (edit(lengths="no"), "is damaged"),
        (edit(action_space={"type": "Sphere"}), "unknown type of space 'Sphere'"),
        (column(key="../../secret"), "is damaged"),
        (column(dtype="object"), "can't be of dtype 'object'"),
        (column(), "there is no column 'action'"),
    ],
)
def test_what_is_damaged_is_refused(stored, damage, message):
    damage(stored)
    with pytest.raises(DatasetError, match=message):
        MemmapDataset(str(stored)).open()


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_arrays_are_read_from_files(tmp_path, kind):
    theirs = {"observations" if name == "observation" else name: array for name, array in ARRAYS.items()}
    path = tmp_path / "data.npz"
    if kind == "npz":
        np.savez(path, **theirs)
    else:
        path = tmp_path
        for name, array in theirs.items():
            np.save(tmp_path / f"{name}.npy", array)
    found = ArraysDataset(str(path), {"observation": "observations"}).open()
    assert torch.equal(found.columns["observation"], from_arrays(ARRAYS).columns["observation"])


def test_lengths_may_tell_where_episodes_end():
    arrays = {"observation": OBSERVATION, "action": ARRAYS["action"], "lengths": np.array([4, 1])}
    assert from_arrays(arrays).lengths.tolist() == [4, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": np.zeros(4)}, "reward has 4 rows; expected 2 episodes of 5 steps"),
        ({"last_observation": np.zeros((3, 2))}, "the last observation has 3 rows"),
        ({"truncated": np.zeros(5, bool)}, "the last step ends no episode"),
        ({"truncated": np.zeros(4, bool)}, "must have one number a step"),
        ({"actoin": np.zeros(5)}, r"'actoin' is no array of a dataset \(did you mean 'action'\?\)"),
        ({"action": np.array(["a"] * 5)}, "'action' holds no numbers"),
        ({"reward": np.float32(3)}, "'reward' is a single number"),
        ({"lengths": np.array([5, 0])}, "an episode has no step"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(change, message):
    with pytest.raises(DatasetError, match=message):
        from_arrays(ARRAYS | change)


def test_arrays_that_tell_no_ends_are_refused():
    with pytest.raises(DatasetError, match="nothing tells where episodes end"):
        from_arrays({"observation": OBSERVATION, "action": ARRAYS["action"]})


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "data.npz", **ARRAYS, extra=np.array([{}], object))
    with pytest.raises(DatasetError, match="allow_pickle=False"):
        ArraysDataset(str(tmp_path / "data.npz")).open()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04rubbish", b"text"])
def test_a_file_that_holds_no_arrays_is_refused(tmp_path, content):
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(DatasetError, match="cannot be read"):
        ArraysDataset(str(tmp_path / "data.npz")).open()


def test_one_array_alone_is_refused(tmp_path):
    np.save(tmp_path / "data.npy", OBSERVATION)
    with pytest.raises(DatasetError, match="is a single array"):
        ArraysDataset(str(tmp_path / "data.npy")).open()


def test_a_missing_array_is_named(tmp_path):
    np.savez(tmp_path / "data.npz", **ARRAYS)
    with pytest.raises(DatasetError, match=r"no array 'obs' for 'observation'"):
        ArraysDataset(str(tmp_path / "data.npz"), {"observation": "obs"}).open()


@pytest.mark.parametrize(("dataset", "package"), [(ParquetDataset, "pyarrow"), (MinariDataset, "minari")])
def test_a_missing_package_is_named_with_its_extra(dataset, package, monkeypatch):
    for name in [package, f"{package}.parquet"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"{package} is not installed; run: pip install 'policysmith\["):
        dataset("nowhere").open()


@pytest.fixture
def lerobot(tmp_path):
    """A directory in LeRobot's layout, of two files."""
    columns = {
        "episode_index": [0, 0, 0, 1, 1],
        "frame_index": [0, 2, 1, 0, 1],
        "observation.state": [[0.0, 1], [4, 5], [2, 3], [6, 7], [8, 9]],
        "next.reward": [0.0, 1, 2, 3, 4],
        "next.done": [False, True, False, False, True],
        "timestamp": [0.0, 0.2, 0.1, 0.0, 0.1],
    }
    columns["action"] = columns["observation.state"]
    vector = pyarrow.list_(pyarrow.float32(), 2)
    types = {"observation.state": vector, "action": vector, "next.reward": pyarrow.float32()}
    arrays = {name: pyarrow.array(values, types.get(name)) for name, values in columns.items()}
    features = {"observation.state": {"dtype": "float32"}, "observation.images.top": {"dtype": "video"}}
    features |= {name: {"dtype": "float32"} for name in ("action", "next.reward", "timestamp")}
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text(json.dumps({"features": features | {"next.done": {"dtype": "bool"}}}))
    chunk = tmp_path / "data" / "chunk-000"
    chunk.mkdir(parents=True)
    table = pyarrow.table(arrays)
    pyarrow.parquet.write_table(table.slice(0, 4), chunk / "file-000.parquet")
    pyarrow.parquet.write_table(table.slice(4), chunk / "file-001.parquet")
    return tmp_path


def test_parquet_episodes_are_ordered_by_their_frames(lerobot):
    found = ParquetDataset(str(lerobot)).open()
    assert found.lengths.tolist() == [3, 2] and not found.final
    assert found.columns["observation.state"][:, 0].tolist() == [0, 2, 4, 4, 6, 8, 8]
    assert found.columns["reward"][:3].tolist() == [0, 2, 1]
    assert found.columns["observation.state"].dtype == torch.float32
    assert found.columns["terminated"].tolist()[:3] == [False, False, True]
    assert set(found.columns) == {"observation.state", "action", "reward", "terminated"}


def test_lists_of_any_length_and_lists_of_lists_are_read(lerobot):
    """As other writers store vectors and images."""
    file = lerobot / "data" / "chunk-000" / "file-001.parquet"
    table = pyarrow.parquet.read_table(file)
    loose = pyarrow.array([[8.0, 9.0]], pyarrow.list_(pyarrow.float32()))
    pyarrow.parquet.write_table(table.set_column(table.column_names.index("action"), "action", loose), file)
    assert ParquetDataset(str(lerobot)).open().columns["action"].shape == (7, 2)


def test_a_policy_learns_from_parquet_episodes(lerobot):
    spaces = {"observation": {"type": "dict", "spaces": {"state": {"type": "box", "shape": [2]}}}}
    spaces["action"] = {"type": "box", "shape": [2]}
    training = {"type": "offline", "updates": 3, "validation_share": 0, "loggers": []}
    training["dataset"] = {"type": "parquet", "path": str(lerobot)}
    found = api.train_offline({"spaces": spaces, "model": "mlp", "training": training}, progress=False)
    assert found.updates == 3 and np.isfinite(found.metrics["training/loss"])


def test_a_parquet_file_that_is_none_is_named(lerobot):
    (lerobot / "data" / "chunk-000" / "file-001.parquet").write_text("no parquet")
    with pytest.raises(DatasetError, match=r"file-001\.parquet: cannot be read: ArrowInvalid"):
        ParquetDataset(str(lerobot)).open()


def test_parquet_without_its_description_is_refused(lerobot):
    (lerobot / "meta" / "info.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"info.json: cannot be read"):
        ParquetDataset(str(lerobot)).open()
