"""Exports that onnxruntime's static quantisation has rewritten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from torch import nn

from .make import make


class _Reader(CalibrationDataReader):
    def __init__(self, shape: tuple[int, ...]) -> None:
        values = np.random.default_rng(1).uniform(-0.5, 1.5, (8, *shape))
        self._feeds = iter([{"x": value.astype(np.float32)} for value in values])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantised(structure: str, form: str, kind: str, folder: Path) -> Path:
    """`structure` with ReLUs, quantised: `form` QDQ or QOperator, activations u8 or s8."""
    made = make(structure, nn.ReLU, "legacy", folder)
    path = folder / f"ort_{structure}_{form}_{kind}.onnx"
    quantize_static(
        str(made.path), str(path), _Reader(made.shapes[0]),
        quant_format=QuantFormat[form], weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8 if kind == "u8" else QuantType.QInt8,
    )  # fmt: skip
    return path
