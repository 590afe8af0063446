"""The directory of a run: one run at a time, its latest state, the best policy, and checkpoints that are kept.

In: a place, and what is to be stored. Out: `<place>` itself (the latest, an artifact with training state), `best/` (the
policy that was judged best) and `checkpoints/<step>/` (the last few, as they were).
"""

from __future__ import annotations

import json
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from policysmith.policy.actor_critic import ActorCritic
from policysmith.store import TrainingState, save
from policysmith.store.artifact import MANIFEST, OWN, TRAINING, check_target
from policysmith.store.files import link_directory
from policysmith.store.locks import claimed
from policysmith.training.distribution.shards import FOLDER as SHARDS
from policysmith.training.distribution.shards import remove_shards

__all__ = ["RunFolder", "is_taken"]

BEST, CHECKPOINTS = "best", "checkpoints"


class RunFolder:
    """`keep` is how many checkpoints stay beside the latest."""

    def __init__(self, place: Path, keep: int = 0) -> None:
        self.place, self.keep = place, keep
        self._ours = not _is_artifact(place)  # what lies there by the end is of this run

    def claim(self) -> AbstractContextManager[None]:
        """The directory for this run alone; raises `PolicysmithError` where another one is at work,
        and `CheckpointError` where something else than a policy lies there.
        """
        check_target(self.place)
        target = self.place.resolve()
        taken = f"another training is at work in {self.place}: wait for its end, or choose another --output"
        return claimed(target.with_name(f".{target.name}.lock"), taken)

    def write(self, policy: ActorCritic, training: TrainingState) -> None:
        """Store the latest."""
        save(policy, self.place, training=training)
        remove_shards(self.place)

    def keep_copy(self, step: int) -> None:
        """Keep the latest as the checkpoint of that step, and no more than so many."""
        if self.keep:
            folder = self.place / CHECKPOINTS
            link_directory(self.place, sorted(OWN), folder / str(step))
            kept = sorted((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
            for older in kept[: -self.keep]:
                shutil.rmtree(older, ignore_errors=True)

    def write_best(self, policy: ActorCritic) -> None:
        """Store the policy as the best so far."""
        save(policy, self.best)

    @property
    def best(self) -> Path:
        """Where the best policy lies, if there is one."""
        return self.place / BEST

    def discard(self) -> None:
        """Take away the beginning of a run that learned nothing, so that the next one finds the place free."""
        if self._ours:
            for name in OWN:
                (self.place / name).unlink(missing_ok=True)
            if self.place.is_dir() and not any(self.place.iterdir()):
                self.place.rmdir()


def is_taken(place: Path) -> bool:
    """Whether a policy lies there that a new run must not replace: any but that of a run killed before it learned."""
    return _is_artifact(place) and not (_step(place) == 0 and not (place / SHARDS).exists())


def _is_artifact(place: Path) -> bool:
    return (place / MANIFEST).is_file()


def _step(place: Path) -> int | None:
    try:
        data = json.loads((place / TRAINING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data.get("step") if isinstance(data, dict) else None
