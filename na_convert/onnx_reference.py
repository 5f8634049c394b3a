"""onnx.reference, with what it gets wrong (onnx 1.23) put right.

Each corrected operator has its test against onnxruntime; opset 13 and newer, in any float type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from .graph import Parts

Array = NDArray[Any]


def reference(model: onnx.ModelProto | Parts) -> ReferenceEvaluator:
    """onnx's own evaluator, used like a session: slow, and independent of onnxruntime."""
    whole = model.whole() if isinstance(model, Parts) else model
    return ReferenceEvaluator(whole, new_ops=[GlobalMaxPool, LRN, Pad])


class GlobalMaxPool(OpRun):
    """There, the maximum of images alone: of other ranks it is taken over other axes."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.asarray(x.max(axis=tuple(range(2, x.ndim)), keepdims=True)),)


class LRN(OpRun):
    """There, as many channels are computed as there are samples."""

    op_domain = ""

    def _run(self, x: Array, alpha: float, beta: float, bias: float, size: int) -> tuple[Array]:
        before = (size - 1) // 2
        reach = [(0, 0), (before, size - 1 - before), *[(0, 0)] * (x.ndim - 2)]
        sums = sliding_window_view(np.pad(x * x, reach), size, axis=1).sum(axis=-1)
        return (np.asarray(x / (bias + alpha / size * sums) ** beta, x.dtype),)


class Pad(OpRun):
    """There, negative pads, which crop, are an error."""

    op_domain = ""

    def _run(
        self,
        x: Array,
        pads: Array,
        value: Array | None = None,
        axes: Array | None = None,
        mode: str = "constant",
    ) -> tuple[Array]:
        widths = np.zeros((x.ndim, 2), np.int64)
        widths[np.arange(x.ndim) if axes is None else axes] = pads.reshape(2, -1).T
        kept = zip(x.shape, np.maximum(-widths, 0).tolist(), strict=True)
        cropped = x[tuple(slice(before, n - after) for n, (before, after) in kept)]
        options: dict[str, Any] = {"mode": mode}
        if mode == "constant":
            options["constant_values"] = 0 if value is None else value.item()
        return (np.pad(cropped, np.maximum(widths, 0), **options),)
