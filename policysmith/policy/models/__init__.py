"""Registered models: recipes that turn a few options into components, and whole classes of their own."""

from policysmith.policy.models.graph import graph
from policysmith.policy.models.mlp import mlp

__all__ = ["graph", "mlp"]
