"""Plain `nn.Module`s, tensors in and tensors out; importing this room registers its types."""

from policysmith.parts.action_embedding import ActionEmbedding
from policysmith.parts.activations import ReLU2
from policysmith.parts.attention import (
    CrossAttention,
    GroupedQueryAttention,
    LatentQueryAttention,
    MultiHeadAttention,
    MultiHeadLatentAttention,
    MultiQueryAttention,
    PyramidAttention,
    WindowAttention,
)
from policysmith.parts.bilinear import Bilinear
from policysmith.parts.bilinear_action_head import BilinearActionHead
from policysmith.parts.channels_first import ChannelsFirst
from policysmith.parts.combine import Concat, Difference, FiLM, Join, Mean, Sum
from policysmith.parts.conv import Conv, Impala, Nature
from policysmith.parts.divide import Divide
from policysmith.parts.embedding import Embedding
from policysmith.parts.encoders import CodeEncoder, ImageEncoder, OneHot, ToFloat
from policysmith.parts.feedforward import FeedForward, GatedFeedForward, MixtureOfExperts
from policysmith.parts.global_pool import GlobalPool
from policysmith.parts.initializers import orthogonal
from policysmith.parts.memory import GRU, LSTM, MinGRU
from policysmith.parts.mlp import MLP
from policysmith.parts.normalizer import RunningNormalizer
from policysmith.parts.norms import layer_norm
from policysmith.parts.outputs import PolicyOutput, ValueOutput
from policysmith.parts.position import (
    AlibiPosition,
    LearnedPosition,
    NoPosition,
    RotaryPosition,
    SinusoidalPosition,
)
from policysmith.parts.reshape import CentrePixel, Expand, Flatten, Fold, Slice
from policysmith.parts.residual import Add, Gated, GRUGate, LayerScale, ReZero
from policysmith.parts.residual_mlp import ResidualMLP
from policysmith.parts.residual_tower import ResidualTower
from policysmith.parts.se_resnet_tower import SEResNetTower
from policysmith.parts.squeeze_excitation import SqueezeExcitation
from policysmith.parts.swish_residual_mlp import SwishResidualMLP
from policysmith.parts.torch_layers import TORCH_LAYERS
from policysmith.parts.transformer import (
    DecoderBlock,
    DynamicTransformerCore,
    EncoderBlock,
    SequencePool,
    TimeEmbedding,
    TransformerMemory,
    TransformerStack,
)
from policysmith.parts.window_memory import WindowMemory

__all__ = [
    "ActionEmbedding",
    "CentrePixel",
    "Expand",
    "Fold",
    "Slice",
    "Bilinear",
    "BilinearActionHead",
    "ChannelsFirst",
    "CodeEncoder",
    "Divide",
    "Join",
    "PolicyOutput",
    "ValueOutput",
    "SwishResidualMLP",
    "GRU",
    "LSTM",
    "MLP",
    "TORCH_LAYERS",
    "Add",
    "AlibiPosition",
    "Concat",
    "Conv",
    "CrossAttention",
    "DecoderBlock",
    "Difference",
    "DynamicTransformerCore",
    "Embedding",
    "EncoderBlock",
    "FeedForward",
    "FiLM",
    "Flatten",
    "GRUGate",
    "Gated",
    "GatedFeedForward",
    "GlobalPool",
    "GroupedQueryAttention",
    "ImageEncoder",
    "Impala",
    "LatentQueryAttention",
    "LayerScale",
    "LearnedPosition",
    "Mean",
    "MinGRU",
    "MixtureOfExperts",
    "MultiHeadAttention",
    "MultiHeadLatentAttention",
    "MultiQueryAttention",
    "Nature",
    "NoPosition",
    "OneHot",
    "PyramidAttention",
    "ReLU2",
    "ReZero",
    "ResidualMLP",
    "ResidualTower",
    "RotaryPosition",
    "RunningNormalizer",
    "SEResNetTower",
    "SequencePool",
    "SinusoidalPosition",
    "SqueezeExcitation",
    "Sum",
    "TimeEmbedding",
    "ToFloat",
    "TransformerMemory",
    "TransformerStack",
    "WindowAttention",
    "WindowMemory",
    "layer_norm",
    "orthogonal",
]
