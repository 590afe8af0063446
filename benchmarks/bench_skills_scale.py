"""What the library adds to each of 10,000 skills: preparing its run and bringing it home, with nothing trained.

In: nothing. Out: rows of the result table. The bars are a time for each skill, and that the last cost as the first.
"""

from __future__ import annotations

import os
import resource
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.harness import Row, duration, median_interval

if TYPE_CHECKING:
    from policysmith.skills import SkillLibrary, TrainingRun

COUNT, BAR, PART = int(os.environ.get("SKILLS", "10000")), 0.020, 10
FEATURES, ACTIONS, WIDTH = 16, 6, 16
TASK = "def task_{0}_is_done(x): return x > {0}\ndef task_{0}_reward(x): return x\n"


def skills_scale() -> list[Row]:
    """Skills one after another, each of which needs the three before it: one is frozen, one is continued.

    A run's module is compared by its syntax tree and not executed: that takes a process, which the worker starts anyway
    (`prepare_training_run(execute=False)`); its cost is the last row. Times are the processor's: the files lie in
    memory, and what else runs on the machine is not counted.
    """
    from policysmith.skills import SkillLibrary

    memory = Path("/dev/shm")  # the disk's own time is not what is measured
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        library = SkillLibrary(folder)
        seconds, read, peaks = [], [], []
        for number in range(COUNT):
            start = time.process_time()
            run = _prepare(library, number)
            middle = time.process_time()
            _train(run)
            again = time.process_time()
            library.process(run.run_folder)
            seconds.append(time.process_time() - again + middle - start)
            read.append(run.seed.bytes_read if run.seed else 0)
            if number in (COUNT // PART, COUNT - 1):
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        expert = (library.folder_of("Skill 0") / "model.safetensors").stat().st_size
        executed = _seconds_executed(library)
    return [*_times(seconds), *_sizes(read, expert, peaks), Row("executing a run's module first", duration(executed))]


def _prepare(library: SkillLibrary, number: int, *, execute: bool = False) -> TrainingRun:
    needed = [f"Skill {other}" for other in range(max(0, number - 3), number)]
    numbers = [*range(max(0, number - 3), number), number]
    code = "".join(TASK.format(i) + f"def task_{i}_network_number(): return {n}\n" for i, n in enumerate(numbers))
    train = needed[-1:] if number % 2 else []
    return library.prepare(f"Skill {number}", {"code": code}, needed, train=train, execute=execute)


def _train(run: TrainingRun) -> None:
    """What a worker would leave: the seed with new weights of those that learn."""
    import torch

    from policysmith.skills import ActorCriticMoE, MoECheckpoint, load_experts

    assert run.seed is not None
    model = ActorCriticMoE(ACTIONS, WIDTH, num_tasks=run.num_experts, in_features=FEATURES)
    load_experts(model, run.seed)
    frames = dict(run.seed.frames)
    with torch.no_grad():
        for expert in run.trained:
            local = run.remap.global_to_local[expert]
            frames[local] = frames.get(local, 0) + 1000
            for name, parameter in model.named_parameters():
                if f"_networks_{local}." in name:
                    parameter.add_(0.01 * torch.randn_like(parameter))
    scores = {run.about["skill_name"]: 1.0}
    MoECheckpoint(model.state_dict(), {}, frames).save(run.policies_folder / "1")
    (run.run_folder / "result.json").write_text(f'{{"status": "solved", "scores": {{"{next(iter(scores))}": 1.0}}}}')


def _times(seconds: list[float]) -> list[Row]:
    part = max(1, COUNT // PART)
    first, last = seconds[3 : part + 3], seconds[-part:]
    middle = statistics.median(last)
    low, high = (value / BAR for value in median_interval(last))
    ratio = middle / statistics.median(first)
    spread = (median_interval(last)[0] / statistics.median(first), median_interval(last)[1] / statistics.median(first))
    name = f"library of {COUNT:,} skills: preparing and processing a run of 4 experts"
    return [
        Row(name, duration(middle), f"bar {duration(BAR)}", middle / BAR, low, high, target=1.0),
        Row("the last tenth of them beside the first", duration(middle), duration(statistics.median(first)), ratio,
            *spread, target=1.25),
    ]  # fmt: skip


def _sizes(read: list[int], expert: int, peaks: list[float]) -> list[Row]:
    """A run reads its dependencies' bytes, and the process does not grow."""
    ratio, growth = read[-1] / (3 * expert), peaks[1] / peaks[0]
    exact, near = (ratio, ratio, ratio, 1.0), (growth, growth, growth, 1.2)
    return [
        Row("bytes of experts read by a run with 3 dependencies", f"{read[-1]:,}", f"{3 * expert:,}", *exact),
        Row("memory at the end beside a tenth of the way", *(f"{peak:,.0f} MiB" for peak in reversed(peaks)), *near),
    ]


def _seconds_executed(library: SkillLibrary) -> float:
    start = time.perf_counter()
    _prepare(library, COUNT, execute=True)
    return time.perf_counter() - start
