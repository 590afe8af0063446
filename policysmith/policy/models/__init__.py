"""Registered models: recipes that turn a few options into components, and whole classes of their own."""

from policysmith.policy.models.graph import graph
from policysmith.policy.models.mlp import mlp
from policysmith.policy.models.resnet import ActorCriticResTower, dummy, resnet

__all__ = ["ActorCriticResTower", "dummy", "graph", "mlp", "resnet"]
