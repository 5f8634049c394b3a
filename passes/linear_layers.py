"""Linear layers seen alike: Conv, ConvTranspose, Gemm, MatMul and MatMul + Add, with weights that
are constants. A per-channel affine function behind one, or before one, goes into its weights.

Everything is computed in float64 and rounded once to the type of the weights; weights that other
layers share stay as they are, the rescaled ones are new constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert.graph import (
    is_constant,
    is_missing,
    is_standard,
    label,
    producer,
    sole_consumer,
)

from .node_builder import Builder, release

Vector = NDArray[np.float64]

_WITH_BIAS = ("Conv", "ConvTranspose", "Gemm")


@dataclass(frozen=True)
class Affine:
    """``y = gain * x + shift`` per channel; vectors [C]."""

    gain: Vector
    shift: Vector

    def then(self, after: Affine) -> Affine:
        return Affine(after.gain * self.gain, after.gain * self.shift + after.shift)


@dataclass(frozen=True)
class Linear:
    """A linear layer: the node that holds the weights, and the Add behind a MatMul, if any."""

    node: gs.Node
    add: gs.Node | None = None

    @property
    def output(self) -> gs.Tensor:
        return (self.add or self.node).outputs[0]

    @property
    def channels(self) -> int:
        """Number of output channels."""
        shape = [int(d) for d in self.node.inputs[1].shape]
        if self.node.op == "Conv":
            return shape[0]
        if self.node.op == "ConvTranspose":
            return shape[1] * int(self.node.attrs.get("group", 1))
        transposed = self.node.op == "Gemm" and self.node.attrs.get("transB", 0)
        return shape[0] if transposed else shape[-1]


def linear_layer(graph: gs.Graph, tensor: gs.Tensor, ranks: dict[str, int]) -> Linear | str | None:
    """The layer that computes ``tensor``; None if no layer does, a reason if it cannot be changed.

    Channels must lie on axis 1 of ``tensor``, so that behind MatMul it must be [N, C].
    """
    node = producer(tensor)
    if node is None:
        return None
    if is_standard(node, "Add") and ranks.get(tensor.name) == 2:
        return _matmul_and_add(graph, node)
    if is_standard(node, "MatMul"):
        if ranks.get(tensor.name) != 2:
            return None
        return _checked(Linear(node))
    return _checked(Linear(node)) if is_standard(node, *_WITH_BIAS) else None


def _matmul_and_add(graph: gs.Graph, add: gs.Node) -> Linear | str | None:
    for position in (0, 1):
        matmul, bias = producer(add.inputs[position]), add.inputs[1 - position]
        if matmul is None or not is_standard(matmul, "MatMul") or not is_constant(bias):
            continue
        if sole_consumer(graph, add.inputs[position]) is not add:
            return "the product is used elsewhere, too"
        found = _checked(Linear(matmul, add))
        if isinstance(found, Linear) and bias.values.size not in (1, found.channels):
            return "its bias is no vector per channel"
        return found
    return None


def _checked(linear: Linear) -> Linear | str:
    node = linear.node
    if not is_constant(node.inputs[1]):
        return "the weights are computed in the graph"
    if node.op == "MatMul" and len(node.inputs[1].shape) != 2:
        return "the weights are no matrix"
    if _has_bias(node) and not is_constant(node.inputs[2]):
        return "the bias is computed in the graph"
    if _has_bias(node) and node.inputs[2].values.size not in (1, linear.channels):
        return "its bias is no vector per channel"
    return linear


def _has_bias(node: gs.Node) -> bool:
    return node.op in _WITH_BIAS and len(node.inputs) > 2 and not is_missing(node.inputs[2])


# --- an affine function behind the layer ----------------------------------------------------------


def scale_output(b: Builder, linear: Linear, affine: Affine, output: gs.Tensor) -> bool:
    """Let ``linear`` compute ``affine`` of what it computed, into ``output``.

    ``output`` must have no producer. False, and nothing changed, where the weights' type cannot
    hold the result.
    """
    node = linear.node
    weight = _scaled_output_weight(linear, affine.gain)
    bias = affine.gain * _bias(linear) + affine.shift
    dtype = node.inputs[1].dtype
    with np.errstate(over="ignore"):
        new_weight, new_bias = weight.astype(dtype), bias.astype(dtype)
    if not (np.all(np.isfinite(new_weight)) and np.all(np.isfinite(new_bias))):
        return False
    _set_input(node, 1, b.constant(f"{node.inputs[1].name}_folded", new_weight))
    if node.op in _WITH_BIAS:
        _set_input(node, 2, b.constant(_bias_name(node), new_bias))
        node.attrs.pop("beta", None)
        _write(node, output)
    elif linear.add is not None:
        _set_addend(linear.add, b.constant(f"{label(linear.add)}_bias", new_bias))
        _write(linear.add, output)
    elif np.any(new_bias):
        node.outputs.clear()
        product = b.variable(f"{output.name}_product", output.dtype)
        node.outputs = [product]
        bias_tensor = b.constant(f"{label(node)}_bias", new_bias)
        b.emit_into("Add", [product, bias_tensor], output)
    else:
        _write(node, output)
    return True


def _scaled_output_weight(linear: Linear, gain: Vector) -> NDArray[np.float64]:
    node = linear.node
    weight = np.asarray(node.inputs[1].values, np.float64)
    if node.op == "Conv":
        return weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    if (
        node.op == "ConvTranspose"
    ):  # [in, out / groups, ...], the groups one after the other in `in`
        groups = int(node.attrs.get("group", 1))
        grouped = weight.reshape(groups, -1, *weight.shape[1:])
        factor = gain.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
        return np.asarray((grouped * factor).reshape(weight.shape))
    if node.op == "Gemm" and node.attrs.get("transB", 0):
        return weight * gain[:, None]
    return weight * gain


def _bias(linear: Linear) -> Vector:
    """The layer's bias [C] in float64, zeros where it has none; Gemm's beta multiplied in."""
    zeros = np.zeros(linear.channels)
    if linear.add is not None:
        constant = next(t for t in linear.add.inputs if is_constant(t))
        return zeros + np.asarray(constant.values, np.float64).ravel()
    if not _has_bias(linear.node):
        return zeros
    beta = float(linear.node.attrs.get("beta", 1.0)) if linear.node.op == "Gemm" else 1.0
    return zeros + beta * np.asarray(linear.node.inputs[2].values, np.float64).ravel()


# --- an affine function before the layer ----------------------------------------------------------


def scale_input(b: Builder, linear: Linear, affine: Affine) -> str | None:
    """Let ``linear`` take x where it took ``affine(x)``; returns the reason where it cannot.

    Exact only if no padding stands between: padding puts zeros where ``shift`` would be.
    """
    node = linear.node
    if node.op == "ConvTranspose" or (node.op == "Gemm" and node.attrs.get("transA", 0)):
        return f"a {node.op} like this takes no affine function before it"
    if node.op == "Conv" and np.any(affine.shift) and _pads(node):
        return "the next Conv pads with zeros, which are not the same before and after it"
    weight = np.asarray(node.inputs[1].values, np.float64)
    scaled, moved = _moved_through(node, weight, affine)
    dtype = node.inputs[1].dtype
    with np.errstate(over="ignore"):
        new_weight, bias = scaled.astype(dtype), (_bias(linear) + moved).astype(dtype)
    if not (np.all(np.isfinite(new_weight)) and np.all(np.isfinite(bias))):
        return f"{dtype} cannot hold the product with the weights"
    if node.op == "MatMul" and np.any(moved) and linear.add is None:
        return "the MatMul behind it has no bias"
    _set_input(node, 1, b.constant(f"{node.inputs[1].name}_folded", new_weight))
    if linear.add is not None:
        _set_addend(linear.add, b.constant(f"{label(linear.add)}_bias", bias))
    elif node.op in _WITH_BIAS and (np.any(moved) or _has_bias(node)):
        _set_input(node, 2, b.constant(_bias_name(node), bias))
        node.attrs.pop("beta", None)
    return None


def _moved_through(
    node: gs.Node, weight: NDArray[np.float64], affine: Affine
) -> tuple[NDArray[np.float64], Vector]:
    """The weights times the gain, and the layer's answer to the shift."""
    if node.op == "Conv":
        groups = int(node.attrs.get("group", 1))
        per_group = weight.shape[0] // groups
        shape = (groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
        grouped = weight.reshape(groups, per_group, *weight.shape[1:])
        scaled = (grouped * affine.gain.reshape(shape)).reshape(weight.shape)
        answer = (grouped * affine.shift.reshape(shape)).reshape(weight.shape[0], -1).sum(axis=1)
        return scaled, answer
    alpha = float(node.attrs.get("alpha", 1.0)) if node.op == "Gemm" else 1.0
    if node.op == "Gemm" and node.attrs.get("transB", 0):
        return weight * affine.gain, alpha * (weight @ affine.shift)
    return weight * affine.gain[:, None], alpha * (affine.shift @ weight)


def input_channels(linear: Linear) -> int:
    """Number of input channels."""
    shape = [int(d) for d in linear.node.inputs[1].shape]
    if linear.node.op == "Conv":
        return shape[1] * int(linear.node.attrs.get("group", 1))
    transposed = linear.node.op == "Gemm" and linear.node.attrs.get("transB", 0)
    return shape[1] if transposed else shape[0]


def _pads(node: gs.Node) -> bool:
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return True
    return node.attrs.get("auto_pad") != "VALID" and any(node.attrs.get("pads") or [])


# --- small edits ----------------------------------------------------------------------------------


def _bias_name(node: gs.Node) -> str:
    return f"{node.inputs[2].name}_folded" if _has_bias(node) else f"{label(node)}_bias"


def _set_input(node: gs.Node, position: int, tensor: gs.Tensor) -> None:
    inputs = list(node.inputs)
    node.inputs = [*inputs[:position], tensor, *inputs[position + 1 :]]
    release(inputs[position : position + 1])


def _set_addend(add: gs.Node, constant: gs.Constant) -> None:
    add.inputs = [constant if is_constant(t) else t for t in add.inputs]


def _write(node: gs.Node, output: gs.Tensor) -> None:
    node.outputs.clear()
    node.outputs = [output]
