"""SkillLibrary: a folder of skills whose experts many processes train, continue and choose heads of.

In: names of skills, runs that have ended. Out: stable numbers for experts, and versions of which none is lost. The
files are the truth; the index beside them follows, and is made again whenever it is missing or damaged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from policysmith.errors import CheckpointError, SkillError, did_you_mean
from policysmith.skills.experts.expert_versions import Expert, head_version, save_version
from policysmith.skills.library import index
from policysmith.skills.library.archive import archive_run, archived_outcomes, put_away
from policysmith.skills.library.head_history import HeadMove, move_head, read_heads
from policysmith.skills.library.head_policies import HeadPolicy, find_head_policy
from policysmith.skills.library.index import SkillRecord, VersionRecord
from policysmith.skills.library.merging import average_of
from policysmith.skills.library.pruning import prunable, remove_versions
from policysmith.skills.library.registration import claim, expert_directory, follow, registered
from policysmith.skills.library.selection import pick
from policysmith.skills.runs.completed_training import Outcome, finished_run, library_lock, store_experts
from policysmith.skills.runs.remap import expert_index
from policysmith.skills.runs.training_run import TrainingRun, load_training_run, prepare_training_run
from policysmith.store.database import Database, DatabaseDamaged
from policysmith.store.locks import Lock

__all__ = ["SkillLibrary"]

INDEX = "library.sqlite"
T = TypeVar("T")


class SkillLibrary:
    """The library in `root`. Threads and processes may share it; a kill at any moment leaves it whole.

    With `create=False` it must be there: `SkillError` otherwise.
    """

    def __init__(self, root: str | Path, *, create: bool = True) -> None:
        self.root = Path(root)
        if not create and not (self.root / "skills").is_dir():
            raise SkillError(f"{self.root}: is no library of skills: it has no folder skills/")
        self._lock = library_lock(self.root)
        place = Lock(self.root / "skills" / ".index")
        self._database = Database(self.root / INDEX, place, index.SCHEMA, index.SCHEMA_VERSION)
        if self._read(lambda connection: connection.execute("SELECT 1 FROM pending").fetchone()):
            with self._lock.alone():
                self._settle()

    def expert_of(self, name: str) -> int:
        """The number of a skill's expert, for good; a new name gets the next one."""
        _check_name(name)
        found = self._read(lambda connection: index.expert_of(connection, name))
        return self._write(lambda connection: self._register(connection, name)) if found is None else found

    def folder_of(self, name: str) -> Path:
        """Where the expert of a skill lies, or will. Raises `SkillError` for a name that is not registered."""
        return expert_directory(self.root, self._expert(name), name)

    def completed(self, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """`{name: {expert_idx, path}}` of skills that have a head; of these names alone, if given, at their cost."""
        return self._homes(self._read(lambda connection: list(index.trained_skills(connection, names))))

    def prepare(
        self,
        skill_name: str,
        skill_data: Mapping[str, Any],
        dependencies: Iterable[str],
        *,
        train: Collection[str] = (),
        **options: Any,
    ) -> TrainingRun:
        """`prepare_training_run` for a skill of this library; nothing of other skills is looked at."""
        dependencies = list(dict.fromkeys(dependencies))
        _check_name(skill_name)
        names = [*dependencies, skill_name]
        expert, rows = self._write(lambda c: (self._register(c, skill_name), list(index.trained_skills(c, names))))
        return prepare_training_run(
            skill_name, skill_data, dependencies, expert, self._homes(rows), root=self.root, train=train, **options
        )

    def process(
        self,
        run_folder: str | Path,
        *,
        checkpoint: str | Path | None = None,
        scores: Mapping[str, float] | None = None,
        head: str | HeadPolicy = "best-evaluation",
    ) -> list[Outcome]:
        """Store the experts of an ended run, archive the run and remove its folder, in this order.

        Arguments are those of `process_completed_training`. Doing it again, also after a kill, gives what became of
        the run. Raises `SkillError` for a run whose experts are other skills' here; then nothing has changed.
        """
        folder, policy = Path(run_folder), find_head_policy(head)
        if not folder.exists() and (done := archived_outcomes(self.root, folder.name)) is not None:
            return done
        run = load_training_run(folder)
        outcomes = archived_outcomes(self.root, folder.name, run.name)
        if outcomes is None:
            finished = finished_run(run, checkpoint, scores)
            skills = _skills(run)
            places = {expert: (skill, expert_directory(self.root, expert, skill)) for expert, skill in skills.items()}
            with self._changing(skills):
                outcomes = store_experts(finished, places, policy)
            archive_run(self.root, run, outcomes)
        put_away(self.root, folder)
        return outcomes

    def add(self, expert: Expert, *, reason: str = "imported") -> str:
        """Take up an expert from elsewhere under its own name and number; it becomes the head. Returns its version.

        Raises `SkillError` where the name has another number here, or the number another name.
        """
        name, number = expert.skill_name, expert_index(expert.index, "the expert's index")
        folder = expert_directory(self.root, number, name)
        with self._changing({number: name}):
            version = save_version(folder, expert)
            if head_version(folder) != version:
                move_head(folder, version, reason)
        return version

    def skills(self) -> list[SkillRecord]:
        """Every skill, in the order of their experts."""
        return self._read(index.skills)

    def skill(self, name: str) -> SkillRecord:
        """One skill. Raises `SkillError` for a name that is not registered."""
        found = self._read(lambda connection: index.skills(connection, name))
        return found[0] if found else self._unknown(name)

    def versions(self, name: str) -> list[VersionRecord]:
        """Every version of a skill's expert, the oldest first."""
        expert = self._expert(name)
        return self._read(lambda connection: index.versions(connection, expert))

    def version(self, selector: str) -> VersionRecord:
        """`name` is a skill's head; `name@x` the version whose hash begins with x, or the branch x."""
        name, mark, wanted = selector.rpartition("@") if "@" in selector else (selector, "", "")
        return pick(self.versions(name), name, wanted if mark else "head")

    def history(self, name: str) -> list[HeadMove]:
        """Every version that has been a skill's head, the oldest first."""
        return list(read_heads(self.folder_of(name)).history)

    def merge(self, first: str, second: str) -> str:
        """The mean of two versions of one expert becomes its head; selectors are those of `version`."""
        one, two = self.version(first), self.version(second)
        if one.expert != two.expert:
            raise SkillError(f"{first} and {second} are different experts, {one.expert} and {two.expert}")
        folder = expert_directory(self.root, one.expert, one.skill)
        with self._changing({one.expert: one.skill}):
            version = save_version(folder, average_of(folder, one.version, two.version))
            move_head(folder, version, "merge")
        return version

    def rollback(self, name: str, to: str | None = None) -> VersionRecord:
        """Make an earlier version the head again: `to` a hash or a branch, by default the head before this one."""
        skill = self.skill(name)
        history = self.history(name)
        before = next((move.version for move in reversed(history) if move.version != skill.head), None)
        if to is None and before is None:
            raise SkillError(f"{name!r} has had no other head: give a version")
        found = pick(self.versions(name), name, to or str(before))
        with self._changing({skill.expert: name}):
            if not found.is_head:
                move_head(expert_directory(self.root, skill.expert, name), found.version, "rollback")
        return found

    def prune(self, name: str, *, older_than: float = 0.0, dry_run: bool = False) -> list[VersionRecord]:
        """Remove versions that are no head, no branch and no parent of one, made more than `older_than` days ago."""
        expert = self._expert(name)
        if dry_run:
            return prunable(self.versions(name), older_than)
        with self._changing({expert: name}):
            there = self._read(lambda connection: index.versions(connection, expert), locked=True)
            found = prunable(there, older_than)
            remove_versions(self.root, expert_directory(self.root, expert, name), [record.version for record in found])
        return found

    def rebuild(self) -> None:
        """Make the index again from the files."""
        with self._lock.alone():
            self._rebuild()

    def _homes(self, rows: Iterable[tuple[str, int]]) -> dict[str, dict[str, Any]]:
        return {
            name: {"expert_idx": expert, "path": expert_directory(self.root, expert, name)} for name, expert in rows
        }

    def _register(self, connection: sqlite3.Connection, name: str, wanted: int | None = None) -> int:
        found = index.expert_of(connection, name)
        if found is None:
            number = index.next_expert(connection) if wanted is None else wanted
            # A number may be taken by one who was killed before the index knew.
            while (owner := index.name_of(connection, number) or claim(self.root, number, name)) != name:
                if wanted is not None:
                    raise SkillError(f"{self.root}: expert {wanted} is {owner!r}, and can't be {name!r}")
                index.put_skill(connection, number, owner)
                number += 1
            index.put_skill(connection, number, name)
            return number
        if wanted not in (None, found):
            raise SkillError(f"{self.root}: {name!r} is expert {found}, and can't be expert {wanted}")
        return found

    def _expert(self, name: str) -> int:
        found = self._read(lambda connection: index.expert_of(connection, name))
        return self._unknown(name) if found is None else found

    def _unknown(self, name: str) -> Any:
        known = self._read(lambda connection: [name for (name,) in connection.execute("SELECT name FROM skills")])
        raise SkillError(f"{self.root}: has no skill {name!r}{did_you_mean(name, known)}")

    @contextmanager
    def _changing(self, skills: Mapping[int, str]) -> Iterator[None]:
        """While files of these skills' experts change: nobody else changes any, and afterwards the index follows.

        That they are changing is written down first, so that after a kill whoever comes next lets the index follow.
        Skills that are new here are registered. Raises `SkillError`, before anything changes, for one whose number is
        another's.
        """
        with self._lock.alone():
            self._settle(skills)
            try:
                yield
            finally:
                self._settle()

    def _settle(self, then: Mapping[int, str] = MappingProxyType({})) -> None:
        """Let the index follow the files of every expert that is pending; those of `then` are. The lock is held."""

        def settle(connection: sqlite3.Connection) -> None:
            for (expert,) in connection.execute("SELECT expert FROM pending").fetchall():
                name = index.name_of(connection, expert)
                if name is not None:
                    follow(connection, self.root, expert, name)
            connection.execute("DELETE FROM pending")
            for expert, name in then.items():
                if index.name_of(connection, expert) != name:
                    self._register(connection, name, expert)
            connection.executemany("INSERT INTO pending VALUES (?)", [(expert,) for expert in then])

        self._write(settle, locked=True)

    def _rebuild(self) -> None:
        with self._database.replaced() as connection:
            for expert, name in sorted(registered(self.root).items()):
                index.put_skill(connection, expert, name)
                follow(connection, self.root, expert, name)

    def _read(self, action: Callable[[sqlite3.Connection], T], *, locked: bool = False) -> T:
        return self._repaired(self._database.reading, action, locked=locked)

    def _write(self, action: Callable[[sqlite3.Connection], T], *, locked: bool = False) -> T:
        return self._repaired(self._database.writing, action, locked=locked)

    def _repaired(self, connect: Any, action: Callable[[sqlite3.Connection], T], *, locked: bool) -> T:
        """Do it; where the index is missing or damaged, make that anew and do it again. `locked`: the lock is held."""
        try:
            with connect() as connection:
                return action(connection)
        except DatabaseDamaged:
            (self._rebuild if locked else self.rebuild)()
        try:
            with connect() as connection:
                return action(connection)
        except DatabaseDamaged as error:
            raise CheckpointError(f"{self.root / INDEX}: cannot be used: {error.__cause__}") from error


def _check_name(name: Any) -> None:
    """Raise `SkillError` for what can't be the name of a skill."""
    if not isinstance(name, str) or not name.strip():
        raise SkillError(f"a skill needs a name, found {name!r}")


def _skills(run: TrainingRun) -> dict[int, str]:
    """The skill of each of a run's experts."""
    known = {int(expert): said["skill"] for expert, said in run.about["experts"].items()}
    known[run.about["global_expert_idx"]] = run.about["skill_name"]
    if strangers := sorted(set(run.remap.global_to_local) - set(known)):
        raise SkillError(f"{run.run_folder}: expert {strangers[0]} belongs to no skill that the run knows")
    return {expert: known[expert] for expert in sorted(run.remap.global_to_local)}
