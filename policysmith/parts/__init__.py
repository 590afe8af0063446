"""Plain `nn.Module`s, tensors in and tensors out; importing this room registers its types."""

from policysmith.parts.activations import ReLU2
from policysmith.parts.conv import Conv, Impala, Nature
from policysmith.parts.embedding import Embedding
from policysmith.parts.encoders import ImageEncoder, OneHot, ToFloat
from policysmith.parts.fusion import Concat, FiLM, Sum
from policysmith.parts.initializers import orthogonal
from policysmith.parts.mlp import MLP
from policysmith.parts.normalizer import RunningNormalizer
from policysmith.parts.norms import layer_norm
from policysmith.parts.reshape import Flatten
from policysmith.parts.residual_tower import ResidualTower
from policysmith.parts.squeeze_excitation import SqueezeExcitation
from policysmith.parts.torch_layers import TORCH_LAYERS

__all__ = [
    "MLP",
    "TORCH_LAYERS",
    "Concat",
    "Conv",
    "Embedding",
    "FiLM",
    "Flatten",
    "ImageEncoder",
    "Impala",
    "Nature",
    "OneHot",
    "ReLU2",
    "ResidualTower",
    "RunningNormalizer",
    "SqueezeExcitation",
    "Sum",
    "ToFloat",
    "layer_norm",
    "orthogonal",
]
