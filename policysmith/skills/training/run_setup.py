"""A run's policy with its latest weights, its environment, and its skill's functions: to be trained, or judged.

In: a run's folder. Out: vector environments and their results, in this process, which executes the skill's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from policysmith.errors import SkillError
from policysmith.policy.factory import build_policy
from policysmith.registry import default_registry, part
from policysmith.skills.environments import SkillEnvironment
from policysmith.skills.experts.moe_checkpoint import MoECheckpoint, load_moe_checkpoint
from policysmith.skills.experts.parameter_names import expert_name
from policysmith.skills.experts.partial_load import load_experts
from policysmith.skills.modules.module_file import read_skill_module
from policysmith.skills.modules.tasks import task_to_skill
from policysmith.skills.runs.training_run import CONFIG, TrainingRun, load_training_run
from policysmith.skills.training.guard import executed, limit_files, raise_walls
from policysmith.skills.training.progression import Attempts, TaskProgression
from policysmith.skills.training.run_config import RunConfig
from policysmith.training.process.generators import own_generators, seed_everything
from policysmith.training.process.threads import few_threads
from policysmith.training.rollout.stepping import Playing

__all__ = ["RunSetup"]

EVALUATION_SEED = 10_000


class RunSetup:
    """What a run's folder holds, ready to run. Only for a process of its own, which gets the limits of one.

    `walls` says what stands around the process from here on. `step` is how many steps led to the latest `checkpoint`,
    `trained` the local indices of the experts that learn.
    Raises `SkillError` or `ConfigError` for a folder that does not fit together.
    """

    def __init__(self, run_folder: str | Path) -> None:
        self.run = load_training_run(run_folder)
        self.config = RunConfig.read(self.run.run_folder / CONFIG)
        module = read_skill_module(self.run.module_path, self.config.environment.features)
        self.config.environment.spaces()  # loads what the environment needs, while files may be opened
        limit_files()
        self.walls = raise_walls(self.run.run_folder.resolve(), _caches(self.config.environment))
        self.functions = executed(module)
        _check_numbers(self.run, self.functions.task_to_skill_index, task_to_skill(module))
        seed_everything(self.config.seed)
        self.trained = frozenset(self.run.remap.global_to_local[expert] for expert in self.run.trained)
        self.environments = self._environments(None, self.config.algorithm.window)
        space, actions = self.environments.single_observation_space, self.environments.single_action_space
        model = part("model", self.config.model)
        self.policy = build_policy(model, space, actions, default_registry, seed=self.config.seed)
        self.step, self.checkpoint = self._latest()
        load_experts(self.policy, self.checkpoint)
        for name, parameter in self.policy.named_parameters():
            found = expert_name(name)
            parameter.requires_grad_(found is None or found.number in self.trained)

    def evaluate(self, episodes: int) -> Attempts:
        """Play whole plans in copies of their own, acting as in training, each copy its share."""
        count = min(episodes, self.environments.num_envs)
        quota = [episodes // count + (row < episodes % count) for row in range(count)]
        environments = self._environments(count, episodes, quota)
        self.policy.eval()
        try:
            with own_generators(EVALUATION_SEED, self.policy.device), few_threads(self.policy):
                playing = Playing(self.policy, environments, deterministic=False, seed=EVALUATION_SEED)
                while max(environments.quota or [0]) > 0:
                    playing.move()
            return environments.attempts
        finally:
            environments.close()

    def scores(self, attempts: Attempts) -> dict[str, float]:
        """By the skill's name: of its tasks that were begun, the share that was done."""
        names = {int(index): entry["skill"] for index, entry in self.run.about["experts"].items()}
        names[self.run.about["global_expert_idx"]] = self.run.about["skill_name"]
        by_local = attempts.scores(self.functions.task_to_skill_index)
        return {names[self.run.remap.local_to_global[local]]: rate for local, rate in by_local.items()}

    def _environments(self, count: int | None, window: int, quota: Sequence[int] | None = None) -> TaskProgression:
        functions = self.functions
        world = self.config.environment.world(functions, count)
        return TaskProgression(world, functions.task_to_skill_index, functions.num_common_heads, window, quota)

    def _latest(self) -> tuple[int, MoECheckpoint]:
        """The steps so far, and what they led to."""
        folder = self.run.policies_folder
        latest = max(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
        return latest, load_moe_checkpoint(folder / str(latest))


def _caches(environment: SkillEnvironment) -> list[Path]:
    """Where an environment keeps what it has compiled; made here, as a folder that is missing can't be opened."""
    cache = getattr(environment, "cache", None)
    folders = [] if cache is None else [Path(cache).expanduser()]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return folders


def _check_numbers(run: TrainingRun, told: Sequence[int], written: Sequence[int]) -> None:
    """What the executed functions name is what stands in the text, and every expert of the run is used."""
    if list(told) != list(written):
        raise SkillError(
            f"{run.module_path}: its tasks name experts {list(told)} when run, and {list(written)} as text"
        )
    if set(told) != set(run.remap.local_to_global):
        raise SkillError(f"{run.module_path}: uses experts {sorted(set(told))}, the run has {run.num_experts}")
