"""`check_part` finds what breaks a law, names it, and lets a sound type pass."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from policysmith.errors import ConfigError, RegistryError
from policysmith.registry import default_registry
from policysmith.testing import LAWS, MEMORY_LAWS, check_part
from policysmith.types import Features, FlatFeatures

ROOT = Path(__file__).parent.parent.parent
SLOW_LAWS = {"exports": "slow", "compiles_whole": "slow"}  # they break for no type below


class Sound(nn.Module):
    """A linear map."""

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.linear = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Idle(Sound):
    """Its weights reach no output."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Coupled(Sound):
    """Each row sees the mean of all."""

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x - x.mean(0, keepdim=True))


class Exploding(Sound):
    """Its gradient at 0 is not finite."""

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + (x - x.detach()).abs().sqrt()


class Drawing(Sound):
    """Draws from a generator that no seed reaches."""

    def __init__(self, features: Features) -> None:
        super().__init__(features)
        self.register_buffer("noise", torch.tensor(random.random()))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.noise


class Deaf(nn.Module):
    """A memory that multiplies its state by zero: what was NaN stays NaN, and nothing is remembered."""

    def __init__(self, in_features: FlatFeatures) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, 4)

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        return {"h": self.linear.weight.new_zeros(batch, 4)}

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        y = self.linear(x)
        return y, {"h": y}

    def unroll(
        self, x: Tensor, state: dict[str, Tensor], first: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        y = self.linear(x) + 1
        return y, {"h": y[:, -1]}


BROKEN: dict[type[nn.Module], str] = {
    Idle: "parameters_get_gradients",
    Coupled: "rows_stand_alone",
    Exploding: "inputs_get_gradients",
    Drawing: "seeds_decide_the_weights",
    Deaf: "acting_is_learning",
}


def checked(kind: type[nn.Module], **options: object) -> None:
    registry = default_registry.copy()
    registry.register("mine", stateful=kind is Deaf)(kind)
    check_part(kind, [6], registry=registry, skip=SLOW_LAWS, **options)


def test_a_sound_type_passes():
    checked(Sound)


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_law_is_named_with_what_was_found(kind):
    with pytest.raises(AssertionError, match=re.escape(f"{BROKEN[kind]}: ")) as caught:
        checked(kind)
    assert str(caught.value).startswith("component 'mine' breaks ")


def test_a_parameter_without_a_gradient_is_excused_by_a_reason():
    checked(Idle, without_gradient={"linear.weight": "unused on purpose", "linear.bias": "unused on purpose"})
    with pytest.raises(AssertionError, match="of which the case says that none does"):
        checked(Sound, without_gradient={"linear.weight": "but it gets one"})


def test_a_law_that_is_skipped_must_exist():
    with pytest.raises(RegistryError, match=r"unknown law 'export' \(did you mean 'exports'\?\)"):
        check_part("mlp", [6], skip={"export": "?"})


def test_a_type_must_be_registered_and_fit_its_inputs():
    with pytest.raises(RegistryError, match="is not registered as a component"):
        check_part(Sound, [6])
    with pytest.raises(ConfigError, match="hiden"):
        check_part("mlp", [6], options={"hiden": [8]})


def test_a_part_of_the_package_passes_by_name():
    check_part("film", [[6], [3]], skip=SLOW_LAWS)


def test_the_laws_are_documented_and_named_apart():
    assert not set(LAWS) & set(MEMORY_LAWS)
    assert all(law.__doc__ for law in (*LAWS.values(), *MEMORY_LAWS.values()))


@pytest.mark.slow
def test_a_plugin_in_a_package_of_its_own_passes_them():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "test_snakes.py"]
    found = subprocess.run(command, cwd=ROOT / "examples" / "plugin", capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
