"""Networks for na-convert to feed on: quantisers, networks, data, training, export.

The only part of the project that imports torch (extra ``train``).
"""

from .export import export_onnx
from .networks import CifarResNet, build
from .noise import Noise
from .quantizer import Quantizer, initialise_steps, quantize

__all__ = [
    "CifarResNet",
    "Noise",
    "Quantizer",
    "build",
    "export_onnx",
    "initialise_steps",
    "quantize",
]
