"""What the scheduler and the library add to each of 10,000 skills: everything but the training.

In: nothing. Out: rows of the result table. The bars are a time for each skill, and that the last costs as the first.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Row, duration, median_interval

if TYPE_CHECKING:
    from policysmith.skills import TrainingRun
    from policysmith.skills.scheduling.launcher import Ended, Job
    from policysmith.skills.scheduling.skills_file import SkillsFile

COUNT, BAR, PART = int(os.environ.get("SKILLS", "10000")), 0.020, 10
PARALLEL, NEEDED = 4, 3
FEATURES, ACTIONS, WIDTH = 16, 6, 16
CODE = "def task_is_done(x):\n    return x > {0}\n\n\ndef task_reward(x):\n    return x * {0}.5\n"
FLOOR_ROUNDS = 200


def skills_scale() -> list[Row]:
    """Skills that each need three earlier ones, and continue one of these every other time, four at a time.

    The scheduler, its runs and the library are the real ones; a worker is a function that writes a checkpoint. A run's
    module is executed by its worker alone, which compares it with its text. Times are the processor's: the files lie in
    memory, and what else runs on the machine is not counted.
    """
    from policysmith.skills.scheduling.scheduler import Rules, Scheduler
    from policysmith.skills.scheduling.skill_runs import SkillRuns

    memory = Path("/dev/shm")  # the disk's own time is not what is measured
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        library, file = _watched_library(folder), _skills_file(Path(folder))
        workers, runs = Workers(), SkillRuns(file, library)
        start = time.process_time()
        report = Scheduler(file.needs, runs, workers, Rules(parallel=PARALLEL)).run()
        whole = (time.process_time() - start - sum(workers.training)) / COUNT
        assert report.succeeded and len(library.completed()) == COUNT
        expert = (library.folder_of("Skill 0") / "model.safetensors").stat().st_size
        floor = _floor(Path(folder))
    return [*_times(workers, whole, floor), *_sizes(library.read, expert, workers.held)]


@dataclass
class Workers:
    """A launcher whose workers train in no time and one after another, and the clock of everything else."""

    overhead: list[float] = field(default_factory=list)  # between the end of one training and the start of the next
    training: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)  # MiB, resident
    _jobs: list[Job] = field(default_factory=list)
    _since: float = 0.0

    def start(self, job: Job) -> None:
        self._jobs.append(job)

    def adopt(self, job: Job) -> bool:
        return False

    def stop(self, skill: str) -> None:
        raise AssertionError(f"{skill} was asked to stop")

    def wait(self, seconds: float) -> list[Ended]:
        from policysmith.skills.scheduling.launcher import Ended

        job, start = self._jobs.pop(0), time.process_time()
        self.overhead.append(start - self._since)
        _train(job)
        self._since = time.process_time()
        self.training.append(self._since - start)
        if len(self.training) in (COUNT // PART, COUNT):
            self.held.append(_resident())
        return [Ended(job.skill, 0)]

    def close(self) -> None: ...


def _watched_library(folder: str) -> Any:
    """A library that notes how many bytes of experts each run reads."""
    from policysmith.skills import SkillLibrary

    class Watched(SkillLibrary):
        read: list[int] = []  # noqa: RUF012 - there is one

        def prepare(self, *arguments: Any, **options: Any) -> TrainingRun:
            run = super().prepare(*arguments, **options)
            self.read.append(run.seed.bytes_read if run.seed else 0)
            return run

    return Watched(folder)


def _skills_file(folder: Path) -> SkillsFile:
    """As it would be read: a plan has three earlier skills, far enough back that four can be trained at once."""
    from policysmith.skills.scheduling.settings import SchedulerSettings, SkillSettings
    from policysmith.skills.scheduling.skills_file import SkillsFile

    names = [f"Skill {number}" for number in range(COUNT)]
    skills, plans = {}, {}
    for number, name in enumerate(names):
        needed = names[max(0, number - PARALLEL - NEEDED + 1) : max(0, number - PARALLEL + 1)]
        plans[name] = (*needed, name)
        skills[name] = SkillSettings(f"{number}.py", list(plans[name]), needed[-1:] if number % 2 else [], success=0.95)
    training = {"type": "skill_ppo", "total_steps": 500_000, "learning_rate": 1e-3, "gamma": 0.99, "lambda_": 0.95}
    environment = {"type": "minigrid", "id": "MiniGrid-DoorKey-5x5-v0", "num_envs": 16}
    model = {"layer_width": WIDTH, "num_layers": 4, "activation": "tanh"}
    codes = {name: CODE.format(number) for number, name in enumerate(names)}
    by_skill: Mapping[str, Mapping[str, Any]] = dict.fromkeys(names, training)
    return SkillsFile(0, folder, environment, model, by_skill, SchedulerSettings(), skills, codes, plans)


def _train(job: Job) -> None:
    """What a worker would leave: the seed with new weights of those that learn, and its result."""
    import torch

    from policysmith.skills import ActorCriticMoE, MoECheckpoint, load_moe_checkpoint
    from policysmith.skills.experts.parameter_names import of_expert, renumbered
    from policysmith.skills.runs.training_run import load_training_run

    run = load_training_run(job.folder)
    seed = load_moe_checkpoint(run.policies_folder / "0")
    weights, frames = dict(seed.weights), dict(seed.frames)
    for expert in run.trained:
        local = run.remap.global_to_local[expert]
        before = of_expert(weights, local) or of_expert(
            ActorCriticMoE(ACTIONS, WIDTH, num_tasks=1, in_features=FEATURES).state_dict(), 0
        )
        after = {name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in before.items()}
        weights |= renumbered(after, local)
        frames[local] = frames.get(local, 0) + 1000
    MoECheckpoint(weights, {}, frames).save(run.policies_folder / "1000")
    said = f'{{"status": "solved", "steps": 1000, "success_rate": 1.0, "scores": {{"{job.skill}": 1.0}}}}'
    (job.folder / "result.json").write_text(said)


def _times(workers: Workers, whole: float, floor: float) -> list[Row]:
    part = max(1, COUNT // PART)
    first, last = workers.overhead[10 : part + 10], workers.overhead[-part:]
    middle = statistics.median(last)
    low, high = (value / BAR for value in median_interval(last))
    # The machine may have become slower: the trainings, all alike, tell by how much.
    drift = statistics.median(workers.training[-part:]) / statistics.median(workers.training[10 : part + 10])
    before = statistics.median(first) * drift
    spread = [value / before for value in median_interval(last)]
    name = f"{COUNT:,} skills, {PARALLEL} at a time: scheduling, preparing and processing a run of 4 experts"
    return [
        Row(name, duration(middle), f"bar {duration(BAR)}", middle / BAR, low, high, target=1.0),
        Row("the same, all of a whole schedule by their number", duration(whole), f"bar {duration(BAR)}", whole / BAR),
        Row("the last tenth of them beside the first", duration(middle), duration(before), middle / before,
            spread[0], spread[1], target=1.1),
        Row("as many files written, synced and hashed by hand, nothing checked", duration(floor)),
    ]  # fmt: skip


def _resident() -> float:
    """MiB that this process holds now: its peak may be an earlier benchmark's."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _sizes(read: Sequence[int], expert: int, held: Sequence[float]) -> list[Row]:
    """A run reads its dependencies' bytes, and the process does not grow."""
    most, wanted, growth = max(read), NEEDED * expert, held[1] / held[0]
    ratio = most / wanted
    exact, near = (ratio, ratio, ratio, 1.0), (growth, growth, growth, 1.2)
    return [
        Row(f"bytes of experts read by a run with {NEEDED} dependencies", f"{most:,}", f"{wanted:,}", *exact),
        Row("memory at the end beside a tenth of the way", *(f"{size:,.0f} MiB" for size in reversed(held)), *near),
    ]


def _floor(folder: Path) -> float:
    """The files of a run: its folder, a version, its head and the archive, each laid out, synced and given its name."""
    parts = [("run", 6, 34_000), ("version", 2, 9_000), ("head", 3, 9_000), ("archive", 5, 0)]
    seconds = []
    for number in range(FLOOR_ROUNDS):
        start = time.process_time()
        for part, count, weights in parts:
            fresh = f"{folder}/.{part}-{number}"
            Path(fresh).mkdir()
            for index in range(count):
                content = b"x" * (500 if index else max(weights, 500))
                hashlib.sha256(content)
                with open(f"{fresh}/{index}", "xb") as stream:  # noqa: PTH123
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
            os.rename(fresh, f"{folder}/{part}-{number}")  # noqa: PTH104
        shutil.rmtree(f"{folder}/run-{number}")
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    from benchmarks.harness import table

    print(table(skills_scale()))
