"""What a run's `config.yaml` tells the worker: where a skill is trained, which model, how, and when it is enough.

In: the file that `prepare_training_run` wrote. Out: types that are built, options that are checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from policysmith.errors import SkillError
from policysmith.registry import part
from policysmith.skills.environments import SkillEnvironment
from policysmith.skills.training.skill_ppo import SkillPPO

__all__ = ["RunConfig"]


@dataclass(frozen=True)
class RunConfig:
    """What `config.yaml` says. `success` ends the training early, `seconds` is the budget of all attempts together."""

    environment: SkillEnvironment
    model: Mapping[str, Any]
    algorithm: SkillPPO
    seed: int | None
    success: float | None
    seconds: float | None

    @classmethod
    def read(cls, file: Path) -> RunConfig:
        """Raises `ConfigError` or `SkillError` for a file that does not say what is needed."""
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        if missing := [name for name in ("environment", "model", "training") if name not in data]:
            raise SkillError(f"{file}: has no {missing[0]}")
        environment = part("skill_environment", data["environment"]).build()
        training = part("algorithm", {"type": "skill_ppo", **data["training"]})
        if not training.entry.traits.get("skills"):
            raise SkillError(f"{file}: training.type is {training.type!r}; skills are trained by skill_ppo")
        model = {**data["model"], "type": "moe", "num_tasks": data["num_experts"]}
        return cls(environment, model, training.build(), data.get("seed"), data.get("success"), data.get("seconds"))
