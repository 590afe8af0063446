"""A directory changes all at once, whatever happens meanwhile."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from policysmith.store import files
from policysmith.store.files import find_directory, replace_directory

OLD, NEW = {"a": b"old", "b": b"old"}, {"a": b"new", "c": b"new"}
OWN = {"a", "b", "c"}

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and forks")


@pytest.fixture(params=["exchange", "renames"])
def way(request, monkeypatch):
    """Both ways in which a directory takes another's place."""
    if request.param == "renames":
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    return request.param


@pytest.fixture
def target(tmp_path, way):
    replace_directory(tmp_path / "runs" / "x", OLD, OWN)
    return tmp_path / "runs" / "x"


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_own_files_are_replaced_and_none_is_left_over(target):
    replace_directory(target, NEW, OWN)
    assert contents(target) == NEW
    assert names(target.parent) == ["x"]


def test_an_empty_directory_becomes_the_new_one(tmp_path, way):
    (tmp_path / "x").mkdir()
    replace_directory(tmp_path / "x", NEW, OWN)
    assert contents(tmp_path / "x") == NEW


def test_other_files_are_the_same_files(target):
    (target / "logs" / "deep").mkdir(parents=True)
    (target / "logs" / "a").write_text("not the artifact's own: deeper")
    (target / "logs" / "deep" / "empty").touch()
    (target / "link").symlink_to("logs/a")
    inode = (target / "logs" / "a").stat().st_ino
    replace_directory(target, NEW, OWN)
    assert (target / "logs" / "a").stat().st_ino == inode and (target / "logs" / "a").stat().st_nlink == 1
    assert (target / "link").readlink() == Path("logs/a")
    assert (target / "logs" / "deep" / "empty").exists()


def test_modes_of_directories_are_kept(target):
    (target / "logs").mkdir()
    target.chmod(0o750)
    (target / "logs").chmod(0o701)
    replace_directory(target, NEW, OWN)
    assert target.stat().st_mode & 0o777 == 0o750 and (target / "logs").stat().st_mode & 0o777 == 0o701


def test_a_new_directory_and_its_files_are_as_readable_as_any(target):
    (target.parent / "plain").mkdir()
    (target.parent / "plain" / "a").touch()
    for name in ("", "a"):
        assert (target / name).stat().st_mode == (target.parent / "plain" / name).stat().st_mode


def test_without_hard_links_other_files_are_copied(target, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "no hard links here")

    (target / "notes").write_text("kept")
    monkeypatch.setattr(os, "link", refuse)
    replace_directory(target, NEW, OWN)
    assert contents(target) == {**NEW, "notes": b"kept"}


def test_a_file_that_comes_in_the_last_moment_is_kept(target, monkeypatch):
    put_in_place = files._put_in_place

    def late(fresh, goal):
        (target / "late").write_text("kept")
        put_in_place(fresh, goal)

    monkeypatch.setattr(files, "_put_in_place", late)
    replace_directory(target, NEW, OWN)
    assert contents(target) == {**NEW, "late": b"kept"}


def test_a_failure_leaves_the_old_directory_and_nothing_else(target, monkeypatch):
    def fail(*_):
        raise OSError("broken")

    (target / "notes").write_text("kept")
    for name in ("write_synced", "_link", "_put_in_place"):
        with monkeypatch.context() as patch:
            patch.setattr(files, name, fail)
            with pytest.raises(OSError, match="broken"):
                replace_directory(target, NEW, OWN)
        assert contents(target) == {**OLD, "notes": b"kept"}
        assert names(target.parent) == ["x"]


def test_a_failed_second_rename_puts_the_old_directory_back(tmp_path, monkeypatch):
    target = tmp_path / "x"
    replace_directory(target, OLD, OWN)
    rename = Path.rename

    def fail(path, goal):
        if ".tmp-" in path.name:
            raise OSError(39, "not empty")
        return rename(path, goal)

    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="not empty"):
        replace_directory(target, NEW, OWN)
    assert contents(target) == OLD and names(tmp_path) == ["x"]


def leftover(target: Path, kind: str, pid: int, life: str = "0123abcd") -> Path:
    path = target.with_name(f".{target.name}.{kind}-{pid}-{life}7")
    path.mkdir()
    (path / "a").write_text(kind)
    return path


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@posix_only
def test_what_dead_processes_left_is_removed_and_what_the_living_need_stays(target):
    dead = [leftover(target, "tmp", dead_pid()), leftover(target, "old", dead_pid())]
    former_life = leftover(target, "tmp", os.getpid(), "0badc0de")
    alive = [leftover(target, "tmp", os.getppid()), leftover(target, "tmp", os.getpid(), files.LIFE)]
    others = [target.with_name(f".y.tmp-{dead_pid()}-0123abcd0"), target.with_name(".x.tmp-mine")]
    for path in others:
        path.mkdir()
    replace_directory(target, NEW, OWN)
    assert not any(path.exists() for path in [*dead, former_life])
    assert all(path.exists() for path in [*alive, *others])


@posix_only
def test_what_was_set_aside_is_found_and_put_back(target):
    (target / "notes").write_text("kept")
    target.rename(target.with_name(f".x.old-{dead_pid()}-0123abcd0"))
    assert contents(find_directory(target)) == {**OLD, "notes": b"kept"}
    replace_directory(target, NEW, OWN)
    assert contents(target) == {**NEW, "notes": b"kept"}
    assert names(target.parent) == ["x"]


def test_a_directory_that_is_there_is_the_one_that_is_found(target, tmp_path):
    leftover(target, "old", dead_pid())
    assert find_directory(target) == target
    assert find_directory(tmp_path / "none") == tmp_path / "none"


CRASHES = """
import os, sys
from pathlib import Path
from policysmith.store import files

OLD, NEW = {"a": b"old", "b": b"old"}, {"a": b"new", "c": b"new"}
OWN, NOTES = {"a", "b", "c"}, {"notes": b"kept", "logs/events": b"kept"}

def contents(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}

def survives(target, last):
    # a child that is killed right before its call number `last` to the system
    pid = os.fork()
    if pid == 0:
        calls = 0
        def count(event, args):
            nonlocal calls
            if event == "open" or event.startswith(("os.", "shutil.", "ctypes.")):
                calls += 1
                if calls == last:
                    os.kill(os.getpid(), 9)
        sys.addaudithook(count)
        files.replace_directory(target, NEW, OWN)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0

for way in ("exchange", "renames"):
    if way == "renames":
        files._exchange = lambda *_: False
    seen = set()
    for calls in range(1, 1000):
        target = Path(sys.argv[1]) / way / "x"
        files.replace_directory(target, OLD, OWN)
        assert os.listdir(target.parent) == ["x"], os.listdir(target.parent)
        for name, content in NOTES.items():
            (target / name).parent.mkdir(exist_ok=True)
            (target / name).write_bytes(content)
        done = survives(target, calls)
        found = contents(files.find_directory(target))
        assert found in ({**OLD, **NOTES}, {**NEW, **NOTES}), (way, calls, found)
        assert way == "renames" or target.exists()
        seen.add(found["a"])
        if done:
            break
    assert seen == {b"old", b"new"} and calls > 20
    print(way, calls)
"""


@posix_only
def test_a_kill_before_any_call_to_the_system_leaves_the_old_or_the_new_whole(tmp_path):
    done = subprocess.run([sys.executable, "-c", CRASHES, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["exchange", "renames"]


KILLS = """
import os, signal, sys, time
from pathlib import Path
import torch
from policysmith.store import TrainingState, load, load_training, save

first, second, target = map(Path, sys.argv[1:4])
policies = [load(first), load(second)]

def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))

def save_step(step):
    save(policies[step % 2], target, training=TrainingState({"step": torch.tensor(step)}, {"step": step}))

def save_forever(pipe):
    for step in range(1_000_000):
        os.write(pipe, b".")
        save_step(step)

save_step(0)
(target / "events").write_text("kept")
started = time.perf_counter()
save_step(0)
duration = time.perf_counter() - started
seen = set()
for moment in map(float, sys.argv[4:]):  # how many saves after the start, and how far into the next
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        save_forever(writing)
    for _ in range(1 + int(moment)):
        os.read(reading, 1)
    time.sleep(moment % 1 * duration)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reading)
    os.close(writing)
    loaded, training = load(target), load_training(target)
    step = training.data["step"]
    assert step == training.tensors["step"].item()
    assert same(loaded, policies[step % 2])
    assert (target / "events").read_text() == "kept"
    seen.add(step)
save(policies[0], target)
assert os.listdir(target.parent) == [target.name], os.listdir(target.parent)
print(len(seen))
"""


@pytest.mark.slow
@posix_only
def test_kill_9_at_thirty_random_moments_of_saving_always_leaves_a_policy_that_loads(build_case, tmp_path):
    from policysmith.store import save

    places = [save(build_case("mlp", noise), tmp_path / str(noise)) for noise in (1, 2)]
    moments = [f"{random.uniform(0, 4):.4f}" for _ in range(30)]
    arguments = [*map(str, places), str(tmp_path / "runs" / "x"), *moments]
    done = subprocess.run([sys.executable, "-c", KILLS, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (moments, done.stderr)
    assert int(done.stdout) > 1  # the kills met saves at different steps


def test_a_file_is_on_the_disk_with_all_that_it_holds_before_it_counts_as_written(monkeypatch, tmp_path):
    """What a power cut would leave can't be tried; that the file itself, whole, was waited for can be."""
    synced = {}
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: synced.update({os.fstat(handle).st_ino: os.fstat(handle).st_size}) or sync(handle)
    )
    files.write_synced(tmp_path / "weights", b"content")
    replace_directory(tmp_path / "artifact", NEW, OWN)
    written = [tmp_path / "weights", *(tmp_path / "artifact").iterdir()]
    assert len(written) == 3 and {f.stat().st_ino: f.stat().st_size for f in written}.items() <= synced.items()
