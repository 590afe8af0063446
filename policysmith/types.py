"""The annotated types that options share, each once: bounds that a configuration is checked by, and what is inferred.

An option of type `Count` in a signature is an integer above 0 in a file. A type below "Inferred" marks an argument that
follows from the shapes that flow in; a file need not state it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from policysmith.config.signatures import Infer, Repeated

__all__ = [
    "ActionLayout",
    "Categories",
    "Channels",
    "Count",
    "Dim",
    "Dropout",
    "EventShape",
    "EventShapes",
    "Features",
    "FlatFeatures",
    "ImageLayout",
    "ImageShape",
    "Name",
    "NonNegative",
    "NonNegativeInt",
    "NumActions",
    "NumEmbeddings",
    "NumExperts",
    "OpenShare",
    "Positive",
    "Repeats",
    "Share",
    "Width",
]

Count = Annotated[int, Gt(0)]
Repeats = Annotated[int, Gt(0), Repeated()]  # how often one thing is built: layers, blocks, experts
Width = Annotated[int, Gt(0)]  # a count of units in a layer
NonNegativeInt = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
OpenShare = Annotated[float, Gt(0), Lt(1)]  # both ends would make the quantity meaningless: a decay, a quantile
Dropout = Annotated[float, Ge(0), Lt(1)]  # a layer that drops everything learns nothing
Name = Annotated[str, MinLen(1)]
ImageLayout = Literal["hw", "hwc", "chw", "thw", "thwc", "tchw"]  # time or frames, height, width, channels

# Inferred. Shapes are of one row: the batch axis is left out.
Features = Annotated[int, Infer("features")]  # the size of the last axis
FlatFeatures = Annotated[int, Infer("flat_features")]  # all axes together
Channels = Annotated[int, Infer("channels")]
Dim = Annotated[int, Infer("dim")]  # the width of the tokens of the stack around a part
EventShape = Annotated[tuple[int, ...], Infer("event_shape")]
EventShapes = Annotated[tuple[tuple[int, ...], ...], Infer("event_shapes")]  # one for each input
ImageShape = Annotated[tuple[int, ...], Infer("image_shape")]
Categories = Annotated[tuple[int, ...], Infer("categories")]
NumEmbeddings = Annotated[int, Infer("num_embeddings")]
NumActions = Annotated[int, Infer("num_actions")]
NumExperts = Annotated[int, Infer("experts")]
ActionLayout = Annotated[tuple[tuple[int, int], ...], Infer("action_layout")]  # (start, size) of each leaf's parameters
