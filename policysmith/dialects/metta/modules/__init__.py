"""Component modules by the names of the component proposal; importing them registers the parts they are made of."""

import policysmith.parts  # noqa: F401 - importing registers the types
from policysmith.dialects.metta.modules.layers import (
    ActivationModule,
    ActorModule,
    Conv2dModule,
    DropoutModule,
    EmbeddingModule,
    FlattenModule,
    LayerNormModule,
    LinearModule,
    ObsModule,
    PartModule,
    ReLUModule,
)
from policysmith.dialects.metta.modules.merge import MergeModule
from policysmith.dialects.metta.modules.recurrent import GRUModule, LSTMModule

__all__ = [
    "ActivationModule",
    "ActorModule",
    "Conv2dModule",
    "DropoutModule",
    "EmbeddingModule",
    "FlattenModule",
    "GRUModule",
    "LSTMModule",
    "LayerNormModule",
    "LinearModule",
    "MergeModule",
    "ObsModule",
    "PartModule",
    "ReLUModule",
]
