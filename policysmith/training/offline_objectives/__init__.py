"""What offline learning minimises; importing registers the objectives."""

from policysmith.training.offline_objectives.awr import AdvantageWeightedRegression
from policysmith.training.offline_objectives.base import Learner, Loss, Objective, ObjectiveOption, Start
from policysmith.training.offline_objectives.bc import BehaviourCloning
from policysmith.training.offline_objectives.decision_transformer import DecisionTransformer
from policysmith.training.offline_objectives.flow_matching import FlowMatching
from policysmith.training.offline_objectives.iql import ImplicitQLearning

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
