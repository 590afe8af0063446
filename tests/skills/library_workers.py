"""A library's runs without training: experts of a few numbers, in this process and in others."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import torch

from policysmith.skills import MoECheckpoint, SkillLibrary, load_expert
from policysmith.skills.experts.expert_versions import version_folder
from policysmith.skills.experts.parameter_names import renumbered
from policysmith.skills.library import archive, head_history, index, registration
from policysmith.store import files as store_files

from .modules import plan_of


def weights_of(number):
    """An expert's tensors, all of them this number."""
    return {f"{role}_network.layers_{n}.weight": torch.full((2, 2), float(number))
            for role in ("actor", "critic") for n in (0, 2)}  # fmt: skip


def prepared(library, name, dependencies=(), train=(), **options):
    """A run whose module uses the skill and everything it depends on; nothing of it is executed."""
    experts = [library.expert_of(skill) for skill in (*dependencies, name)]
    data = {"code": plan_of(*experts)}
    return library.prepare(name, data, dependencies, train=train, execute=False, **options)


def finished(run, values, frames=10, scores=None):
    """What a worker leaves: the seed's experts, those in `values` (global index → number) changed."""
    weights, counts = dict(run.seed.weights), dict(run.seed.frames)
    for expert, value in values.items():
        local = run.remap.global_to_local[expert]
        weights |= renumbered(weights_of(value), local)
        counts[local] = counts.get(local, 0) + frames
    MoECheckpoint(weights, {}, counts).save(run.policies_folder / "1")
    if scores is not None:
        (run.run_folder / "result.json").write_text(json.dumps({"status": "solved", "scores": scores}))
    return run


def trained(library, name, value, dependencies=(), train=(), frames=10, scores=None, head="best-evaluation"):
    """A skill's run from beginning to end; `value` of every expert that learns → outcomes by skill."""
    run = prepared(library, name, dependencies, train)
    finished(run, dict.fromkeys(run.trained, value), frames, scores)
    return {outcome.skill_name: outcome for outcome in library.process(run.run_folder, head=head)}


def value_of(library, selector):
    """The number that a version's weights are made of."""
    record = library.version(selector)
    expert = load_expert(version_folder(library.folder_of(record.skill), record.version))
    return expert.weights["actor_network.layers_0.weight"][0, 0].item()


def register(root, names, file):
    """Register skills, and tell their numbers."""
    library = SkillLibrary(root)
    Path(file).write_text(json.dumps({name: library.expert_of(name) for name in names}))


def process(root, folder, head="best-evaluation"):
    """Store the experts of a run."""
    SkillLibrary(root).process(folder, head=head)


def train_many(root, worker, count):
    """Train skills of its own, each of which continues the one that all share."""
    library = SkillLibrary(root)
    for number in range(count):
        trained(library, f"Skill {worker}.{number}", 100.0 * worker + number, ["Wood"], ["Wood"], frames=1)


def process_and_die(root, folder, head, moment):
    """Store the experts of a run, killed just before the step of that number."""
    library, done = SkillLibrary(root), [0]
    deadly(done, moment)
    library.process(folder, head=head)


def register_and_die(root, name, moment):
    """Register a skill, killed just before the step of that number."""
    library, done = SkillLibrary(root), [0]
    deadly(done, moment)
    library.expert_of(name)


def deadly(done, moment):
    """Let every step on disk count, and the one of that number be the last."""

    def counting(step):
        def counted(*arguments, **options):
            if done[0] == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            done[0] += 1
            return step(*arguments, **options)

        return counted

    for module, names in (
        (store_files, ("write_synced", "sync_directory", "_put_in_place")),
        (registration, ("write_synced", "sync_directory")),
        (archive, ("write_synced", "sync_directory")),
        (head_history, ("replace_file",)),
        (index, ("put_skill", "put_version", "put_heads", "known_versions", "name_of")),
        (Path, ("rename", "replace")),
        (os, ("link",)),
        (shutil, ("rmtree",)),
    ):
        for name in names:
            setattr(module, name, counting(getattr(module, name)))
