"""The library: numbers that stay, versions that are never lost, and an index that follows the files."""

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from policysmith.errors import SkillError
from policysmith.skills import Expert, SkillLibrary, load_expert
from policysmith.skills.experts.parameter_names import renumbered
from policysmith.skills.library.registration import claim
from policysmith.store import database

from .library_workers import finished, prepared, trained, value_of, weights_of


@pytest.fixture
def library(tmp_path):
    return SkillLibrary(tmp_path / "library")


class TestNumbers:
    """A name has one number for good."""

    def test_names_are_numbered_in_turn_and_keep_their_numbers(self, library):
        assert [library.expert_of(name) for name in ("Wood", "Table", "Wood", "Eat/Drink")] == [0, 1, 0, 2]
        assert [SkillLibrary(library.root).expert_of(name) for name in ("Eat/Drink", "Wood")] == [2, 0]

    def test_threads_that_register_at_once_agree(self, library):
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(library.expert_of, [f"Skill {i % 10}" for i in range(80)]))
        assert [found[i] for i in range(80)] == found[:10] * 8 and sorted(found[:10]) == list(range(10))

    def test_a_number_that_a_killed_process_took_stays_taken(self, library):
        library.expert_of("Wood")
        assert claim(library.root, 1, "Killed") == "Killed"  # and then it was killed, before the index knew
        assert library.expert_of("Table") == 2 and library.expert_of("Killed") == 1

    def test_numbers_survive_the_loss_of_the_index(self, library):
        numbers = {name: library.expert_of(name) for name in ("Wood", "Table", "Axe")}
        (library.root / "library.sqlite").unlink()
        assert {name: library.expert_of(name) for name in reversed(numbers)} == numbers

    @pytest.mark.parametrize("name", ["", "  ", None, 3])
    def test_a_skill_needs_a_name(self, library, name):
        with pytest.raises(SkillError, match="needs a name"):
            library.expert_of(name)


class TestProcessing:
    """The experts of a run are stored, and then its folder is removed."""

    def test_a_new_skill_has_a_head_that_others_start_from(self, library):
        assert library.completed() == {}
        outcome = trained(library, "Wood", 1.0, frames=7, scores={"Wood": 0.5})["Wood"]
        assert (outcome.status, outcome.frames, outcome.head) == ("new", 7, outcome.version)
        assert library.completed() == {"Wood": {"expert_idx": 0, "path": library.folder_of("Wood")}}
        skill = library.skill("Wood")
        assert (skill.head, skill.frames, skill.score, skill.versions) == (outcome.version, 7, 0.5, 1)
        assert not list((library.root / "training_runs").iterdir())

    def test_frames_are_credited_by_use_only(self, library):
        trained(library, "Wood", 1.0, frames=100)
        found = trained(library, "Table", 2.0, ["Wood"], frames=50)
        assert found["Wood"].status == "unchanged" and library.skill("Wood").frames == 100
        assert library.skill("Table").frames == 50 and library.skill("Table").dependencies == ("Wood",)

    def test_unchanged_experts_are_linked_again_and_not_versioned_again(self, library):
        wood = trained(library, "Wood", 1.0)["Wood"].version
        before = {path: path.stat().st_ino for path in library.folder_of("Wood").rglob("*.safetensors")}
        trained(library, "Table", 2.0, ["Wood"])
        assert [record.version for record in library.versions("Wood")] == [wood]
        assert before == {path: path.stat().st_ino for path in library.folder_of("Wood").rglob("*.safetensors")}
        assert library.version("Table").trained_with == {"Wood": wood}

    def test_the_archive_has_all_but_the_weights(self, library):
        run = finished(prepared(library, "Wood"), {0: 1.0}, scores={"Wood": 1.0})
        (run.run_folder / "worker.log").write_text("warm\n")
        for name in ("progress.jsonl", "metrics.jsonl"):
            (run.run_folder / name).write_text('{"step": 1}\n')
        library.process(run.run_folder)
        (place,) = (library.root / "archive" / run.run_folder.name).iterdir()
        names = ["0.py", "config.yaml", "metrics.jsonl", "outcomes.json", "progress.jsonl", "remap.json",
                 "result.json", "worker.log"]  # fmt: skip
        assert sorted(path.name for path in place.iterdir()) == names

    def test_processing_again_tells_what_became_of_the_run(self, library):
        run = finished(prepared(library, "Wood"), {0: 1.0})
        first = library.process(run.run_folder)
        assert library.process(run.run_folder) == first and len(library.versions("Wood")) == 1
        with pytest.raises(SkillError, match="no training run"):
            library.process(library.root / "training_runs" / "skill_9_Never")

    def test_a_skill_is_continued_in_a_second_run_of_its_own(self, library):
        first = trained(library, "Wood", 1.0)["Wood"]
        second = trained(library, "Wood", 2.0)["Wood"]
        assert second.status == "continued" and library.version("Wood").parents == (first.version,)
        assert [move.version for move in library.history("Wood")] == [first.version, second.version]
        assert second.frames == 20 and len(list((library.root / "archive" / "skill_0_Wood").iterdir())) == 2

    def test_what_fails_is_told_changes_nothing_and_can_be_done_again(self, library):
        """And no error is taken for a lock that somebody holds."""
        run = prepared(library, "Wood")
        with pytest.raises(SkillError, match="holds no checkpoint but the one"):
            library.process(run.run_folder)
        finished(run, {0: 1.0})
        (run.run_folder / "result.json").write_text('{"scores": {"Wood": NaN}}')
        with pytest.raises(SkillError, match=r"scores\.Wood is nan"):
            library.process(run.run_folder)
        assert library.skill("Wood").versions == 0 and run.run_folder.is_dir()
        assert library.process(run.run_folder, scores={"Wood": 0.5})[0].status == "new"

    def test_an_expert_of_another_skill_is_not_taken_for_the_runs_own(self, library):
        run = finished(prepared(library, "Wood"), {0: 1.0})
        other = SkillLibrary(library.root.parent / "other")
        other.expert_of("Stone")
        with pytest.raises(SkillError, match="expert 0 is 'Stone', and can't be 'Wood'"):
            other.process(run.run_folder)
        assert run.run_folder.is_dir() and other.completed() == {}

    def test_twelve_experts_come_home_under_their_own_numbers(self, library):
        names = [f"Skill {i}" for i in range(11)]
        for value, name in enumerate(names):
            trained(library, name, float(value))
        run = prepared(library, "Last", names, train=names)
        finished(run, {expert: 100.0 + expert for expert in range(12)})
        library.process(run.run_folder)
        assert [value_of(library, name) for name in [*names, "Last"]] == [100.0 + expert for expert in range(12)]


class TestParallelRuns:
    """Two runs that continue one expert both survive; a policy says which is the head."""

    def parallel(self, library, policies="best-evaluation", frames=(10, 10), scores=(None, None), values=(3.0, 5.0)):
        trained(library, "Wood", 1.0, frames=100)
        runs = [prepared(library, name, ["Wood"], train=["Wood"]) for name in ("Table", "Fire")]
        for run, value, used, score in zip(runs, values, frames, scores, strict=True):
            finished(run, dict.fromkeys(run.trained, value), used, None if score is None else {"Wood": score})
        return [library.process(run.run_folder, head=policies)[0] for run in runs]

    def test_the_better_evaluated_one_is_the_head(self, library):
        first, second = self.parallel(library, scores=(0.6, 0.9))
        assert (first.status, second.status, value_of(library, "Wood")) == ("continued", "continued", 5.0)

    def test_a_worse_one_is_kept_beside_the_head(self, library):
        first, second = self.parallel(library, scores=(0.9, 0.6), frames=(10, 99))
        assert (second.status, second.head, value_of(library, "Wood")) == ("branch", first.version, 3.0)
        assert value_of(library, f"Wood@{second.version}") == 5.0

    def test_where_a_score_is_missing_the_head_stays(self, library):
        for scores in ((0.1, None), (None, 0.9), (None, None)):
            fresh = SkillLibrary(library.root / f"{scores}")
            assert [o.status for o in self.parallel(fresh, scores=scores)] == ["continued", "branch"]

    def test_an_evaluated_head_does_not_give_way_to_one_that_was_not_evaluated(self, library):
        trained(library, "Wood", 1.0, scores={"Wood": 0.9})
        assert trained(library, "Wood", 2.0)["Wood"].status == "branch"
        assert trained(library, "Wood", 3.0, scores={"Wood": 0.9})["Wood"].status == "continued", "of equals the longer"

    def test_more_frames_can_be_the_rule(self, library):
        first, second = self.parallel(library, "most-frames", frames=(90, 20))
        assert (first.status, second.status, value_of(library, "Wood")) == ("continued", "branch", 3.0)

    def test_both_can_be_kept_under_names(self, library):
        first, second = self.parallel(library, "keep-both")
        assert (first.status, second.status, second.head) == ("continued", "branch", first.version)
        assert second.branch.startswith("skill_2_Fire-") and value_of(library, f"Wood@{second.branch}") == 5.0
        assert value_of(library, "Wood") == 3.0

    def test_the_mean_of_both_can_be_the_head(self, library):
        first, second = self.parallel(library, "average", frames=(60, 80))
        assert (second.status, value_of(library, "Wood")) == ("averaged", 4.0)
        head = library.version("Wood")
        assert head.version == second.head and head.parents == tuple(sorted([first.version, second.version]))
        assert head.frames == 100 + 60 + 80, "those of the common parent count once"
        assert not load_expert(library.folder_of("Wood"), moments=True).moments
        assert library.skill("Wood").versions == 4

    def test_a_function_can_be_the_policy(self, library):
        seen = []

        def latest(head, candidate):
            seen.append((head.score, candidate.score))
            return "candidate"

        self.parallel(library, latest, scores=(0.9, 0.1))
        assert value_of(library, "Wood") == 5.0 and seen == [(None, 0.9), (0.9, 0.1)]

    def test_a_policy_that_does_not_exist_is_told_before_anything_is_done(self, library):
        run = finished(prepared(library, "Wood"), {0: 1.0})
        with pytest.raises(SkillError, match="no head policy 'best-evalution' \\(did you mean 'best-evaluation'"):
            library.process(run.run_folder, head="best-evalution")
        assert library.completed() == {}

    def test_a_frozen_dependency_that_changed_is_kept_and_is_no_head(self, library):
        trained(library, "Wood", 1.0, scores={"Wood": 0.1})
        run = finished(prepared(library, "Table", ["Wood"]), {0: 7.0, 1: 2.0}, scores={"Wood": 1.0})
        wood, table = library.process(run.run_folder)
        assert (wood.status, table.status, value_of(library, "Wood")) == ("frozen", "new", 1.0)
        assert library.version(f"Wood@{wood.version}").status == "frozen"


class TestUpkeep:
    """Merging, going back, pruning, and taking up experts from elsewhere."""

    @pytest.fixture
    def branched(self, library):
        """Wood 1 → 3 (the head), and beside it 5; values are the selectors."""
        names = {1.0: trained(library, "Wood", 1.0, frames=100)["Wood"].version}
        for name, value in (("Table", 3.0), ("Fire", 5.0)):
            run = prepared(library, name, ["Wood"], train=["Wood"])
            names[value] = run
        for value in (3.0, 5.0):
            run = finished(names[value], dict.fromkeys(names[value].trained, value), int(value))
            names[value] = library.process(run.run_folder)[0].version
        return names

    def test_versions_are_merged_by_their_mean(self, library, branched):
        version = library.merge(f"Wood@{branched[3.0][:8]}", f"Wood@{branched[5.0]}")
        assert value_of(library, "Wood") == 4.0 and library.version("Wood").version == version
        assert library.version("Wood").frames == 108 and library.history("Wood")[-1].reason == "merge"

    def test_what_cannot_be_merged_is_told(self, library, branched):
        with pytest.raises(SkillError, match="different experts"):
            library.merge("Wood", "Table")
        with pytest.raises(SkillError, match=r"comes from .* nothing to average"):
            library.merge("Wood", f"Wood@{branched[1.0]}")
        with pytest.raises(SkillError, match="has no version 'nothing'"):
            library.merge("Wood", "Wood@nothing")

    def test_the_head_goes_back_and_forth(self, library, branched):
        assert library.rollback("Wood").version == branched[1.0] and value_of(library, "Wood") == 1.0
        library.rollback("Wood", branched[5.0][:6])
        assert value_of(library, "Wood") == 5.0 and library.skill("Wood").head == branched[5.0]
        assert [m.version for m in library.history("Wood")] == [branched[v] for v in (1.0, 3.0, 1.0, 5.0)]
        SkillLibrary(library.root).rebuild()
        assert library.skill("Wood").head == branched[5.0] and len(library.history("Wood")) == 4

    def test_there_must_be_a_head_to_go_back_to(self, library):
        trained(library, "Wood", 1.0)
        with pytest.raises(SkillError, match="has had no other head"):
            library.rollback("Wood")

    def test_only_what_nothing_needs_is_pruned(self, library, branched):
        newest = trained(library, "Wood", 9.0)["Wood"].version
        assert library.prune("Wood", older_than=1) == [], "young ones stay"
        planned = [record.version for record in library.prune("Wood", dry_run=True)]
        assert planned == [branched[1.0], branched[5.0]] and library.skill("Wood").versions == 4
        assert [record.version for record in library.prune("Wood")] == planned
        assert {record.version for record in library.versions("Wood")} == {newest, branched[3.0]}
        assert {path.name for path in (library.folder_of("Wood") / "versions").iterdir()} == {newest, branched[3.0]}
        assert value_of(library, "Wood") == 9.0 and not list((library.root / ".trash").iterdir())
        with pytest.raises(SkillError, match="has no version"):
            library.rollback("Wood", branched[5.0])

    def test_experts_from_elsewhere_keep_their_numbers(self, library):
        expert = Expert("Wood", 4, weights_of(2.0), frames=5)
        version = library.add(expert)
        assert library.add(expert) == version and len(library.history("Wood")) == 1
        assert library.expert_of("Wood") == 4 and library.expert_of("Table") == 5 and value_of(library, "Wood") == 2.0
        with pytest.raises(SkillError, match="'Wood' is expert 4, and can't be expert 7"):
            library.add(Expert("Wood", 7, weights_of(2.0)))
        with pytest.raises(SkillError, match="expert 4 is 'Wood', and can't be 'Stone'"):
            library.add(Expert("Stone", 4, weights_of(2.0)))

    def test_a_name_that_is_not_there_is_told(self, library, branched):
        for ask in (library.skill, library.versions, library.history, library.folder_of, library.prune):
            with pytest.raises(SkillError, match=r"has no skill 'Wod' \(did you mean 'Wood'\?\)"):
                ask("Wod")
        library.expert_of("Untrained")
        with pytest.raises(SkillError, match="has no head yet"):
            library.version("Untrained")
        with pytest.raises(SkillError, match="is no library"):
            SkillLibrary(library.root / "nowhere", create=False)


def test_a_run_starts_from_the_head_that_the_library_names(library):
    trained(library, "Wood", 1.0, scores={"Wood": 0.9})
    trained(library, "Wood", 2.0, scores={"Wood": 0.1})
    run = prepared(library, "Table", ["Wood"])
    assert torch.equal(run.seed.weights["actor_networks_0.layers_0.weight"], torch.full((2, 2), 1.0))
    assert set(run.seed.weights) == set(renumbered(weights_of(0), 0))


class TestScale:
    """What a run costs does not depend on how many skills there are."""

    @pytest.fixture
    def steps(self, monkeypatch):
        """A count of what SQLite does, in tens of its instructions."""
        done, connect = [0], sqlite3.connect

        def counting(*arguments, **options):
            connection = connect(*arguments, **options)
            connection.set_progress_handler(lambda: done.__setitem__(0, done[0] + 1), 10)
            return connection

        monkeypatch.setattr(database.sqlite3, "connect", counting)
        return done

    def test_a_run_reads_rows_of_its_own_experts_only(self, library, steps):
        trained(library, "Wood", 1.0)
        trained(library, "Stone", 2.0)
        costs = []
        for count in (0, 5000):
            with library._database.writing() as connection:
                rows = [(expert, f"Skill {expert}", "0" * 64) for expert in range(10, 10 + count)]
                connection.executemany("INSERT INTO skills VALUES (?, ?, ?)", rows)
                versions = [(*row[::2], 1, "trained", None, "", "{}") for row in rows]
                connection.executemany("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?)", versions)
            steps[0] = 0
            trained(library, f"Table {count}", 3.0 + count, ["Wood", "Stone"], ["Wood"])
            costs.append(steps[0])
        assert costs[0] > 0 and costs[1] <= 1.2 * costs[0] + 20

    def test_no_folder_of_many_is_listed_and_no_other_expert_is_read(self, library, monkeypatch):
        trained(library, "Wood", 1.0)
        trained(library, "Stone", 2.0)
        for file in library.folder_of("Stone").rglob("*.*"):
            file.write_bytes(b"unreadable")
        many = {str(library.root / name) for name in ("skills", "names", "archive", "training_runs", ".")}
        for name in ("listdir", "scandir"):
            true = getattr(os, name)

            def watched(path=".", true=true):
                assert not isinstance(path, str | os.PathLike) or str(path) not in many, f"{path} was listed"
                return true(path)

            monkeypatch.setattr(os, name, watched)
        found = trained(library, "Table", 3.0, ["Wood"], ["Wood"])
        assert {name: outcome.status for name, outcome in found.items()} == {"Wood": "continued", "Table": "new"}
        assert library.completed(["Table"])["Table"]["expert_idx"] == 2
        with pytest.raises(AssertionError, match="was listed"):
            library.rebuild()

    def test_a_run_reads_the_bytes_of_its_dependencies_only(self, library):
        for value, name in enumerate(("Wood", "Stone", "Iron", "Gold")):
            trained(library, name, float(value))
        run = prepared(library, "Table", ["Wood", "Iron", "Gold"])
        sizes = [(library.folder_of(name) / "model.safetensors").stat().st_size for name in ("Wood", "Iron", "Gold")]
        assert run.seed.bytes_read == sum(sizes) and run.num_experts == 4
