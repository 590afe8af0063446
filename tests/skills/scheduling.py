"""A skills file whose workers are fakes: what the scheduler's tests are made of."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Annotated, Any

import yaml
from annotated_types import Gt

import policysmith.policy.models
import policysmith.skills.scheduling.local
import policysmith.skills.scheduling.ray_launcher  # noqa: F401 - importing registers the types
from policysmith.registry import default_registry
from policysmith.skills.scheduling.skills_file import read_skills_file
from policysmith.skills.scheduling.skills_session import train_skills

CODE = "def task_is_done(x, n=1):\n    return x > n\n\n\ndef task_reward(x):\n    return x\n"
REGISTRY = default_registry.copy()


class FakeEnvironment:
    features = frozenset({"x", "y"})

    def __init__(self, size: int = 3) -> None: ...


class FakeTraining:
    def __init__(
        self,
        total_steps: Annotated[int, Gt(0)] = 10,
        events: str = "",
        pace: float = 0.0,
        kill_at: int | None = None,
        fail_at: int | None = None,
        hold: float = 0.0,
        deaf: bool = False,
        poor: bool = False,
    ) -> None: ...


REGISTRY.register("fake_environment", slot="skill_environment")(FakeEnvironment)
REGISTRY.register("fake_training", slot="algorithm", skills=True)(FakeTraining)


class World:
    """A folder with a skills file; `skills` are its entries, `scheduler` its section."""

    def __init__(self, folder: Path, skills: dict[str, Any], **scheduler: Any) -> None:
        self.folder, self.events_file = folder, folder / "events.jsonl"
        for name, said in skills.items():
            said.setdefault("code", f"{name}.py")
            (folder / f"{name}.py").write_text(CODE)
        self.data = {
            "environment": "fake_environment",
            "training": {"type": "fake_training", "events": str(self.events_file)},
            "scheduler": {"backoff": 0.01, **scheduler},
            "skills": skills,
        }
        self.write()

    def write(self) -> None:
        (self.folder / "skills.yaml").write_text(yaml.safe_dump(self.data, sort_keys=False))

    def read(self, *overrides: str):
        return read_skills_file(self.folder / "skills.yaml", overrides, registry=REGISTRY)

    def train(self, *overrides: str, **options: Any):
        return train_skills(self.read(*overrides), command=command, **options)

    def in_child(self, **options: Any) -> int:
        """Train in a process of its own, and give its number."""
        pid = os.fork()
        if pid == 0:
            try:
                self.train(**options)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        return pid

    def events(self, kind: str | None = None, skill: str | None = None) -> list[dict[str, Any]]:
        lines = self.events_file.read_text().splitlines() if self.events_file.exists() else []
        found = [json.loads(line) for line in lines]
        return [e for e in found if kind in (None, e["event"]) and skill in (None, e["skill"])]

    def run_folder(self, skill: str) -> Path | None:
        return next((self.folder / "library" / "training_runs").glob(f"skill_*_{skill}"), None)

    def heads(self) -> dict[str, int]:
        """Skill → frames of its head."""
        found = (self.folder / "library" / "skills").glob("*/expert_*_policy/metadata.json")
        return {(data := json.loads(file.read_text()))["skill_name"]: data["frames"] for file in found}


def command(folder: Path) -> tuple[str, ...]:
    return (sys.executable, "-I", str(Path(__file__).with_name("fake_worker.py")), str(folder))


def until(condition, seconds: float = 30.0):
    """Wait for something to become true, and give it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
    return found
