"""What is stored is held against a schema after its checksum: one who edits it and signs it anew gets one error."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import policysmith
from policysmith.errors import CheckpointError
from policysmith.store.artifact import _checksum
from policysmith.store.json_files import sha256
from policysmith.store.policy_record import decode_record, make_record

VALUES: tuple[Any, ...] = (None, True, -1, 0, 2**70, 1.5, "", "head", "${model}", [], [1], {}, {"a": 1}, [[]])
KNOWN = {  # the findings' own cases: path into the manifest → new value (... removes)
    "no files": (("files",), ...),
    "files a text": (("files",), "head"),
    "a file's record a list": (("files", "model.safetensors"), [1]),
    "no size": (("files", "model.safetensors", "size"), ...),
    "no sha256": (("files", "model.safetensors", "sha256"), ...),
    "a size that is a text": (("files", "config.json", "size"), "${model}"),
    "components a list": (("components",), [1]),
}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("schemas") / "policy"
    config = {"environment": {"id": "CartPole-v1"}, "model": {"type": "mlp", "hidden": [4]}}
    return Path(policysmith.save(policysmith.build(config, seed=0), place) or place)


def places(data: Any, below: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield (*below, key)
        yield from places(value, (*below, key))


def edited(data: Any, place: tuple[Any, ...], value: Any) -> Any:
    data = copy.deepcopy(data)
    around = data
    for key in place[:-1]:
        around = around[key]
    if value is ...:
        del around[place[-1]]
    else:
        around[place[-1]] = value
    return data


def signed(manifest: dict[str, Any]) -> bytes:
    return json.dumps({**manifest, "checksum": _checksum(manifest)}).encode()


def loads_or_is_refused(place: Path) -> None:
    try:
        policysmith.load(place)
    except CheckpointError as error:
        assert str(error)


@pytest.mark.parametrize("name", KNOWN)
def test_an_edited_manifest_is_refused(name, artifact, tmp_path):
    manifest = json.loads((artifact / "manifest.json").read_bytes())
    copied = copied_to(artifact, tmp_path)
    (copied / "manifest.json").write_bytes(signed(edited(manifest, *KNOWN[name])))
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        policysmith.load(copied)


def test_any_edit_of_a_manifest_or_a_configuration_loads_or_is_a_checkpoint_error(artifact, tmp_path):
    copied, draw = copied_to(artifact, tmp_path), random.Random(0)
    manifest = json.loads((artifact / "manifest.json").read_bytes())
    config = json.loads((artifact / "config.json").read_bytes())
    for place in draw.sample([*places(manifest)], 12):
        (copied / "manifest.json").write_bytes(signed(edited(manifest, place, draw.choice([..., *VALUES]))))
        loads_or_is_refused(copied)
    edits = [*places(config)]
    for place in [p for p in edits if len(p) < 3] + draw.sample(edits, 30):
        content = json.dumps(edited(config, place, draw.choice([..., *VALUES]))).encode()
        said = {"size": len(content), "sha256": sha256(content)}
        (copied / "config.json").write_bytes(content)
        (copied / "manifest.json").write_bytes(signed(edited(manifest, ("files", "config.json"), said)))
        loads_or_is_refused(copied)


def test_any_edit_of_a_record_is_a_record_or_a_checkpoint_error():
    record = make_record(
        name="a", step=1, epoch=None, metrics={"return": 1.0}, parents=("b",), config="c", tags=(), sequence=3,
        components={"trunk": {"type": "mlp", "role": None, "parameters": 3, "sha256": "d", "size": 12}},
    )  # fmt: skip
    said = json.loads(record.body)
    assert decode_record(record.id, record.body, "f") == record
    refused = 0
    for place in places(said):
        for value in (..., *VALUES):
            body = json.dumps(edited(said, place, value)).encode()
            try:
                found = decode_record(sha256(body), body, "f")
                assert found.describe() and found.age and found.parameters >= 0 and found.objects is not None
            except CheckpointError:
                refused += 1
    assert refused > 100


def copied_to(artifact: Path, folder: Path) -> Path:
    place = folder / "copy"
    place.mkdir()
    for file in artifact.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    return place
