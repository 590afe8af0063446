"""The attention slot: how the tokens of a sequence read one another; importing this room registers its types."""

from policysmith.parts.attention.cross import CrossAttention
from policysmith.parts.attention.grouped import GroupedQueryAttention, MultiHeadAttention, MultiQueryAttention
from policysmith.parts.attention.latent import MultiHeadLatentAttention
from policysmith.parts.attention.latent_queries import LatentQueryAttention
from policysmith.parts.attention.pyramid import PyramidAttention
from policysmith.parts.attention.windowed import WindowAttention

__all__ = [
    "CrossAttention",
    "GroupedQueryAttention",
    "LatentQueryAttention",
    "MultiHeadAttention",
    "MultiHeadLatentAttention",
    "MultiQueryAttention",
    "PyramidAttention",
    "WindowAttention",
]
