"""Transformers assembled from slots: blocks, whole stacks over windows, and stacks that remember an episode."""

from policysmith.parts.transformer.blocks import DecoderBlock, EncoderBlock
from policysmith.parts.transformer.core import DynamicTransformerCore
from policysmith.parts.transformer.extractors import BasicExtractor, InceptionExtractor, ResnetExtractor
from policysmith.parts.transformer.pool import SequencePool
from policysmith.parts.transformer.stack import TransformerStack
from policysmith.parts.transformer.time_embedding import TimeEmbedding
from policysmith.parts.transformer.transformer_memory import TransformerMemory, gtrxl

__all__ = [
    "BasicExtractor",
    "DecoderBlock",
    "DynamicTransformerCore",
    "EncoderBlock",
    "InceptionExtractor",
    "ResnetExtractor",
    "SequencePool",
    "TimeEmbedding",
    "TransformerMemory",
    "TransformerStack",
    "gtrxl",
]
