"""Networks for na-convert to feed on: quantisers, networks, data, training, export.

The only part of the project that imports torch (extra ``train``).
"""

from .export import export_onnx
from .networks import CifarResNet
from .quantizer import Quantizer, initialise_steps, quantize

__all__ = ["CifarResNet", "Quantizer", "export_onnx", "initialise_steps", "quantize"]
