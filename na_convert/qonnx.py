"""QONNX quantisers in numpy: onnxruntime has no kernels for them.

Semantics of the ``qonnx`` library (github.com/fastmachinelearning/qonnx): ``Quant`` (also named
``IntQuant``), ``BipolarQuant`` and ``Trunc``, in any of the three domains that exporters write; and
FINN's ``MultiThreshold``, which counts the thresholds of its channel that a value reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import NotConvertible

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
_QUANTISERS = ("Quant", "IntQuant", "BipolarQuant", "Trunc")
OPS = (*_QUANTISERS, "MultiThreshold")

Array = NDArray[np.floating]


def is_qonnx(domain: str | None, op: str) -> bool:
    """Whether ``domain::op`` is one of the quantisers of this module."""
    return domain in DOMAINS and op in OPS


def is_pointwise(domain: str | None, op: str) -> bool:
    """Whether its other inputs broadcast to the first, as those of ONNX's own operators do."""
    return domain in DOMAINS and op in _QUANTISERS


def evaluate(op: str, inputs: Sequence[Array], attrs: Mapping[str, object]) -> Array:
    """The output of ``op``; same shape and dtype as ``inputs[0]``.

    The other inputs are those of the ONNX node: scale, zero point and bit width, which broadcast.
    Raises NotConvertible for a rounding mode or a number of inputs that is not known.
    """
    if op in ("Quant", "IntQuant"):
        result = _quant(inputs, attrs)
    elif op == "BipolarQuant":
        x, scale = inputs
        result = np.where(x / scale >= 0, scale, -scale)
    elif op == "Trunc":
        result = _trunc(inputs, attrs)
    elif op == "MultiThreshold":
        result = _multi_threshold(inputs, attrs)
    else:
        raise NotConvertible(f"unknown QONNX operator {op}", remedy=f"use one of {[*OPS]}")
    return np.asarray(result, dtype=inputs[0].dtype)


def rounding(mode: object) -> Callable[[Array], Array]:
    """The rounding function that QONNX calls ``mode``, in any case (``HALF_UP``: away from zero).

    Raises NotConvertible for a name that is not known.
    """
    name = str(mode).upper()
    if name not in _ROUNDING:
        raise NotConvertible(f"unknown rounding mode {mode!r}", remedy=f"use one of {[*_ROUNDING]}")
    return _ROUNDING[name]


def integer_range(bit_width: float, signed: bool, narrow: bool) -> tuple[float, float]:
    """Smallest and largest integer of a quantiser with ``bit_width`` bits."""
    if signed:
        half = 2.0 ** (bit_width - 1)
        return -half + narrow, half - 1
    return 0.0, 2.0**bit_width - 1 - narrow


def _quant(inputs: Sequence[Array], attrs: Mapping[str, object]) -> Array:
    x, scale, zero_point, bit_width = inputs
    bits = float(np.max(bit_width))
    signed = bool(attrs.get("signed", 1))
    position: Array = np.asarray(x / scale + zero_point)
    if bits == 1 and signed:
        return np.asarray((np.where(position >= 0, 1.0, -1.0) - zero_point) * scale)
    low, high = integer_range(bits, signed, bool(attrs.get("narrow", 0)))
    level = rounding(attrs.get("rounding_mode", "ROUND"))(np.clip(position, low, high))
    return np.asarray((level - zero_point) * scale)


def _trunc(inputs: Sequence[Array], attrs: Mapping[str, object]) -> Array:
    x, scale, zero_point = inputs[:3]
    level = np.round(x / scale + zero_point)
    rounded = rounding(attrs.get("rounding_mode", "FLOOR"))
    if len(inputs) == 5:  # version 1: the bits dropped say how far to shift, the scale stays
        shift = 2.0 ** (np.max(inputs[3]) - np.max(inputs[4]))
        return np.asarray((rounded(level / shift) - zero_point) * scale)
    if len(inputs) not in (6, 7):
        raise NotConvertible(f"Trunc with {len(inputs)} inputs", remedy="export with a newer qonnx")
    output_scale, output_bits = inputs[4], inputs[-1]
    ratio = 2.0 ** np.round(np.log2(output_scale / scale))
    signed, narrow = bool(attrs.get("signed", 1)), bool(attrs.get("narrow", 0))
    low, high = integer_range(float(np.max(output_bits)), signed, narrow)
    truncated = rounded(np.clip(level / ratio, low, high))
    return np.asarray((truncated - zero_point / ratio) * output_scale)


def beside(thresholds: Array, rank: int | None, attrs: Mapping[str, object]) -> Array:
    """``thresholds`` [C, n] of a MultiThreshold, for an input of ``rank`` axes and one more behind.

    Images have their channels where ``data_layout`` says, other inputs have them last.
    """
    first = rank == 4 and attrs.get("data_layout", "NCHW") == "NCHW"
    return thresholds[:, None, None] if first else thresholds


def output_scale(attrs: Mapping[str, object]) -> tuple[float, float]:
    """By which a MultiThreshold multiplies its count, and what it adds."""
    scale, bias = attrs.get("out_scale", 1.0), attrs.get("out_bias", 0.0)
    return np.asarray(scale, np.float64).item(), np.asarray(bias, np.float64).item()


def _multi_threshold(inputs: Sequence[Array], attrs: Mapping[str, object]) -> Array:
    x, thresholds = inputs
    scale, bias = output_scale(attrs)
    reached = x[..., None] >= beside(thresholds, x.ndim, attrs)
    return np.asarray(reached.sum(axis=-1) * scale + bias)


def _half_away(x: Array) -> Array:
    return np.asarray(np.sign(x) * np.floor(np.abs(x) + 0.5))


def _half_toward_zero(x: Array) -> Array:
    return np.asarray(np.sign(x) * np.ceil(np.abs(x) - 0.5))


def _away_from_zero(x: Array) -> Array:
    return np.asarray(np.sign(x) * np.ceil(np.abs(x)))


_ROUNDING: dict[str, Callable[[Array], Array]] = {
    "ROUND": np.round,
    "HALF_EVEN": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": _away_from_zero,
    "DOWN": np.trunc,
    "ROUND_TO_ZERO": np.trunc,
    "HALF_UP": _half_away,
    "HALF_DOWN": _half_toward_zero,
}
