"""Registered models: recipes that turn a few options into components, and whole classes of their own."""

from policysmith.policy.models.graph import graph
from policysmith.policy.models.mlp import mlp
from policysmith.policy.models.moe import moe
from policysmith.policy.models.resnet import dummy, resnet
from policysmith.policy.models.se_resnet import se_resnet
from policysmith.policy.models.transformer import transformer

__all__ = [
    "dummy",
    "graph",
    "mlp",
    "moe",
    "resnet",
    "se_resnet",
    "transformer",
]
