"""Operators on integers become float operators between QuantizeLinear and DequantizeLinear.

Cases, each with its test:

* ``QLinearConv``, ``QLinearMatMul``, ``QGemm`` (weights dequantised, bias int32 in its own scale)
* ``QLinearAdd``, ``QLinearMul``, ``QLinearGlobalAveragePool``, ``QLinearAveragePool``,
  ``QLinearConcat``, ``QLinearSigmoid``, ``QLinearLeakyRelu``, ``QLinearWhere``,
  ``QLinearReduceMean`` (domain com.microsoft; onnxruntime has no kernel for the last)
* ``QLinearSoftmax`` (com.microsoft), over one axis or, as before opset 13, over all from one on
* ``MatMulIntegerToFloat`` (com.microsoft) with constant scales: the same, its result is a float
* ``ConvInteger``, ``MatMulInteger``: float convolution of the values less their zero point
* operators that only move values (MaxPool, Flatten, Reshape, Transpose, ...) between
  QuantizeLinear and DequantizeLinear: moved behind DequantizeLinear, where values are floats
* one QuantizeLinear or DequantizeLinear per consumer: one for all
* DequantizeLinear(QuantizeLinear(x)) where x lies on the same grid already: dropped
* QuantizeLinear and DequantizeLinear of domain com.microsoft: ONNX's own where its opset has the
  type, else written out (Div, Round, Add, Clip, Sub, Mul)
* ``FusedConv``, ``FusedGemm``, ``FusedMatMul`` of onnxruntime: the operator, then the activation
* anything else that cannot be taken apart is left for `to_spiking` to judge
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from na_convert.graph import is_constant, is_missing, is_standard

from .grid import drop_requantisation, merge_duplicates, move_behind_dequantisation
from .node_builder import Builder
from .single_node import MICROSOFT, Array


def dequantise(graph: gs.Graph) -> int:
    """Returns how many nodes were taken apart, moved or dropped."""
    builder = Builder(graph)
    changed = 0
    for node in list(graph.nodes):
        take_apart = _TAKE_APART.get((node.domain or "", node.op))
        if take_apart and take_apart(builder, node):
            changed += 1
    changed += merge_duplicates(graph)
    changed += move_behind_dequantisation(graph)
    changed += drop_requantisation(graph)
    changed += merge_duplicates(graph)
    graph.cleanup().toposort()
    return changed


# --- quantised tensors and their values -----------------------------------------------------------


def _optional(node: gs.Node, position: int) -> gs.Tensor | None:
    if position >= len(node.inputs) or is_missing(node.inputs[position]):
        return None
    return node.inputs[position]


def _as_float(
    b: Builder, x: gs.Tensor, scale: gs.Tensor, zero: gs.Tensor | None, axis: int = 1
) -> gs.Tensor:
    """What the integers ``x`` stand for; a constant where they are one."""
    if is_constant(x) and is_constant(scale) and (zero is None or is_constant(zero)):
        values = _real(x.values, scale.values, None if zero is None else zero.values, axis)
        return b.constant(f"{x.name}_dequantised", values)
    inputs = [x, scale] if zero is None else [x, scale, zero]
    return b.emit("DequantizeLinear", inputs, f"{x.name}_dequantised", {"axis": axis})


def _real(x: Array, scale: Array, zero: Array | None, axis: int) -> Array:
    shape = [1] * x.ndim
    if np.size(scale) > 1:
        shape[axis] = -1
    wide = np.asarray(x, np.float64)
    if zero is not None:
        wide = wide - np.reshape(zero.astype(np.float64), shape if zero.size > 1 else ())
    real = wide * np.reshape(scale.astype(np.float64), shape if np.size(scale) > 1 else ())
    return np.asarray(real, scale.dtype)


def _requantise(
    b: Builder, node: gs.Node, x: gs.Tensor, scale: int, zero: int, given: int = 2
) -> bool:
    """Let ``node``'s output be ``x`` quantised by its inputs number ``scale`` and ``zero``.

    Without the latter its type is that of input number ``given``, a zero point as well.
    """
    output = b.take_output(node)
    inputs = [x, node.inputs[scale]]
    zero_point, like = _optional(node, zero), _optional(node, given)
    if zero_point is None and like is not None:
        zero_point = b.constant(f"{output.name}_zero", np.zeros((), like.dtype))
    if zero_point is not None:
        inputs.append(zero_point)
    b.emit_into("QuantizeLinear", inputs, output)
    return b.remove(node)


def _scaled_bias(
    b: Builder, bias: gs.Tensor | None, x_scale: gs.Tensor, w_scale: gs.Tensor, alpha: float = 1.0
) -> gs.Tensor | None:
    if bias is None:
        return None
    scale = alpha * x_scale.values.astype(np.float64) * w_scale.values.astype(np.float64)
    real = bias.values.astype(np.float64) * np.ravel(scale)
    return b.constant(f"{bias.name}_dequantised", real.astype(x_scale.dtype))


def _constant_inputs(node: gs.Node, *positions: int) -> bool:
    return all(is_constant(t) for p in positions if (t := _optional(node, p)) is not None)


# --- com.microsoft and ONNX: quantised operators --------------------------------------------------


def _qlinear_conv(b: Builder, node: gs.Node) -> bool:
    if not _constant_inputs(node, 1, 3, 4, 5, 6, 8) or node.attrs.get("channels_last"):
        return False
    x = _as_float(b, node.inputs[0], node.inputs[1], _optional(node, 2))
    w = _as_float(b, node.inputs[3], node.inputs[4], _optional(node, 5), axis=0)
    bias = _scaled_bias(b, _optional(node, 8), node.inputs[1], node.inputs[4])
    y = b.emit("Conv", [x, w, *([bias] if bias else [])], f"{b.base(node)}_float", node.attrs)
    return _requantise(b, node, y, 6, 7)


def _qlinear_matmul(b: Builder, node: gs.Node) -> bool:
    if not _constant_inputs(node, 1, 4):
        return False
    x = _as_float(b, node.inputs[0], node.inputs[1], _optional(node, 2), axis=-2)
    w = _as_float(b, node.inputs[3], node.inputs[4], _optional(node, 5), axis=-1)
    y = b.emit("MatMul", [x, w], f"{b.base(node)}_float")
    return _requantise(b, node, y, 6, 7)


def _qgemm(b: Builder, node: gs.Node) -> bool:
    if not _constant_inputs(node, 1, 3, 4, 5, 6):
        return False
    attrs = {k: node.attrs[k] for k in ("alpha", "transA", "transB") if k in node.attrs}
    x = _as_float(b, node.inputs[0], node.inputs[1], _optional(node, 2))
    axis = 0 if attrs.get("transB") else 1
    w = _as_float(b, node.inputs[3], node.inputs[4], _optional(node, 5), axis=axis)
    alpha = float(attrs.get("alpha", 1.0))
    bias = _scaled_bias(b, _optional(node, 6), node.inputs[1], node.inputs[4], alpha)
    inputs = [x, w, *([bias] if bias else [])]
    if _optional(node, 7) is None:
        b.emit_into("Gemm", inputs, b.take_output(node), attrs)
        return b.remove(node)
    y = b.emit("Gemm", inputs, f"{b.base(node)}_float", attrs)
    return _requantise(b, node, y, 7, 8)


def _matmul_to_float(b: Builder, node: gs.Node) -> bool:
    if not _constant_inputs(node, 2, 3, 4, 5):
        return False
    x = _as_float(b, node.inputs[0], node.inputs[2], _optional(node, 4), axis=-2)
    w = _as_float(b, node.inputs[1], node.inputs[3], _optional(node, 5), axis=-1)
    output, bias = b.take_output(node), _optional(node, 6)
    if bias is None:
        b.emit_into("MatMul", [x, w], output)
    else:
        b.emit_into("Add", [b.emit("MatMul", [x, w], f"{b.base(node)}_float"), bias], output)
    return b.remove(node)


def _binary(op: str) -> Callable[[Builder, gs.Node], bool]:
    def take_apart(b: Builder, node: gs.Node) -> bool:
        first = _as_float(b, node.inputs[0], node.inputs[1], _optional(node, 2))
        second = _as_float(b, node.inputs[3], node.inputs[4], _optional(node, 5))
        y = b.emit(op, [first, second], f"{b.base(node)}_float")
        return _requantise(b, node, y, 6, 7)

    return take_apart


def _unary(op: str) -> Callable[[Builder, gs.Node], bool]:
    def take_apart(b: Builder, node: gs.Node) -> bool:
        if node.attrs.get("channels_last"):
            return False
        x = _as_float(b, node.inputs[0], node.inputs[1], _optional(node, 2))
        attrs = {k: v for k, v in node.attrs.items() if k != "channels_last"}
        y = b.emit(op, [x], f"{b.base(node)}_float", attrs)
        return _requantise(b, node, y, 3, 4)

    return take_apart


def _qlinear_reduce_mean(b: Builder, node: gs.Node) -> bool:
    """Its axes are an attribute, as ONNX's own were before opset 18."""
    x = _as_float(b, node.inputs[0], node.inputs[1], _optional(node, 2))
    inputs, attrs = [x], dict(node.attrs)
    if int(b.graph.opset) >= 18 and "axes" in attrs:
        axes = np.asarray(attrs.pop("axes"), np.int64)
        inputs.append(b.constant(f"{b.base(node)}_axes", axes))
    y = b.emit("ReduceMean", inputs, f"{b.base(node)}_float", attrs)
    return _requantise(b, node, y, 3, 4)


def _qlinear_softmax(b: Builder, node: gs.Node) -> bool:
    """Before opset 13 a softmax was over all axes from ``axis`` on together, 1 by default."""
    x = _as_float(b, node.inputs[0], node.inputs[1], _optional(node, 2))
    name = b.base(node)
    if int(node.attrs["opset"]) >= 13:
        y = b.emit("Softmax", [x], f"{name}_float", {"axis": int(node.attrs.get("axis", -1))})
        return _requantise(b, node, y, 3, 4)
    flat = b.emit("Flatten", [x], f"{name}_flat", {"axis": int(node.attrs.get("axis", 1))})
    shares = b.emit("Softmax", [flat], f"{name}_shares", {"axis": -1})
    shape = b.emit("Shape", [x], f"{name}_shape")
    y = b.emit("Reshape", [shares, shape], f"{name}_float")
    return _requantise(b, node, y, 3, 4)


def _qlinear_where(b: Builder, node: gs.Node) -> bool:
    first = _as_float(b, node.inputs[1], node.inputs[2], _optional(node, 3))
    second = _as_float(b, node.inputs[4], node.inputs[5], _optional(node, 6))
    y = b.emit("Where", [node.inputs[0], first, second], f"{b.base(node)}_float")
    return _requantise(b, node, y, 7, 8, given=3)


def _qlinear_concat(b: Builder, node: gs.Node) -> bool:
    parts = [_as_float(b, *node.inputs[k : k + 3]) for k in range(2, len(node.inputs), 3)]
    y = b.emit("Concat", parts, f"{b.base(node)}_float", node.attrs)
    return _requantise(b, node, y, 0, 1, given=4)


def _integer(op: str, axis: int) -> Callable[[Builder, gs.Node], bool]:
    """ConvInteger and MatMulInteger: integers less their zero point, which are exact in float."""

    def take_apart(b: Builder, node: gs.Node) -> bool:
        one = b.constant(f"{b.base(node)}_unit", np.ones((), np.float32))
        x = _as_float(b, node.inputs[0], one, _optional(node, 2))
        zero = _optional(node, 3)
        unit = one
        if zero is not None and is_constant(zero) and zero.values.size > 1:
            unit = b.constant(f"{b.base(node)}_units", np.ones(zero.shape, np.float32))
        w = _as_float(b, node.inputs[1], unit, zero, axis)
        output = b.take_output(node)
        casts = [c for c in output.outputs if is_standard(c, "Cast") and int(c.attrs["to"]) == 1]
        if len(casts) == 1 and len(output.outputs) == 1 and not b.is_output(output):
            b.emit_into(op, [x, w], b.take_output(casts[0]), node.attrs)
            b.remove(casts[0])
        else:
            y = b.emit(op, [x, w], f"{b.base(node)}_float", node.attrs)
            b.emit_into("Cast", [y], output, {"to": onnx.TensorProto.INT32})
        return b.remove(node)

    return take_apart


# --- onnxruntime's own QuantizeLinear, DequantizeLinear -------------------------------------------


def _standard_if_possible(b: Builder, node: gs.Node) -> bool:
    zero = _optional(node, 2)
    kind = np.dtype(np.uint8 if zero is None or zero.dtype is None else zero.dtype)
    wide = kind.itemsize == 2
    if wide and int(b.graph.opset) < 21:
        return node.op == "DequantizeLinear" and _write_out(b, node, kind)
    node.domain = None
    return True


def _write_out(b: Builder, node: gs.Node, kind: np.dtype[np.generic]) -> bool:
    """DequantizeLinear(QuantizeLinear(x)) in 16 bits, which ONNX has only from opset 21 on."""
    source = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
    if source is None or source.op != "QuantizeLinear" or source.inputs[1].shape not in ([], ()):
        return False
    x, scale, base = source.inputs[0], source.inputs[1], b.base(node)
    dtype = scale.dtype
    shift, back = (
        b.constant(f"{base}_zero", each.inputs[2].values.astype(dtype)) for each in (source, node)
    )
    limits = np.iinfo(kind.name)
    low = b.constant(f"{base}_low", np.asarray(limits.min, dtype))
    high = b.constant(f"{base}_high", np.asarray(limits.max, dtype))
    level = b.emit("Round", [b.emit("Div", [x, scale], f"{base}_ratio")], f"{base}_level")
    moved = b.emit("Add", [level, shift], f"{base}_shifted")
    clipped = b.emit("Clip", [moved, low, high], f"{base}_clipped")
    centred = b.emit("Sub", [clipped, back], f"{base}_centred")
    b.emit_into("Mul", [centred, node.inputs[1]], b.take_output(node))
    return b.remove(node)


# --- onnxruntime's fusions ------------------------------------------------------------------------


def _fused(op: str) -> Callable[[Builder, gs.Node], bool]:
    def take_apart(b: Builder, node: gs.Node) -> bool:
        attrs = {k: v for k, v in node.attrs.items() if not k.startswith("activation")}
        activation = str(node.attrs.get("activation", ""))
        if activation and activation not in _ACTIVATIONS:
            return False
        output, base = b.take_output(node), b.base(node)
        before = b.variable(f"{base}_linear") if activation else output
        inputs = list(node.inputs[:3])
        added = _optional(node, 3)
        if added is None:
            b.emit_into(op, inputs, before, attrs)
        else:
            linear = b.emit(op, inputs, f"{base}_unadded", attrs)
            b.emit_into("Add", [linear, added], before)
        if activation:
            extra, names = _activation_parameters(b, node, activation, base)
            b.emit_into(activation, [before, *extra], output, names)
        return b.remove(node)

    return take_apart


_ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid")


def _activation_parameters(
    b: Builder, node: gs.Node, activation: str, base: str
) -> tuple[list[gs.Tensor], dict[str, object]]:
    given = list(node.attrs.get("activation_params") or [])
    named = [node.attrs.get(f"activation_{k}") for k in ("alpha", "beta")]
    given = given or [v for v in named if v is not None]
    if activation == "Clip":
        dtype = node.inputs[1].dtype
        limits = [b.constant(f"{base}_limit", np.asarray(v, dtype)) for v in given]
        return limits, {}
    return [], dict(zip(("alpha", "beta"), given, strict=False))


def _fused_matmul(b: Builder, node: gs.Node) -> bool:
    weight = node.inputs[1]
    other = ("transA", "transBatchA", "transBatchB")
    if any(node.attrs.get(a) for a in other) or not is_constant(weight):
        return False
    values = weight.values
    if node.attrs.get("transB"):
        values = np.swapaxes(values, -1, -2)
    values = np.asarray(values * node.attrs.get("alpha", 1.0), values.dtype)
    factor = b.constant(f"{weight.name}_scaled", values)
    b.emit_into("MatMul", [node.inputs[0], factor], b.take_output(node))
    return b.remove(node)


_TAKE_APART: dict[tuple[str, str], Callable[[Builder, gs.Node], bool]] = {
    ("", "QLinearConv"): _qlinear_conv,
    (MICROSOFT, "QLinearConv"): _qlinear_conv,
    ("", "QLinearMatMul"): _qlinear_matmul,
    ("", "ConvInteger"): _integer("Conv", 0),
    ("", "MatMulInteger"): _integer("MatMul", -1),
    (MICROSOFT, "QGemm"): _qgemm,
    (MICROSOFT, "MatMulIntegerToFloat"): _matmul_to_float,
    (MICROSOFT, "QLinearAdd"): _binary("Add"),
    (MICROSOFT, "QLinearMul"): _binary("Mul"),
    (MICROSOFT, "QLinearGlobalAveragePool"): _unary("GlobalAveragePool"),
    (MICROSOFT, "QLinearAveragePool"): _unary("AveragePool"),
    (MICROSOFT, "QLinearReduceMean"): _qlinear_reduce_mean,
    (MICROSOFT, "QLinearSigmoid"): _unary("Sigmoid"),
    (MICROSOFT, "QLinearLeakyRelu"): _unary("LeakyRelu"),
    (MICROSOFT, "QLinearConcat"): _qlinear_concat,
    (MICROSOFT, "QLinearSoftmax"): _qlinear_softmax,
    (MICROSOFT, "QLinearWhere"): _qlinear_where,
    (MICROSOFT, "QuantizeLinear"): _standard_if_possible,
    (MICROSOFT, "DequantizeLinear"): _standard_if_possible,
    (MICROSOFT, "FusedConv"): _fused("Conv"),
    (MICROSOFT, "FusedGemm"): _fused("Gemm"),
    (MICROSOFT, "FusedMatMul"): _fused_matmul,
}
