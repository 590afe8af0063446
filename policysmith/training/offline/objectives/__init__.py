"""What offline learning minimises; importing registers the objectives."""

from policysmith.training.offline.objectives.awr import AdvantageWeightedRegression
from policysmith.training.offline.objectives.bc import BehaviourCloning
from policysmith.training.offline.objectives.decision_transformer import DecisionTransformer
from policysmith.training.offline.objectives.flow_matching import FlowMatching
from policysmith.training.offline.objectives.iql import ImplicitQLearning
from policysmith.training.offline.objectives.learner import Learner, Loss, Objective, ObjectiveOption, Start

__all__ = [
    "AdvantageWeightedRegression",
    "BehaviourCloning",
    "DecisionTransformer",
    "FlowMatching",
    "ImplicitQLearning",
    "Learner",
    "Loss",
    "Objective",
    "ObjectiveOption",
    "Start",
]
