"""Component modules to import from: `LinearModule`, `MergeModule`, `LSTMModule` and the others.

Importing this room registers the parts that they are made of, which `graph` itself knows only by name.
"""

import policysmith.parts  # noqa: F401 - importing registers the types
from policysmith.graph.modules.layers import (
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
from policysmith.graph.modules.merge import MergeModule
from policysmith.graph.modules.recurrent import GRUModule, LSTMModule

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
