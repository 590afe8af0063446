"""The feedforward slot and the routers of mixtures: what a transformer block does to each token."""

from policysmith.parts.feedforward.feed_forward import FeedForward
from policysmith.parts.feedforward.gated import GatedFeedForward
from policysmith.parts.feedforward.mixture import MixtureOfExperts, update_biases
from policysmith.parts.feedforward.soft_router import SoftRouter
from policysmith.parts.feedforward.task_router import TaskRouter
from policysmith.parts.feedforward.topk_router import TopKRouter

__all__ = [
    "FeedForward",
    "GatedFeedForward",
    "MixtureOfExperts",
    "SoftRouter",
    "TaskRouter",
    "TopKRouter",
    "update_biases",
]
