"""The library in many processes, and killed at every step: nothing is lost, and who comes next finds it whole."""

import json
import multiprocessing
import sqlite3

import pytest

from policysmith.errors import SkillError
from policysmith.skills import SkillLibrary, load_expert
from policysmith.skills.experts.expert_versions import version_folder

from . import library_workers
from .library_workers import finished, prepared, trained, value_of

EVERY_MOMENT = 200  # more steps than any of these takes


@pytest.fixture(scope="module")
def processes():
    return multiprocessing.get_context("fork")  # an interpreter of its own takes seconds to import torch


@pytest.fixture
def library(tmp_path):
    return SkillLibrary(tmp_path / "library")


def together(processes, work, arguments):
    """Run it at once in as many processes; → exit codes."""
    running = [processes.Process(target=work, args=given) for given in arguments]
    for process in running:
        process.start()
    for process in running:
        process.join(120)
    return [process.exitcode for process in running]


def two_runs(library):
    """Two runs that both continue the expert of Wood."""
    trained(library, "Wood", 1.0, frames=100)
    runs = [prepared(library, name, ["Wood"], train=["Wood"]) for name in ("Table", "Fire")]
    for run, value, used in zip(runs, (3.0, 5.0), (60, 80), strict=True):
        finished(run, dict.fromkeys(run.trained, value), used)
    return [run.run_folder for run in runs]


def dump(library):
    """Every row of the index."""
    with sqlite3.connect(library.root / "library.sqlite") as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr) for table in tables}
    connection.close()
    return found


def check_whole(library):
    """The index is what the files say, every version can be read, and each head is one of them."""
    before = dump(library)
    library.rebuild()
    assert dump(library) == before and not before["pending"]
    for skill in library.skills():
        records = library.versions(skill.name)
        for record in records:
            assert load_expert(version_folder(library.folder_of(skill.name), record.version)).version == record.version
        if skill.head is not None:
            assert load_expert(library.folder_of(skill.name)).version == skill.head
            assert skill.head in {record.version for record in records}


def test_processes_that_register_at_once_agree(processes, library, tmp_path):
    names = [f"Skill {i}" for i in range(6)]
    orders = [(library.root, order, tmp_path / f"{i}.json") for i, order in enumerate((names, names[::-1]))]
    assert together(processes, library_workers.register, orders) == [0, 0]
    first, second = (json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2))
    assert first == second and sorted(first.values()) == list(range(6))


def test_two_runs_that_continue_one_expert_both_survive(processes, library):
    runs = two_runs(library)
    assert together(processes, library_workers.process, [(library.root, run) for run in runs]) == [0, 0]
    records = library.versions("Wood")
    assert sorted(record.frames for record in records) == [100, 160, 180]
    assert {value_of(library, f"Wood@{record.short}") for record in records} == {1.0, 3.0, 5.0}
    assert {record.parents for record in records if record.frames > 100} == {(records[0].version,)}
    assert set(library.completed()) == {"Wood", "Table", "Fire"}
    check_whole(library)


@pytest.mark.slow
def test_many_processes_that_continue_one_expert_lose_nothing(processes, library):
    trained(library, "Wood", 0.5)
    assert together(processes, library_workers.train_many, [(library.root, i, 5) for i in range(1, 5)]) == [0] * 4
    values = {value_of(library, f"Wood@{record.version}") for record in library.versions("Wood")}
    assert values == {0.5} | {100.0 * worker + number for worker in range(1, 5) for number in range(5)}
    assert len(library.completed()) == 21
    check_whole(library)


@pytest.mark.parametrize(
    ("head", "moments"),
    [("best-evaluation", range(5, EVERY_MOMENT, 9)),
     *(pytest.param(head, range(0, EVERY_MOMENT, step), marks=pytest.mark.slow)
       for head, step in (("best-evaluation", 1), ("keep-both", 4), ("average", 2)))],
)  # fmt: skip
def test_a_kill_at_any_moment_leaves_the_library_whole(processes, tmp_path, head, moments):
    """And processing the run again ends as if nothing had happened."""
    for moment in moments:
        library = SkillLibrary(tmp_path / str(moment))
        first, second = two_runs(library)
        library.process(first, head=head)
        wanted = {"best-evaluation": 3.0, "keep-both": 3.0, "average": 4.0}[head]
        (code,) = together(processes, library_workers.process_and_die, [(library.root, second, head, moment)])
        assert code in (0, -9)
        again = SkillLibrary(library.root)
        check_whole(again)
        assert again.process(second, head=head)[1].skill_name == "Fire"
        check_whole(again)
        assert value_of(again, "Wood") == wanted and value_of(again, "Fire") == 5.0
        values = {value_of(again, f"Wood@{record.version}") for record in again.versions("Wood")}
        assert values == {1.0, 3.0, 5.0, wanted}
        assert len(again.history("Wood")) == (3 if head == "average" else 2)
        assert len(again.versions("Wood")) == len(values), "a second time makes no second version"
        assert not second.exists() and len(list((again.root / "archive").glob("*/[!.]*"))) == 3
        if code == 0:
            return
    pytest.fail("it takes more steps than were tried")


def test_a_kill_while_a_name_is_registered_leaves_the_library_whole(processes, tmp_path):
    for moment in range(12):
        library = SkillLibrary(tmp_path / str(moment))
        library.expert_of("Wood")
        (code,) = together(processes, library_workers.register_and_die, [(library.root, "Table", moment)])
        again = SkillLibrary(library.root)
        assert again.expert_of("Stone") != again.expert_of("Table") and again.expert_of("Wood") == 0
        numbers = {name: again.expert_of(name) for name in ("Wood", "Table", "Stone")}
        again.rebuild()
        assert {name: again.expert_of(name) for name in numbers} == numbers
        if code == 0:
            return
    pytest.fail("it takes more steps than were tried")


class TestIndex:
    """The index follows the files, and is made again from them."""

    @pytest.mark.parametrize("damage", ["missing", "no database", "truncated", "another version"])
    def test_an_index_that_cannot_be_used_is_made_again(self, library, damage):
        trained(library, "Wood", 1.0, frames=100)
        trained(library, "Table", 2.0, ["Wood"], ["Wood"], scores={"Wood": 0.5, "Table": 1.0})
        wanted, file = dump(library), library.root / "library.sqlite"
        if damage == "another version":
            with sqlite3.connect(file) as connection:
                connection.execute("PRAGMA user_version = 99")
            connection.close()
        elif damage == "missing":
            file.unlink()
        else:
            file.write_bytes(b"x" * 5000 if damage == "no database" else file.read_bytes()[:4096])
        assert library.skill("Table").score == 1.0 and dump(library) == wanted

    def test_experts_that_were_processed_without_a_library_are_found_when_it_is_built_again(self, library):
        trained(library, "Wood", 1.0)
        version, moves = library.skill("Wood").head, library.history("Wood")
        for file in (*library.root.glob("library.sqlite*"), *(library.root / "names").iterdir()):
            file.unlink()
        next(library.root.glob("skills/*/expert_*/heads.json")).unlink()
        found = SkillLibrary(library.root)
        assert found.skill("Wood").head == version and found.expert_of("Table") == 1
        assert [move.version for move in found.history("Wood")] == [move.version for move in moves]

    def test_a_number_that_two_skills_claim_is_told(self, library):
        trained(library, "Wood", 1.0)
        file = library.root / "names" / "0.json"
        file.write_text(file.read_text().replace("Wood", "Stone"))
        with pytest.raises(SkillError, match="expert 0 is 'Stone', but skills/ has it as 'Wood'"):
            library.rebuild()
