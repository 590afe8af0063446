"""A two-joint arm that reaches for a target it sees: the plugin of this example (`policysmith --plugin arm.py …`).

Registers the environment `Arm-v0` and `arm_expert`, a head that knows where the joints have to go. Observations:
`image` (32, 32, 3), which alone shows the target; `proprioception` (4,), the joints' sines and cosines; and `error`
(2,), how far each joint is from where it should be, for the expert. Actions are the joints' velocities.
"""

from typing import Annotated

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from policysmith import register
from policysmith.registry import Infer

SIZE, LINKS, SPEED, STEPS = 32, (0.5, 0.45), 0.25, 25
GROUND, ARM, TARGET = (20, 22, 28), (90, 150, 230), (240, 170, 60)


class Arm(gym.Env):
    """Reward is minus the distance between fingertip and target, in lengths of the arm."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.observation_space = spaces.Dict(
            image=spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
            proprioception=spaces.Box(-1, 1, (4,), np.float32),
            error=spaces.Box(-np.pi, np.pi, (2,), np.float32),
        )
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self.joints = self.wanted = np.zeros(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.joints = self._drawn()
        self.wanted = self._drawn()
        return self._observe(), {}

    def step(self, action):
        self.joints = self.joints + SPEED * np.clip(action, -1, 1)
        distance = float(np.linalg.norm(_points(self.joints)[1] - _points(self.wanted)[1]))
        return self._observe(), -distance, False, False, {}

    def render(self):
        return np.kron(self._image(), np.ones((8, 8, 1), np.uint8))

    def _drawn(self):
        """Shoulder anywhere in front, elbow bent to one side: each target has one pose."""
        return np.array([self.np_random.uniform(-1.5, 1.5), self.np_random.uniform(0.3, 2.2)])

    def _observe(self):
        error = (self.wanted - self.joints + np.pi) % (2 * np.pi) - np.pi
        joints = np.concatenate([np.sin(self.joints), np.cos(self.joints)])
        return {
            "image": self._image(),
            "proprioception": joints.astype(np.float32),
            "error": error.astype(np.float32),
        }

    def _image(self):
        image = np.full((SIZE, SIZE, 3), GROUND, np.uint8)
        elbow, tip = _points(self.joints)
        along = np.linspace(0, 1, 16)[:, None]
        _draw(image, along * elbow, ARM)
        _draw(image, elbow + along * (tip - elbow), ARM)
        near = np.array([[x, y] for x in (-1, 0, 1) for y in (-1, 0, 1)]) * (2 / SIZE)
        _draw(image, _points(self.wanted)[1] + near, TARGET)
        return image


def _points(joints):
    """Elbow and fingertip (2,) of a pose."""
    first, second = joints[0], joints[0] + joints[1]
    elbow = LINKS[0] * np.array([np.cos(first), np.sin(first)])
    return elbow, elbow + LINKS[1] * np.array([np.cos(second), np.sin(second)])


def _draw(image, points, color):
    columns, rows = np.clip(((points + 1) / 2 * SIZE).astype(int), 0, SIZE - 1).T
    image[rows, columns] = color


gym.register("Arm-v0", entry_point=Arm, max_episode_steps=STEPS)


@register("arm_expert", role="policy")
class ArmExpert(nn.Module):
    """Errors (*, 2) → parameters (*, 4) of a narrow Gaussian about the velocities that undo them."""

    def __init__(
        self,
        in_features: Annotated[int, Infer("flat_features")],
        layout: Annotated[tuple[tuple[int, int], ...], Infer("action_layout")],
        gain: float = 2.0,
    ) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        velocity = (self.gain * x).clamp(-1, 1)
        return torch.cat([velocity, torch.full_like(velocity, -3.0)], -1)
