"""A store gives back what was saved, by the selector that means it, and tells of every damage."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
import torch

from policysmith.errors import CheckpointError, MissingExtraError
from policysmith.registry import Registry
from policysmith.store import PolicyStore, artifact, store_uri
from policysmith.store import policy_record as records
from policysmith.store.policy_record import FORMAT
from tests.store.workers import OBSERVATIONS, small_policy


@pytest.fixture(params=["local", "memory"])
def uri(request, tmp_path):
    """A store of each kind, which is not there yet."""
    if request.param == "memory":
        import fsspec

        fsspec.filesystem("memory").store.clear()
        return f"memory://{tmp_path.name}/policies"
    return str(tmp_path / "policies")


@pytest.fixture
def store(uri):
    return PolicyStore(uri)


@pytest.fixture
def local(tmp_path):
    return PolicyStore(tmp_path / "policies")


@pytest.fixture(scope="module")
def policy():
    return small_policy(0.5)


def refusal(action, *arguments, **options) -> str:
    with pytest.raises(CheckpointError) as caught:
        action(*arguments, **options)
    return str(caught.value)


def fill(store, policy):
    """Four policies of two names; the third has a NaN."""
    for step, (name, value) in enumerate([("cart", 1.0), ("cart", 3.0), ("pole", float("nan")), ("pole", 2.0)]):
        store.save(policy, name=name, step=step, metrics={"return": value, "loss": -value}, tags=[f"tag-{step % 2}"])


def steps(store, selector, **options):
    return [record.step for record in store.find(selector, **options)]


def same_weights(first, second) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def test_a_loaded_policy_is_the_one_saved(case, build_case, store):
    policy = build_case(case)
    record = store.save(policy, name="any")
    loaded = PolicyStore(store.uri).load(record.short)
    assert same_weights(loaded, policy) and not loaded.training
    assert loaded.config == policy.config
    assert loaded.observations.space == policy.observations.space


def test_a_store_and_an_artifact_hold_the_same(store, policy, tmp_path):
    """One way in and out: what an artifact says of a policy, the store says too."""
    store.save(policy, name="any")
    other = artifact.load(artifact.save(policy, tmp_path / "artifact"))
    loaded = store.load()
    assert same_weights(loaded, other) and loaded.config == other.config
    assert torch.equal(loaded(OBSERVATIONS)[0], policy(OBSERVATIONS)[0])


def test_a_record_says_what_was_saved(store, policy):
    parent = store.save(policy, name="first")
    record = store.save(
        policy,
        name="runs/second",
        step=10,
        epoch=2,
        metrics={"return": torch.tensor(1.5)},
        tags=["b", "a"],
        parents=[parent],
    )
    (found,) = store.find("id:" + record.id)
    assert found == record
    assert (found.name, found.step, found.epoch, found.tags) == ("runs/second", 10, 2, ("a", "b"))
    assert found.metrics == {"return": 1.5} and found.parents == (parent.id,)
    assert found.format == FORMAT == json.loads(found.body)["format"]
    assert found.parameters == sum(p.numel() for p in policy.parameters())
    assert found.policysmith and found.config == parent.config
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.name = "other"


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        ("all", [3, 2, 1, 0]), ("latest", [3]), ("latest:2", [3, 2]), ("best:return", [1]), ("best:-return", [0]),
        ("best:loss", [0]), ("top:2:return", [1, 3]), ("top:9:-return", [0, 3, 1]), ("name:cart", [1, 0]),
        ("cart", [1, 0]), ("tag:tag-0", [2, 0]), ("latest,name:cart", [1]), ("best:return,tag:tag-0", [0]),
        ("tag:tag-1, best:-return", [3]), ("rand:9", None), ("best:nothing", []), ("name:car", []), ("tag:x", []),
    ],
)  # fmt: skip
def test_selectors_mean_what_they_say(store, policy, selector, wanted):
    fill(store, policy)
    found = steps(store, selector)
    assert sorted(found) == [0, 1, 2, 3] if wanted is None else found == wanted
    assert steps(PolicyStore(store.uri), selector, seed=0) == steps(store, selector, seed=0)


def test_the_latest_is_the_last_saved_whatever_the_clock_says(store, policy, monkeypatch):
    """A clock that goes back, by another machine or a dead battery, does not make an old policy the latest."""
    for step in (1, 2):
        store.save(policy, name="a", step=step, metrics={"return": 1.0})

    class Earlier(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime(1999, 1, 1, tzinfo=zone)

    monkeypatch.setattr(records, "datetime", Earlier)
    last = store.save(policy, name="a", step=3, metrics={"return": 1.0})
    assert last.created.year == 1999 and last.sequence == 3
    for selector in ("latest", "best:return", "latest,name:a"):  # of equal metrics the latest is the best
        assert store.get(selector).step == 3
    assert [found.step for found in PolicyStore(store.uri).find("all")] == [3, 2, 1]
    assert PolicyStore(store.uri).verify() == []


def test_records_of_earlier_versions_are_older_than_all_with_a_sequence(local, policy, monkeypatch):
    made = records.json_bytes
    with monkeypatch.context() as patch:
        old = {"sequence"}
        patch.setattr(records, "json_bytes", lambda said, what: made({k: said[k] for k in said if k not in old}, what))
        for step in (1, 2):
            assert local.save(policy, name="a", step=step).sequence == 0
    assert local.save(policy, name="a", step=3).sequence == 1
    assert [found.step for found in local.find("all")] == [3, 2, 1]


def test_an_index_of_an_earlier_version_is_built_again(local, policy):
    local.save(policy, name="a", step=1)
    with closing(sqlite3.connect(Path(local.uri) / "index.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 1")
    fresh = PolicyStore(local.uri)
    assert fresh.save(policy, name="a", step=2).sequence == 2
    assert fresh.get("latest").step == 2


def test_filters_narrow_a_selector(store, policy):
    fill(store, policy)
    assert steps(store, "best:return", name="pole") == [3]
    assert steps(store, "all", tag="tag-0") == [2, 0]


def test_random_ones_are_drawn_alike_by_a_seed_and_all_can_come(store, policy):
    fill(store, policy)
    drawn = [steps(store, "rand", seed=seed) for seed in range(20)]
    assert drawn == [steps(store, "rand", seed=seed) for seed in range(20)]
    assert {step for (step,) in drawn} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ("best", "it names no metric"), ("top:0:return", "'0' is no count"), ("top:return", "'return' is no count"),
        ("tag:", "nothing stands after 'tag:'"), ("id:xyz", "not the beginning of a hash"), ("", "part of it is empty"),
        ("bset:return", "unknown 'bset' (did you mean 'best'?)"), ("latest,best:x", "'best:x' is a second order"),
        ("a,b", "'b' is a second name"), ("all:3", "takes nothing"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_selector_is_explained(local, selector, said):
    message = refusal(local.find, selector)
    assert said in message and "best:METRIC" in message


def test_none_and_several_are_one_error_that_names_what_there_is(store, policy):
    assert "there is no store of policies" in refusal(store.load)
    fill(store, policy)
    message = refusal(store.load, "cart")
    assert "means 2 policies" in message and "step 1" in message and "'latest,cart'" in message
    message = refusal(store.load, "best:retrun")
    assert "no policy" in message and "metrics: loss, return (did you mean 'return'?)" in message
    assert "names: cart, pole" in message and "tags: tag-0, tag-1" in message
    assert "(did you mean 'cart'?)" in refusal(store.load, "name:carf")


def test_a_name_that_looks_like_a_hash_is_told_from_one(store, policy):
    record = store.save(policy, name="cafe")
    assert store.get("cafe") == record == store.get(record.id[:8]) == store.get(record)


def test_tags_come_and_go(store, policy):
    fill(store, policy)
    (tagged,) = store.tag("best:return", "good", "kept")
    assert tagged.tags == ("good", "kept", "tag-1") == store.get("tag:good").tags
    assert store.untag("tag:good", "good", "never")[0].tags == ("kept", "tag-1") == store.get("tag:kept").tags
    assert store.find("tag:good") == [] and store.verify() == []
    assert steps(PolicyStore(store.uri), "tag:kept") == [1]


def test_removed_policies_are_gone_and_gc_frees_only_what_no_other_uses(store, policy):
    fill(store, policy)
    other = store.save(small_policy(7), name="other")
    store.load(other)
    assert [r.id for r in store.remove("other")] == [other.id]
    assert "no policy" in refusal(store.load, other.id) and len(store.find()) == 4
    planned = store.gc(grace=0, dry_run=True)
    assert planned == store.gc(grace=0) and len(planned.files) == 1, "the trunk and the value head are shared"
    assert store.gc(grace=0).files == () and store.verify() == []
    assert same_weights(PolicyStore(store.uri).load(), policy)


def test_gc_spares_what_is_young_where_there_are_no_locks(policy):
    store = PolicyStore("memory://young/policies")
    store.remove(store.save(policy, name="a"))
    assert store.gc().files == ()
    assert len(store.gc(grace=0).files) == 4


def test_policies_share_what_is_the_same(local, policy, build_case):
    for value in range(5):
        local.save(small_policy(value), name="a", step=value)
    assert len(list((local._storage.root / "objects").rglob("*.safetensors"))) == 5 + 2
    assert len(list((local._storage.root / "objects").rglob("*.json"))) == 1
    record = local.save(build_case("shared"), name="b")
    assert len(record.objects) == 3, "the twin has the trunk's"


def test_nothing_on_disk_is_a_pickle(local, policy):
    local.save(policy, name="a", tags=["b"])
    kinds = {path.suffix for path in local._storage.root.rglob("*") if path.is_file() and path.parent.name != "locks"}
    assert kinds == {".json", ".safetensors", ".sqlite", ""}


def test_what_a_load_gives_is_the_callers_alone(store, policy):
    store.save(policy, name="a")
    first = store.load()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert same_weights(store.load(), policy)


def test_the_cache_is_bounded_and_drops_what_was_not_asked_for(uri, policy):
    store = PolicyStore(uri, cache_size=2)
    a, b, c = (store.save(policy, name=name) for name in "abc")
    for record in (a, b, a, c):
        store.load(record)
    assert list(store._cache._found) == [a.id, c.id]
    none = PolicyStore(uri, cache_size=0)
    none.load(a)
    assert len(none._cache) == 0


def test_lineage_goes_back_to_the_first(store, policy):
    first = store.save(policy, name="a")
    second = store.save(policy, name="b", parents=[first.short])
    third = store.save(policy, name="c", parents=["name:b", first])
    assert [r.name for r in store.lineage("name:c")] == ["c", "b", "a"]
    store.remove(second)
    assert [r.name for r in store.lineage(third)] == ["c", "a"]


def test_a_difference_names_what_changed(store, policy, build_case):
    first = store.save(policy, name="a", metrics={"return": 1})
    second = store.save(small_policy(0.75), name="a", metrics={"return": 2}, tags=["x"])
    diff = store.diff(first, second)
    assert diff.components == {"trunk": "same", "policy": 0.25, "state_value": "same"} and not diff.same
    assert diff.said == {"tags": ((), ("x",)), "metrics.return": (1.0, 2.0)} and diff.config == {}
    assert store.diff(first, first).same
    other = store.diff(first, store.save(build_case("shared"), name="b"))
    assert other.components["twin"] == "added" and "observation_space.high" in other.config
    changed = build_case("shared", noise=2)
    pair = store.diff("name:b", store.save(changed, name="c"))
    assert pair.components["trunk"] == pair.components["twin"] != "same"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "a b"}, "can't be named 'a b'"), ({"name": "a", "tags": ["a:b"]}, "'a:b' can't be a tag"),
        ({"name": "a", "tags": "good"}, "write ['good']"), ({"name": "a", "metrics": {"x": "y"}}, "metrics.x: 'y'"),
        ({"name": "a", "metrics": {"a b": 1}}, "can't be named 'a b'"), ({"name": "a", "parents": ["?"]}, "no store"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_before_anything_is_written(local, policy, options, said):
    assert said in refusal(local.save, policy, **options)
    assert not local._storage.root.exists()


def test_a_directory_of_other_things_is_left_alone(tmp_path, policy):
    (tmp_path / "notes").write_text("mine")
    assert "holds files but no store" in refusal(PolicyStore(tmp_path).save, policy, name="a")
    assert [p.name for p in tmp_path.iterdir()] == ["notes"]


def test_types_of_a_registry_are_needed_to_load(local, policy):
    local.save(policy, name="a")
    assert "cannot be built here" in refusal(PolicyStore(local.uri, registry=Registry()).load)


def test_a_newer_record_is_refused_with_what_to_do(local, policy, monkeypatch):
    monkeypatch.setattr("policysmith.store.policy_record.FORMAT", 2)
    record = local.save(policy, name="a")
    monkeypatch.undo()
    message = refusal(PolicyStore(local.uri)._read, record.id)
    assert "a record of format 2, and this policysmith knows up to 1; pip install --upgrade policysmith" in message


@pytest.mark.parametrize("scheme", ["s3", "gs", "hf"])
def test_a_missing_package_says_what_to_install(scheme, monkeypatch):
    def absent(uri):
        raise ImportError("Install it")

    monkeypatch.setattr("fsspec.core.url_to_fs", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'policysmith\[store\]'"):
        PolicyStore(f"{scheme}://bucket/policies")


def test_an_unknown_scheme_is_refused():
    assert "s3://, gs://, hf:// and memory:// are known" in refusal(PolicyStore, "nowhere://x/y")


class TestIndex:
    """The index follows from the records: whatever happens to it, the answers stay."""

    @pytest.mark.parametrize(
        "damage", ["gone", "empty", "header", "middle", "halved", "no table", "other version", "text"]
    )
    def test_a_damaged_index_is_rebuilt_unasked(self, local, policy, damage):
        fill(local, policy)
        file = local._storage.root / "index.sqlite"
        content = bytearray(file.read_bytes())
        if damage in ("no table", "other version"):
            connection = sqlite3.connect(file)
            connection.execute("DROP TABLE metrics" if damage == "no table" else "PRAGMA user_version = 99")
            connection.commit()
            connection.close()
        elif damage == "gone":
            file.unlink()
        else:
            content[:16] = b"x" * 16 if damage == "header" else content[:16]
            content[4096:] = b"\xff" * (len(content) - 4096) if damage == "middle" else content[4096:]
            content = content.replace(b'"name": "cart"', b'"name": "tarc"') if damage == "text" else content
            file.write_bytes({"empty": b"", "halved": bytes(content[: len(content) // 2])}.get(damage, bytes(content)))
        again = PolicyStore(local.uri)
        assert again.verify() != []
        assert steps(again, "top:2:return") == [1, 3] and steps(again, "all") == [3, 2, 1, 0]
        again.save(policy, name="new", step=9)
        assert steps(PolicyStore(local.uri), "latest") == [9]
        assert again.verify() == []

    def test_saving_mends_a_damaged_index_too(self, local, policy):
        fill(local, policy)
        (local._storage.root / "index.sqlite").write_bytes(b"x" * 10_000)
        PolicyStore(local.uri).save(policy, name="new", step=9)
        assert steps(local, "all") == [9, 3, 2, 1, 0] and local.verify() == []

    def test_records_that_came_without_the_index_are_found(self, local, policy, tmp_path):
        """As when files are copied from one store into another."""
        fill(local, policy)
        other = PolicyStore(tmp_path / "other")
        record = other.save(policy, name="copied", tags=["far"])
        for name in [name for folder in ("objects", "tags", "records") for name in other._storage.names(folder)]:
            local._storage.write(name, other._storage.read(name))
        assert PolicyStore(local.uri).get("tag:far") == record

    def test_verify_tells_of_an_index_that_says_something_else(self, local, policy):
        fill(local, policy)
        connection = sqlite3.connect(local._storage.root / "index.sqlite")
        connection.execute("UPDATE metrics SET value = 99 WHERE value = 1")
        connection.commit()
        connection.close()
        (problem,) = local.verify()
        assert "'metrics' is not what the records say" in problem.reason and "reindex" in problem.reason
        assert local.reindex() == 4 and local.verify() == []

    def test_a_store_that_may_only_be_read_is_read_without_an_index(self, local, policy, monkeypatch):
        fill(local, policy)
        monkeypatch.setattr(store_uri.os, "access", lambda *_: False)
        readonly = PolicyStore(local.uri)
        before = sorted(p.stat().st_mtime_ns for p in local._storage.root.rglob("*"))
        assert steps(readonly, "best:return") == [1] and same_weights(readonly.load("best:return"), policy)
        assert sorted(p.stat().st_mtime_ns for p in local._storage.root.rglob("*")) == before


class TestDamage:
    """A bit or a byte that is not as it was written: `verify` names the file, and so does a load that needs it."""

    @pytest.mark.parametrize("damage", ["bit", "byte less", "emptied", "removed"])
    def test_every_file_that_is_damaged_is_named(self, local, policy, damage):
        record = local.save(policy, name="a", tags=["good"])
        names = ["store.json", *(n for folder in ("records", "tags", "objects") for n in local._storage.names(folder))]
        assert len(names) == 1 + 1 + 1 + 4
        for name in names:
            file = local._storage.root / name
            whole = file.read_bytes()
            self._damage(file, whole, damage)
            problems = PolicyStore(local.uri).verify()
            if damage == "removed" and name.startswith(("records", "tags")):  # nobody knows of them any more
                assert problems == []
            else:
                assert [problem.file for problem in problems if "index" not in problem.file] == [str(file)]
            if not name.startswith("tags"):  # a tag's file says no more than its name
                message = refusal(PolicyStore(local.uri).load, record.id)
                assert str(file) in message or damage == "removed"
            file.write_bytes(whole)
        assert PolicyStore(local.uri).verify() == [] and same_weights(local.load(record), policy)

    def _damage(self, file, whole, damage):
        if damage == "removed":
            file.unlink()
            return
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :]
        file.write_bytes({"bit": flipped, "byte less": whole[:-1], "emptied": b""}[damage])

    def test_a_save_puts_right_a_damaged_file_that_it_shares(self, local, policy):
        local.save(policy, name="a")
        file = next((local._storage.root / "objects").rglob("*.safetensors"))
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        assert local.verify() != []
        local.save(policy, name="b")
        assert local.verify() == []

    def test_gc_refuses_to_guess_what_a_damaged_record_used(self, local, policy):
        local.save(policy, name="a")
        record = local.save(small_policy(3), name="b")
        (local._storage.root / "records" / f"{record.id}.json").write_bytes(b"{}")
        assert record.id in refusal(local.gc)
        assert len(list((local._storage.root / "objects").rglob("*.safetensors"))) == 4

    def test_damage_in_a_remote_store_is_named_too(self, policy, caplog):
        import fsspec

        store = PolicyStore("memory://damage/policies")
        record = store.save(policy, name="a")
        files = fsspec.filesystem("memory")
        name = store._objects.name(record.components["trunk"]["sha256"], ".safetensors")
        files.pipe_file(f"/damage/policies/{name}", b"short")
        assert name in refusal(PolicyStore(store.uri).load) and len(store.verify()) == 1
        files.pipe_file(f"/damage/policies/records/{record.id}.json", b"{}")
        assert PolicyStore(store.uri).find() == [] and record.id in caplog.text
        assert len(store.verify()) >= 1
