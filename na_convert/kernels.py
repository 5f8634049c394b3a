"""Vectorised numpy kernels of the operators that onnx.reference runs slowly, or in float32 only.

Each takes a node, its inputs (None where an optional one is missing) and the float type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

Array: TypeAlias = NDArray[Any]
Inputs: TypeAlias = Sequence[Array | None]
Kernel: TypeAlias = Callable[[gs.Node, Inputs, "np.dtype[Any]"], Array]

_FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


# --- convolution ----------------------------------------------------------------------------------


def conv(node: gs.Node, inputs: Inputs, dtype: np.dtype[Any]) -> Array:
    """Conv in any number of dimensions, as one matrix product per sample."""
    x, w = _present(inputs[0]), _present(inputs[1])
    kernel, strides, dilations = _geometry(node, w.shape[2:])
    pads = pads_of(node, x.shape[2:], kernel, strides, dilations)
    y = _convolve(_padded(x, pads, 0), w, strides, dilations, int(node.attrs.get("group", 1)))
    return _add_bias(y, inputs)


def conv_transpose(node: gs.Node, inputs: Inputs, dtype: np.dtype[Any]) -> Array:
    """ConvTranspose: zeros between the pixels, then Conv with the mirrored kernel, then cropped."""
    x, w = _present(inputs[0]), _present(inputs[1])
    kernel, strides, dilations = _geometry(node, w.shape[2:])
    rank, group = len(kernel), int(node.attrs.get("group", 1))
    extra = list(node.attrs.get("output_padding") or [0] * rank)
    spread = np.zeros(
        (*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], strides, strict=True))),
        x.dtype,
    )
    spread[_spatial(slice(None, None, s) for s in strides)] = x
    reach = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
    widened = [(r, r + e) for r, e in zip(reach, extra, strict=True)]
    mirrored = np.flip(w, tuple(range(2, w.ndim)))
    grouped = mirrored.reshape(group, w.shape[0] // group, *w.shape[1:]).swapaxes(1, 2)
    per_output = grouped.reshape(-1, w.shape[0] // group, *w.shape[2:])
    full = _convolve(_padded(spread, widened, 0), per_output, [1] * rank, dilations, group)
    crops = transposed_pads_of(node, x.shape[2:], full.shape[2:], strides)
    kept = [slice(a, n - b) for (a, b), n in zip(crops, full.shape[2:], strict=True)]
    return _add_bias(full[_spatial(kept)], inputs)


def _convolve(
    x: Array, w: Array, strides: Sequence[int], dilations: Sequence[int], group: int
) -> Array:
    """``x`` [N, C, ...] (padded) with ``w`` [M, C/group, ...], no bias."""
    extent = [d * (k - 1) + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
    axes = tuple(range(2, x.ndim))
    windows = sliding_window_view(x, extent, axis=axes)
    steps = [slice(None, None, step) for step in (*strides, *dilations)]
    windows = windows[_spatial(steps)]
    space = windows.shape[2 : x.ndim]
    kernel_first = (0, *range(x.ndim - 1, windows.ndim - 1), *range(1, x.ndim - 1))
    matrix = w.reshape(group, w.shape[0] // group, -1)
    y = np.empty((x.shape[0], w.shape[0], prod(space)), np.result_type(x, w))
    for sample, out in zip(windows, y, strict=True):  # one by one: the windows are a large copy
        columns = sample.transpose(kernel_first).reshape(group, matrix.shape[2], -1)
        np.matmul(matrix, columns, out=out.reshape(group, matrix.shape[1], -1))
    return y.reshape(x.shape[0], w.shape[0], *space)


def _add_bias(y: Array, inputs: Inputs) -> Array:
    bias = inputs[2] if len(inputs) > 2 else None
    if bias is not None:
        y += bias.reshape(-1, *[1] * (y.ndim - 2))
    return y


def transposed_pads_of(
    node: gs.Node, size: Sequence[int], full: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """What a ConvTranspose cuts off ``full``, (before, after) per spatial axis."""
    rank = len(size)
    mode = node.attrs.get("auto_pad", "NOTSET")
    wanted = node.attrs.get("output_shape")
    if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(size, strides, strict=True)]
    if wanted is None:
        flat = list(node.attrs.get("pads") or [0] * (2 * rank))
        return list(zip(flat[:rank], flat[rank:], strict=True))
    totals = [f - w for f, w in zip(full, list(wanted)[-rank:], strict=True)]
    if mode == "SAME_UPPER":
        return [(t // 2, t - t // 2) for t in totals]
    return [(t - t // 2, t // 2) for t in totals]


# --- pooling --------------------------------------------------------------------------------------


def max_pool(node: gs.Node, inputs: Inputs, dtype: np.dtype[Any]) -> Array:
    """MaxPool without the indices; padding never wins."""
    x = _present(inputs[0])
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    result: Array | None = None
    for window in _pool_windows(node, x, lowest, lowest):
        result = window.copy() if result is None else np.maximum(result, window, out=result)
    return _present(result)


def average_pool(node: gs.Node, inputs: Inputs, dtype: np.dtype[Any]) -> Array:
    """AveragePool; what ceil_mode adds beyond the padding never counts."""
    x = _present(inputs[0])
    ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
    inside = 1.0 if node.attrs.get("count_include_pad", 0) else 0.0
    total = sum(_pool_windows(node, x, 0))
    count = sum(_pool_windows(node, ones, inside))
    return np.asarray(total / count)


def sum_pool(node: gs.Node, x: Array) -> Array:
    """What the windows of an AveragePool hold in total."""
    return np.asarray(sum(_pool_windows(node, x, 0)))


def _pool_windows(node: gs.Node, x: Array, padding: float, behind: float = 0) -> list[Array]:
    """One view per position inside the kernel, each [N, C, output ...].

    ``behind`` the padding stands what the last windows of ceil_mode lack.
    """
    kernel, strides, dilations = _geometry(node, node.attrs["kernel_shape"])
    size = x.shape[2:]
    pads = pads_of(node, size, kernel, strides, dilations)
    ceil = bool(node.attrs.get("ceil_mode", 0))
    outputs, beyond = [], []
    for n, k, s, d, (before, after) in zip(size, kernel, strides, dilations, pads, strict=True):
        room = n + before + after - (d * (k - 1) + 1)
        count = (-(-room // s) if ceil else room // s) + 1
        if ceil and (count - 1) * s >= n + before:  # a window must start inside
            count -= 1
        outputs.append(count)
        beyond.append((0, max(0, (count - 1) * s + d * (k - 1) + 1 - n - before - after)))
    padded = _padded(_padded(x, pads, padding), beyond, behind)
    views = []
    for position in product(*(range(k) for k in kernel)):
        starts = [i * d for i, d in zip(position, dilations, strict=True)]
        spans = [(n - 1) * s + 1 for n, s in zip(outputs, strides, strict=True)]
        taken = (slice(a, a + n, s) for a, n, s in zip(starts, spans, strides, strict=True))
        views.append(padded[_spatial(taken)])
    return views


# --- linear algebra and normalisation -------------------------------------------------------------


def gemm(node: gs.Node, inputs: Inputs, dtype: np.dtype[Any]) -> Array:
    a, b = _present(inputs[0]), _present(inputs[1])
    a = a.T if node.attrs.get("transA", 0) else a
    b = b.T if node.attrs.get("transB", 0) else b
    y = dtype.type(node.attrs.get("alpha", 1.0)) * (a @ b)
    if len(inputs) > 2 and inputs[2] is not None:
        y = y + dtype.type(node.attrs.get("beta", 1.0)) * inputs[2]
    return np.asarray(y)


def matmul(node: gs.Node, inputs: Inputs, dtype: np.dtype[Any]) -> Array:
    return np.asarray(np.matmul(_present(inputs[0]), _present(inputs[1])))


def batch_normalization(node: gs.Node, inputs: Inputs, dtype: np.dtype[Any]) -> Array:
    """BatchNormalization in evaluation mode."""
    x, *rest = (_present(i) for i in inputs)
    scale, bias, mean, var = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in rest)
    epsilon = dtype.type(np.float32(node.attrs.get("epsilon", 1e-5)))
    return np.asarray((x - mean) * (scale / np.sqrt(var + epsilon)) + bias)


# --- types ----------------------------------------------------------------------------------------


def cast(node: gs.Node, inputs: Inputs, dtype: np.dtype[Any]) -> Array:
    """Cast; to any float type means to ``dtype``."""
    target = node.attrs["to"]
    if isinstance(target, type | np.dtype):
        wanted = dtype if np.issubdtype(target, np.floating) else np.dtype(target)
    else:
        known = tensor_dtype_to_np_dtype(int(target))
        wanted = dtype if int(target) in _FLOAT_TYPES else known
    return _present(inputs[0]).astype(wanted)


def quantize_linear(node: gs.Node, inputs: Inputs, dtype: np.dtype[Any]) -> Array:
    """QuantizeLinear to an integer type: halves to even, saturated."""
    x, scale = _present(inputs[0]), _present(inputs[1])
    zero = inputs[2] if len(inputs) > 2 else None
    target = _quantized_type(node, zero)
    low, high = _integer_range(target)
    offset = 0 if zero is None else _along_axis(zero.astype(np.int64), node, x)
    level = np.round(x / _along_axis(scale, node, x)) + offset
    return np.asarray(np.clip(level, low, high).astype(target))


def dequantize_linear(node: gs.Node, inputs: Inputs, dtype: np.dtype[Any]) -> Array:
    x, scale = _present(inputs[0]), _present(inputs[1])
    zero = inputs[2] if len(inputs) > 2 else None
    level = x.astype(dtype)
    if zero is not None:
        level = level - _along_axis(zero.astype(dtype), node, x)
    return np.asarray(level * _along_axis(scale.astype(dtype), node, x))


def _quantized_type(node: gs.Node, zero: Array | None) -> np.dtype[Any]:
    if zero is not None:
        return zero.dtype
    named = int(node.attrs.get("output_dtype", 0)) or TensorProto.UINT8
    return np.dtype(tensor_dtype_to_np_dtype(named))


def _integer_range(target: np.dtype[Any]) -> tuple[int, int]:
    if target.kind in "iu":
        info = np.iinfo(target)
        return int(info.min), int(info.max)
    bits = int(target.name.rpartition("int")[2])  # int4, uint2 and the like
    unsigned = target.name.startswith("u")
    return (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _along_axis(values: Array, node: gs.Node, x: Array) -> Array:
    """A scale or zero point, shaped to broadcast against ``x``."""
    if values.ndim == 0 or values.size == 1:
        return values.reshape(())
    axis = int(node.attrs.get("axis", 1)) % x.ndim
    if values.ndim == 1:
        return values.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    block = int(node.attrs["block_size"])
    return np.repeat(values, block, axis=axis)[tuple(slice(n) for n in x.shape)]


# --- ours -----------------------------------------------------------------------------------------


def identity(node: gs.Node, inputs: Inputs, dtype: np.dtype[Any]) -> Array:
    return _present(inputs[0])


def staircase(node: gs.Node, inputs: Inputs, dtype: np.dtype[Any]) -> Array:
    x, d, s, lo, phi = (_present(i) for i in inputs)
    level = np.clip(np.floor(x / d + (phi - lo)), 0, int(node.attrs["levels"]))
    return np.asarray(s * (lo + level))


def ramp(node: gs.Node, inputs: Inputs, dtype: np.dtype[Any]) -> Array:
    x, low, high, output_low, gain = (_present(i) for i in inputs)
    return np.asarray(output_low + gain * (np.clip(x, low, high) - low))


# --- shared ---------------------------------------------------------------------------------------


def _spatial(slices: Iterable[slice]) -> tuple[Any, ...]:
    """An index of the last axes, one slice each."""
    return (..., *slices)


def _present(value: Array | None) -> Array:
    if value is None:
        raise ValueError("a required input is missing")
    return value


def _geometry(node: gs.Node, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    kernel = [int(k) for k in kernel]
    strides = [int(s) for s in node.attrs.get("strides") or [1] * len(kernel)]
    dilations = [int(d) for d in node.attrs.get("dilations") or [1] * len(kernel)]
    return kernel, strides, dilations


def pads_of(
    node: gs.Node,
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[tuple[int, int]]:
    """(before, after) per spatial axis, from ``pads`` or ``auto_pad``."""
    rank = len(kernel)
    mode = node.attrs.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return [(0, 0)] * rank
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        flat = [int(p) for p in node.attrs.get("pads") or [0] * (2 * rank)]
        return list(zip(flat[:rank], flat[rank:], strict=True))
    pads = []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        half = total // 2
        pads.append((half, total - half) if mode == "SAME_UPPER" else (total - half, half))
    return pads


def _padded(x: Array, pads: Sequence[tuple[int, int]], value: float) -> Array:
    if not any(a or b for a, b in pads):
        return x
    widths = [(0, 0)] * (x.ndim - len(pads)) + list(pads)
    return np.pad(x, widths, constant_values=value)


STANDARD: Mapping[str, Kernel] = {
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Cast": cast,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DequantizeLinear": dequantize_linear,
    "Gemm": gemm,
    "Identity": identity,
    "MatMul": matmul,
    "MaxPool": max_pool,
    "QuantizeLinear": quantize_linear,
}

OURS: Mapping[str, Kernel] = {
    "Decode": identity,
    "Encode": identity,
    "MaxPoolCounts": max_pool,
    "Ramp": ramp,
    "Staircase": staircase,
}


def find(node: gs.Node) -> Kernel | None:
    """The kernel here for ``node``, if there is one that covers its attributes and outputs."""
    if len(node.outputs) > 1 or node.attrs.get("training_mode", 0):
        return None
    if node.domain == "na_convert":
        return OURS.get(node.op)
    return STANDARD.get(node.op) if (node.domain or "") in ("", "ai.onnx") else None
