"""Component modules to import from: `LinearModule`, `MergeModule`, `LSTMModule` and the others."""

from typing import TYPE_CHECKING

from policysmith.lazy_names import lazy_names

if TYPE_CHECKING:
    from policysmith.dialects.metta.modules import (
        ActivationModule,
        ActorModule,
        Conv2dModule,
        DropoutModule,
        EmbeddingModule,
        FlattenModule,
        GRUModule,
        LayerNormModule,
        LinearModule,
        LSTMModule,
        MergeModule,
        ObsModule,
        PartModule,
        ReLUModule,
    )

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

__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "policysmith.dialects.metta.modules"))
