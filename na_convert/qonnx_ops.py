"""Quantisers that only QONNX knows (Quant, IntQuant, BipolarQuant, Trunc), in numpy.

After the operators' definitions in the QONNX repository, which follow Brevitas; the same operators
appear in three domains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .kernels import Inputs, Kernel

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")

Array = NDArray[np.generic]


def half_even(x: Array) -> Array:
    return np.asarray(np.round(x))


def half_away(x: Array) -> Array:
    return np.asarray(np.sign(x) * np.floor(np.abs(x) + 0.5))


def half_down(x: Array) -> Array:
    return np.asarray(np.sign(x) * np.ceil(np.abs(x) - 0.5))


def away(x: Array) -> Array:
    return np.asarray(np.sign(x) * np.ceil(np.abs(x)))


ROUNDING: Mapping[str, Callable[[Array], Array]] = {
    "ROUND": half_even,
    "HALF_EVEN": half_even,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": away,
    "DOWN": np.trunc,
    "ROUND_TO_ZERO": np.trunc,
    "HALF_UP": half_away,
    "HALF_DOWN": half_down,
}


def quant(node: gs.Node, inputs: Inputs, dtype: np.dtype[np.floating]) -> Array:
    """Quant and IntQuant ``(x, scale, zero_point, bit_width)``."""
    x, scale, zero, bits = inputs
    signed, narrow = bool(node.attrs.get("signed", 1)), bool(node.attrs.get("narrow", 0))
    low, high = integer_range(np.asarray(bits), signed=signed, narrow=narrow)
    level = np.clip(np.asarray(x) / scale + zero, low, high)
    return np.asarray((_rounding(node, "ROUND")(level) - zero) * scale)


def bipolar_quant(node: gs.Node, inputs: Inputs, dtype: np.dtype[np.floating]) -> Array:
    """BipolarQuant ``(x, scale)``: plus or minus ``scale``; zero counts as positive."""
    x, scale = inputs
    return np.asarray(np.where(np.asarray(x) >= 0, dtype.type(1), dtype.type(-1)) * scale)


def trunc(node: gs.Node, inputs: Inputs, dtype: np.dtype[np.floating]) -> Array:
    """Trunc: a quantised value, in fewer bits; written in two ways.

    ``(x, scale, zero_point, in_bits, out_bits)`` keeps the scale of its input;
    ``(x, scale, zero_point, in_bits, out_scale, [out_zero_point,] out_bits)`` has its own.
    """
    x, scale, zero = (np.asarray(i) for i in inputs[:3])
    level = np.round(x / scale + zero)
    out_bits = np.asarray(inputs[-1])
    if len(inputs) == 5:
        dropped = _rounding(node, "FLOOR")(level / 2.0 ** (np.asarray(inputs[3]) - out_bits))
        return np.asarray((dropped - zero) * scale)
    out_scale = np.asarray(inputs[4])
    ratio = 2.0 ** np.round(np.log2(out_scale / scale))
    signed, narrow = bool(node.attrs.get("signed", 1)), bool(node.attrs.get("narrow", 0))
    low, high = integer_range(out_bits, signed=signed, narrow=narrow)
    dropped = _rounding(node, "FLOOR")(np.clip(level / ratio, low, high))
    return np.asarray((dropped - zero / ratio) * out_scale)


def integer_range(bits: Array, *, signed: bool, narrow: bool) -> tuple[Array, Array]:
    """Lowest and highest integer of ``bits`` bits; ``narrow`` drops the outermost one."""
    if signed:
        return np.asarray(-(2.0 ** (bits - 1)) + narrow), np.asarray(2.0 ** (bits - 1) - 1)
    return np.zeros(()), np.asarray(2.0**bits - 1 - narrow)


def _rounding(node: gs.Node, default: str) -> Callable[[Array], Array]:
    name = str(node.attrs.get("rounding_mode", default)).upper()
    if name not in ROUNDING:
        raise ValueError(f"unknown rounding mode {name!r}")
    return ROUNDING[name]


KERNELS: Mapping[str, Kernel] = {
    "Quant": quant,
    "IntQuant": quant,
    "BipolarQuant": bipolar_quant,
    "Trunc": trunc,
}


def find(node: gs.Node) -> Kernel | None:
    """The kernel for ``node``, if it is a QONNX quantiser."""
    return KERNELS.get(node.op) if node.domain in DOMAINS else None
