"""Weights and biases of linear nodes under a change of scale of what goes in and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert.graph import is_standard
from na_convert.unit_scale import NotExact, Scale, bias_of, per_axis, weight_position

Array = NDArray[Any]


@dataclass(frozen=True)
class Weights:
    """Of a linear node, attributes such as Gemm's alpha multiplied in. The weight is float32, which
    holds all bits that are kept of it; the bias float64."""

    weight: Array
    bias: Array | None


def rescaled(node: gs.Node, given: Scale, wanted: Scale, rank: int | None) -> Weights:
    """The constants of ``node`` such that it maps ``given * x`` to ``wanted * y``.

    ``rank`` is that of its output. Raises NotExact where a scale per channel does not fit.
    """
    if (given.size > 1 or wanted.size > 1) and rank is None:
        raise NotExact(node, "its output has an unknown number of dimensions")
    weight = np.asarray(node.inputs[weight_position(node)].values, np.float64)
    bias_tensor = bias_of(node)
    bias = None if bias_tensor is None else np.asarray(bias_tensor.values, np.float64)
    rank = rank or 0
    if is_standard(node, "Mul", "Div"):
        factor = 1 / weight if is_standard(node, "Div") else weight
        return Weights(_kept(factor * per_axis(wanted / given, rank)), None)
    if is_standard(node, "Conv", "ConvTranspose"):
        scaled = _convolution(node, weight, given, wanted)
        return Weights(_kept(scaled), None if bias is None else bias * wanted)
    return _matrix(node, weight, bias, given, wanted, rank)


def _kept(weight: Array) -> Array:
    return weight.astype(np.float32)


def _convolution(node: gs.Node, weight: Array, given: Scale, wanted: Scale) -> Array:
    """Conv has weights [out, in / group, ...], ConvTranspose [in, out / group, ...]."""
    group = int(node.attrs.get("group", 1))
    transposed = is_standard(node, "ConvTranspose")
    first, second = (1 / given, wanted) if transposed else (wanted, 1 / given)
    space = [1] * (weight.ndim - 2)
    weight = weight * per_axis(first, weight.ndim, 0)
    if second.size > 1:
        grouped = weight.reshape(group, -1, *weight.shape[1:])
        weight = (grouped * second.reshape(group, 1, -1, *space)).reshape(weight.shape)
    else:
        weight = weight * second.reshape(())
    return np.asarray(weight)


def _matrix(
    node: gs.Node, weight: Array, bias: Array | None, given: Scale, wanted: Scale, rank: int
) -> Weights:
    if (given.size > 1 or wanted.size > 1) and (rank != 2 or weight.ndim != 2):
        raise NotExact(node, "a threshold per channel in front of or behind a stack of matrices")
    attrs = node.attrs if is_standard(node, "Gemm") else {}
    if attrs.get("transA", 0):
        raise NotExact(node, "transposes its input")
    into, out = (1, 0) if attrs.get("transB", 0) else (-2, -1)
    scaled = weight * float(attrs.get("alpha", 1.0))
    scaled = scaled * per_axis(wanted, 2, out % 2) / per_axis(given, 2, into % 2)
    if bias is None:
        return Weights(_kept(scaled), None)
    return Weights(_kept(scaled), bias * float(attrs.get("beta", 1.0)) * per_axis(wanted, 1, 0))


def write(node: gs.Node, weight: gs.Constant, bias: gs.Constant | None) -> None:
    """Give ``node`` the constants, and take out the attributes that were multiplied in."""
    position = weight_position(node)
    inputs = list(node.inputs)
    inputs[position] = weight
    if bias is not None:
        inputs[2] = bias
    node.inputs = inputs
    if is_standard(node, "Div"):
        node.op = "Mul"
    for name in ("alpha", "beta"):
        node.attrs.pop(name, None)
