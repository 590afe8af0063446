"""An artifact is the policy, whole: its weights, statistics, sharing, spaces and what a trainer needs to go on."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch
from gymnasium import spaces

from policysmith.config.migrate import CURRENT_FORMAT
from policysmith.errors import CheckpointError
from policysmith.registry import Registry
from policysmith.store import TrainingState, artifact, files, load, load_training, save


@pytest.fixture
def policy(build_case):
    return build_case("normalized")


def training_state(step: int = 5) -> TrainingState:
    tensors = {
        "rng/torch": torch.get_rng_state(),
        "adam/step": torch.tensor(step),
        "adam/mean": torch.randn(3, 2, dtype=torch.float64),
        "flags": torch.tensor([True, False]),
        "half": torch.randn(2).bfloat16(),
        "none": torch.empty(0, 4),
        "column": torch.arange(6.0).reshape(2, 3).t(),
    }
    return TrainingState(tensors, {"step": step, "best": float("-inf"), "returns": [[1, 2.5], [3, 4.5]], "note": "é"})


def read(file: Path):
    return json.loads(file.read_text())


def same_state(first, second) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def test_a_loaded_policy_has_every_tensor_in_its_dtype(case, build_case, tmp_path):
    policy = build_case(case)
    loaded = load(save(policy, tmp_path / "a"))
    assert same_state(loaded, policy)
    assert not loaded.training
    assert loaded.config == policy.config
    assert loaded.observations.space == policy.observations.space
    assert loaded.actions.space == policy.actions.space


def test_running_statistics_and_float64_counts_are_stored(policy, tmp_path):
    loaded = load(save(policy, tmp_path / "a")).state_dict()
    count = loaded["components.observation_normalizer.count"]
    assert count.dtype == torch.float64 and count.item() == 50
    assert loaded["components.observation_normalizer.mean"].abs().min() > 0


def test_shared_weights_are_stored_once_and_shared_again(build_case, tmp_path):
    policy = build_case("shared")
    loaded = load(save(policy, tmp_path / "a"))
    stored = safetensors.torch.load_file(tmp_path / "a" / "model.safetensors")
    assert sum(tensor.numel() for tensor in stored.values()) == sum(p.numel() for p in policy.parameters())
    assert len(stored) < len(policy.state_dict())
    trunk, twin = (list(loaded.components[name].parameters()) for name in ("trunk", "twin"))
    assert all(a is b for a, b in zip(trunk, twin, strict=True))


def test_saving_and_loading_leave_the_global_generator_alone(build_case, tmp_path):
    policy, training = build_case("hybrid"), training_state()
    before = torch.get_rng_state()
    load(save(policy, tmp_path / "a", training=training))
    load_training(tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_directory_alone_is_enough(policy, tmp_path, monkeypatch):
    save(policy, tmp_path / "a").rename(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    assert same_state(load("b"), policy)


def test_a_saved_policy_goes_on_training_as_it_was(policy, tmp_path):
    policy.train()
    save(policy, tmp_path / "a")
    assert policy.training and all(p.requires_grad for p in policy.parameters())
    assert all(p.requires_grad for p in load(tmp_path / "a").parameters())


def test_two_saves_of_one_policy_are_the_same_bytes(policy, tmp_path):
    first, second = (save(policy, tmp_path / name) for name in "ab")
    assert contents(first) == contents(second)


def test_a_text_with_an_interpolation_in_it_stays_a_text(policy, tmp_path):
    options = {"path": "${env:HOME}", "template": "x"}
    environment = {"id": "CartPole-v1", "options": options}
    policy.config = {**policy.config, "environment": environment}
    assert load(save(policy, tmp_path / "a")).config["environment"]["options"] == options


def test_config_json_says_what_was_saved_by_what(policy, tmp_path):
    file = save(policy, tmp_path / "a") / "config.json"
    config = read(file)
    spaces_and_readings = ["observation_space", "action_space", "readings"]
    assert list(config) == ["format", "policysmith", "versions", *spaces_and_readings, "experiment"]
    assert config["format"] == CURRENT_FORMAT
    assert list(config["versions"]) == ["torch", "tensordict", "gymnasium", "python"]
    assert config["experiment"] == policy.config
    assert file.read_bytes().endswith(b"}\n")


def test_the_manifest_describes_files_and_components(build_case, tmp_path):
    directory = save(build_case("shared"), tmp_path / "a")
    manifest = read(directory / "manifest.json")
    assert set(manifest["files"]) == {"config.json", "model.safetensors"}
    components = manifest["components"]
    assert {name: c["type"] for name, c in components.items()} == {
        "trunk": "mlp", "twin": "mlp", "policy": "action_head", "state_value": "value_head",
    }  # fmt: skip
    assert components["policy"]["role"] == "policy" and components["trunk"]["role"] is None
    assert components["trunk"]["parameters"] == 4 * 8 + 8
    assert components["twin"]["shares"] == "trunk"
    assert components["twin"]["sha256"] == components["trunk"]["sha256"]
    assert manifest["experts"] == {}


def test_a_components_hash_is_that_of_its_weights(policy, tmp_path):
    def hashes(name):
        return {n: c["sha256"] for n, c in read(save(policy, tmp_path / name) / "manifest.json")["components"].items()}

    before = hashes("a")
    with torch.no_grad():
        next(policy.components["actor"].parameters()).mul_(1.5)
    after = hashes("b")
    assert before["actor"] != after["actor"]
    assert all(before[name] == after[name] for name in before if name != "actor")


def test_a_training_state_comes_back_exactly(policy, tmp_path):
    state = training_state()
    loaded = load_training(save(policy, tmp_path / "a", training=state))
    assert loaded.data == state.data
    assert loaded.tensors.keys() == state.tensors.keys()
    for name, tensor in state.tensors.items():
        assert loaded.tensors[name].dtype == tensor.dtype and torch.equal(loaded.tensors[name], tensor)


def test_without_a_training_state_there_is_none(policy, tmp_path):
    assert load_training(save(policy, tmp_path / "a")) is None


def test_a_new_artifact_does_not_keep_the_old_training_state(policy, tmp_path):
    save(policy, tmp_path / "a", training=training_state())
    save(policy, tmp_path / "a")
    assert names(tmp_path / "a") == ["config.json", "manifest.json", "model.safetensors"]
    assert load_training(tmp_path / "a") is None


def test_missing_parents_are_made_and_the_given_path_returned(policy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert save(policy, "runs/today/a") == Path("runs/today/a")
    assert same_state(load(Path("runs/today/a")), policy)


def test_files_of_others_stay_in_the_directory(policy, build_case, tmp_path):
    directory = save(policy, tmp_path / "a")
    (directory / "learning_curve.png").write_bytes(b"png")
    (directory / "logs").mkdir()
    with (directory / "logs" / "events").open("a") as log:
        log.write("one\n")
        inode = os.fstat(log.fileno()).st_ino
        other = build_case("normalized", 2)
        save(other, directory)
        log.write("two\n")
    assert (directory / "logs" / "events").read_text() == "one\ntwo\n"
    assert (directory / "logs" / "events").stat().st_ino == inode
    assert (directory / "learning_curve.png").read_bytes() == b"png"
    assert same_state(load(directory), other)
    assert names(tmp_path) == ["a"]


def test_an_artifact_that_a_killed_process_had_set_aside_is_loaded(policy, tmp_path):
    save(policy, tmp_path / "a", training=training_state()).rename(tmp_path / ".a.old-999999999-0123abcd0")
    assert same_state(load(tmp_path / "a"), policy)
    assert load_training(tmp_path / "a").data["step"] == 5


@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_loading_while_another_saves_gives_one_of_the_two(build_case, tmp_path, monkeypatch, way):
    if way == "renames":
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    policies = [build_case("mlp", noise) for noise in (1, 2)]
    save(policies[0], tmp_path / "a", training=training_state(0))
    done = threading.Event()

    def write():
        for step in range(60):
            save(policies[step % 2], tmp_path / "a", training=training_state(step))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    loads = 0
    while not done.is_set() or loads < 5:
        loaded = load(tmp_path / "a")
        assert any(same_state(loaded, policy) for policy in policies)
        state = load_training(tmp_path / "a")
        assert state.data["step"] == state.tensors["adam/step"].item()
        loads += 1
    writer.join()


# What is refused, with the place, the reason and the remedy; and nothing is touched.


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def refusal(action, *arguments, **options) -> str:
    with pytest.raises(CheckpointError) as caught:
        action(*arguments, **options)
    return str(caught.value)


def seal(directory: Path) -> None:
    """Make the manifest say that the files are as they should be."""
    manifest = read(directory / "manifest.json")
    for name, record in manifest["files"].items():
        content = (directory / name).read_bytes()
        record.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    manifest["checksum"] = artifact._checksum(manifest)
    (directory / "manifest.json").write_text(json.dumps(manifest))


def edit(directory: Path, **changes) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps({k: v for k, v in {**read(file), **changes}.items() if v is not None}))
    seal(directory)


@pytest.fixture
def stored(policy, tmp_path):
    return save(policy, tmp_path / "stored", training=training_state())


def test_a_directory_of_something_else_is_refused_and_left_as_it_is(policy, tmp_path):
    for name, file in {"a": "thesis.tex", "b": "config.json", "c": ".hidden"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("precious")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "manifest.json").write_text('{"name": "a browser extension"}')
    before = contents(tmp_path)
    for name in "abcd":
        message = refusal(save, policy, tmp_path / name)
        assert str(tmp_path / name) in message and "choose another directory" in message
    assert contents(tmp_path) == before and names(tmp_path) == list("abcd")


def test_a_file_in_the_place_of_a_directory_is_refused(policy, tmp_path):
    (tmp_path / "a").write_text("precious")
    assert "is a file" in refusal(save, policy, tmp_path / "a")
    assert (tmp_path / "a").read_text() == "precious"


def test_the_working_directory_is_not_replaced(policy, stored, monkeypatch):
    (stored / "logs").mkdir()
    monkeypatch.chdir(stored / "logs")
    for place in (stored, ".", ".."):
        assert "working directory" in refusal(save, policy, place)


def test_an_empty_directory_and_a_damaged_artifact_are_replaced(policy, stored, tmp_path):
    (tmp_path / "empty").mkdir()
    assert same_state(load(save(policy, tmp_path / "empty")), policy)
    (stored / "model.safetensors").write_bytes(b"")
    assert same_state(load(save(policy, stored)), policy)


def test_a_symbolic_link_stays_one(policy, stored, tmp_path):
    (tmp_path / "latest").symlink_to("stored")
    save(policy, tmp_path / "latest")
    assert (tmp_path / "latest").is_symlink()
    assert load_training(tmp_path / "latest") is load_training(stored) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_parent_without_permission_is_a_checkpoint_error(policy, stored, tmp_path):
    before = contents(tmp_path)
    tmp_path.chmod(0o500)
    try:
        assert "cannot be written" in refusal(save, policy, stored)
    finally:
        tmp_path.chmod(0o700)
    assert contents(tmp_path) == before


def test_a_full_disk_is_a_checkpoint_error_and_leaves_the_old_artifact(policy, stored, tmp_path, monkeypatch):
    before = contents(tmp_path)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in refusal(save, policy, stored)
    assert contents(tmp_path) == before and names(tmp_path) == ["stored"]


def test_a_policy_that_could_not_be_loaded_again_is_not_saved(policy, stored):
    before = contents(stored)
    message = refusal(save, policy.double(), stored)
    assert (
        "components.actor.layers.0.weight: float64 (8, 4), expected float32 (8, 4)" in message or "float64" in message
    )
    assert contents(stored) == before


def test_a_component_of_another_shape_is_named_when_saved(build_case, tmp_path):
    policy = build_case("mlp")
    layer = next(m for m in policy.components["actor"].modules() if isinstance(m, torch.nn.Linear))
    layer.weight = torch.nn.Parameter(torch.zeros(5, 4))
    message = refusal(save, policy, tmp_path / "a")
    assert "components.actor." in message and "float32 (5, 4), expected float32 (64, 4)" in message
    assert not (tmp_path / "a").exists()


def test_a_policy_without_its_configuration_is_not_saved(policy, tmp_path):
    policy.config = {}
    assert "policysmith.build" in refusal(save, policy, tmp_path / "a")


def test_data_that_json_cannot_hold_is_named(policy, tmp_path):
    state = TrainingState({}, {"log": [{"best": torch.ones(1)}]})
    assert "training_state.json.log.0.best" in refusal(save, policy, tmp_path / "a", training=state)
    assert "key 3" in refusal(save, policy, tmp_path / "a", training=TrainingState({}, {"log": {3: 1}}))


@pytest.mark.parametrize("tensor", [torch.zeros(1, dtype=torch.complex128), torch.zeros(2, 2).to_sparse(), 1.0])
def test_tensors_that_safetensors_cannot_hold_are_refused(policy, tmp_path, tensor):
    message = refusal(save, policy, tmp_path / "a", training=TrainingState({"x": tensor}, {}))
    assert "complex128" in message or "x: only plain tensors" in message


def test_a_space_that_cannot_be_stored_is_refused(policy, tmp_path):
    policy.observations.space = spaces.Sequence(spaces.Discrete(2))
    assert "Sequence" in refusal(save, policy, tmp_path / "a")


def test_what_is_no_artifact_says_so(tmp_path):
    assert "no such directory" in refusal(load, tmp_path / "nothing")
    (tmp_path / "policy.pt").write_bytes(b"\x80\x02")
    assert "is a file" in refusal(load, tmp_path / "policy.pt")
    assert "holds no manifest.json" in refusal(load_training, tmp_path)


def test_a_missing_file_is_named(stored):
    for name in ("config.json", "model.safetensors", "optimizer.safetensors", "training_state.json"):
        hidden = (stored / name).rename(stored / "away")
        action = load_training if name[0] in "ot" else load
        message = refusal(action, stored)
        assert str(stored / name) in message and "is missing" in message
        hidden.rename(stored / name)
    assert load(stored) and load_training(stored)


def test_a_flipped_bit_in_any_byte_of_the_manifest_is_noticed(stored):
    file = stored / "manifest.json"
    original = file.read_bytes()
    for position in range(len(original)):
        damaged = bytearray(original)
        damaged[position] ^= 1 << position % 8
        file.write_bytes(damaged)
        refusal(artifact._manifest, stored)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "optimizer.safetensors", "training_state.json"])
def test_a_flipped_bit_or_a_lost_end_is_noticed_in_every_file(stored, name):
    file, action = stored / name, load_training if name[0] in "ot" else load
    original = file.read_bytes()
    for position in {0, 7, 8, 9, *range(0, len(original), len(original) // 25), len(original) - 1}:
        damaged = bytearray(original)
        damaged[position] ^= 1 << position % 8
        file.write_bytes(damaged)
        message = refusal(action, stored)
        assert str(file) in message and "restore it from a copy" in message
    for size in (0, 4, len(original) // 2, len(original) - 1):
        file.write_bytes(original[:size])
        assert f"{size:,} bytes" in refusal(action, stored)
    assert file.read_bytes() == original[:-1]


def test_unreadable_json_is_refused_even_if_the_manifest_vouches_for_it(stored):
    for text in (b"{", b"[]", b"\xff\xfe", b"[" * 100_000):
        (stored / "config.json").write_bytes(text)
        seal(stored)
        assert f"{stored / 'config.json'}: is damaged" in refusal(load, stored)


def test_a_newer_format_names_the_remedy(stored):
    edit(stored, format=CURRENT_FORMAT + 1)
    assert "pip install --upgrade policysmith" in refusal(load, stored)
    edit(stored, format=CURRENT_FORMAT, experiment={**read(stored / "config.json")["experiment"], "format": 99})
    assert "format 99 is newer" in refusal(load, stored)
    manifest = {**read(stored / "manifest.json"), "format": CURRENT_FORMAT + 1}
    (stored / "manifest.json").write_text(json.dumps(manifest))
    assert "manifest.json: format 2 is newer" in refusal(load_training, stored)


def test_a_config_that_cannot_be_built_says_why(stored):
    original = read(stored / "config.json")
    edit(stored, experiment={**original["experiment"], "model": {"type": "resnat"}})
    message = refusal(load, stored)
    assert str(stored / "config.json") in message and "unknown model 'resnat'" in message
    assert "register the types of your own" in message
    edit(stored, experiment=original["experiment"], action_space={"type": "Graph"})
    assert "unknown type of space 'Graph'" in refusal(load, stored)
    edit(stored, action_space=None)
    assert "'action_space'" in refusal(load, stored)


def test_types_are_looked_up_in_the_registry_that_is_given(stored):
    assert "unknown model 'mlp'" in refusal(load, stored, registry=Registry())


def test_weights_that_do_not_fit_are_listed(policy, stored):
    file = stored / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    first, second, third, *_ = sorted(name for name in tensors if name.endswith("weight"))
    tensors["components.stranger"] = tensors.pop(first)
    tensors[second] = tensors[second][:, :1].contiguous()
    tensors[third] = tensors[third].half()
    safetensors.torch.save_file(tensors, file)
    seal(stored)
    message = refusal(load, stored)
    assert str(file) in message
    assert f"{first}: missing" in message and "components.stranger: unexpected" in message
    shape, narrow = tuple(policy.state_dict()[second].shape), tuple(tensors[second].shape)
    assert f"{second}: float32 {narrow}, expected float32 {shape}" in message
    assert f"{third}: float16" in message


def test_a_weight_file_in_another_format_is_refused(stored):
    torch.save({}, stored / "model.safetensors")
    seal(stored)
    assert "no safetensors file" in refusal(load, stored)


def test_shared_weights_load_from_either_name(build_case, tmp_path):
    policy = build_case("shared")
    directory = save(policy, tmp_path / "a")
    file = directory / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    names = {"trunk", "twin"}
    used = {name.split(".")[1] for name in tensors} & names
    (used_name,), (other,) = used, names - used
    renamed = {name.replace(f".{used_name}.", f".{other}."): tensor for name, tensor in tensors.items()}
    safetensors.torch.save_file(renamed, file)
    seal(directory)
    assert same_state(load(directory), policy)
