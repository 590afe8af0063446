"""The position slot: how a sequence model tells where a token stands; importing this room registers its types."""

from policysmith.parts.position.alibi import AlibiPosition
from policysmith.parts.position.learned import LearnedPosition
from policysmith.parts.position.rope import RotaryPosition
from policysmith.parts.position.sinusoidal import SinusoidalPosition
from policysmith.parts.position.slot import NoPosition, Position

__all__ = [
    "AlibiPosition",
    "LearnedPosition",
    "NoPosition",
    "Position",
    "RotaryPosition",
    "SinusoidalPosition",
]
