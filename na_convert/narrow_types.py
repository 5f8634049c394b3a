"""Integers of 2 and 4 bits, and float8, in a model: rewritten in types that everything holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from .errors import NotConvertible

_INTEGERS: dict[int, tuple[int, int, int]] = {  # to this type, with this range
    kind: (wide, low, high)
    for name, wide, low, high in (
        ("INT4", TensorProto.INT8, -8, 7),
        ("UINT4", TensorProto.UINT8, 0, 15),
        ("INT2", TensorProto.INT8, -2, 1),
        ("UINT2", TensorProto.UINT8, 0, 3),
    )
    if (kind := getattr(TensorProto, name, None)) is not None
}
_FLOATS = tuple(
    kind
    for name in ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT4E2M1")
    if (kind := getattr(TensorProto, name, None)) is not None
)


def widen(model: onnx.ModelProto) -> Iterator[str]:
    """Rewrite narrow types in ``model`` in place; yields notes for the user.

    Raises NotConvertible where float8 is used for more than weights.
    """
    _dequantise_float8(model.graph)
    integers = _widen_constants(model.graph)
    clipped = _clip_quantisers(model.graph, integers)
    if integers:
        yield f"{len(integers)} constants of 2 or 4 bits are held in 8 bits"
    if clipped:
        yield f"{clipped} quantisers to 2 or 4 bits are written as 8 bits with a Clip"
    _widen_annotations(model.graph)


def _widen_constants(graph: onnx.GraphProto) -> dict[str, int]:
    """Make every narrow constant an 8-bit one; returns their former types by name."""
    former: dict[str, int] = {}
    for tensor in graph.initializer:
        if tensor.data_type in _INTEGERS:
            former[tensor.name] = tensor.data_type
            _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.t.data_type in _INTEGERS:
                former[node.output[0]] = attribute.t.data_type
                _widen_tensor(attribute.t)
    return former


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    wide = onnx.helper.tensor_dtype_to_np_dtype(_INTEGERS[tensor.data_type][0])
    values = numpy_helper.to_array(tensor).astype(wide)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _clip_quantisers(graph: onnx.GraphProto, former: dict[str, int]) -> int:
    """A QuantizeLinear that saturated at 4 bits would saturate at 8: clip its result."""
    nodes: list[onnx.NodeProto] = []
    clipped = 0
    for node in graph.node:
        nodes.append(node)
        kind = _narrow_target(node, former)
        if kind is None:
            continue
        wide, low, high = _INTEGERS[kind]
        for attribute in node.attribute:
            if attribute.name in ("output_dtype", "to"):
                attribute.i = wide
        output = node.output[0]
        node.output[0] = f"{output}_unclipped"
        limits = []
        for name, limit in (("low", low), ("high", high)):
            dtype = onnx.helper.tensor_dtype_to_np_dtype(wide)
            tensor = numpy_helper.from_array(np.asarray(limit, dtype), f"{output}_{name}")
            graph.initializer.append(tensor)
            limits.append(tensor.name)
        nodes.append(
            onnx.helper.make_node(
                "Clip", [node.output[0], *limits], [output], name=f"{output}_clip"
            )
        )
        clipped += 1
    if clipped:
        copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del graph.node[:]
        graph.node.extend(copies)
    return clipped


def _narrow_target(node: onnx.NodeProto, former: dict[str, int]) -> int | None:
    """The narrow type that ``node`` converts to, if it is a QuantizeLinear or Cast to one."""
    if node.op_type == "QuantizeLinear" and len(node.input) > 2 and node.input[2] in former:
        return former[node.input[2]]
    for attribute in node.attribute:
        if attribute.name in ("output_dtype", "to") and attribute.i in _INTEGERS:
            return int(attribute.i) if node.op_type in ("QuantizeLinear", "Cast") else None
    return None


def _widen_annotations(graph: onnx.GraphProto) -> None:
    for value in [*graph.value_info, *graph.input, *graph.output]:
        tensor = value.type.tensor_type
        if tensor.elem_type in _INTEGERS:
            tensor.elem_type = _INTEGERS[tensor.elem_type][0]


def _dequantise_float8(graph: onnx.GraphProto) -> None:
    weights = {t.name: t for t in graph.initializer if t.data_type in _FLOATS}
    if not weights:
        return
    constants = {t.name: t for t in graph.initializer}
    dropped = []
    for node in graph.node:
        if not any(name in weights for name in node.input):
            continue
        if node.op_type != "DequantizeLinear" or node.input[0] not in weights:
            raise NotConvertible(
                f"{node.name or node.output[0]} ({node.op_type}) works on float8, whose levels are "
                "not evenly spaced",
                node=node.name,
                remedy="quantise activations to integers; float8 weights are fine",
            )
        graph.initializer.append(_dequantised(node, constants))
        dropped.append(node)
    for node in dropped:
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    kept = [t for t in graph.initializer if t.name in used or t.name not in weights]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _dequantised(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> onnx.TensorProto:
    scale = constants.get(node.input[1])
    if scale is None or any(a.name == "block_size" and a.i for a in node.attribute):
        raise NotConvertible(
            f"{node.name or node.output[0]} dequantises float8 in blocks, or by a computed scale",
            node=node.name,
            remedy="export float weights, or one scale per tensor or channel",
        )
    values = numpy_helper.to_array(constants[node.input[0]]).astype(np.float64)
    factors = numpy_helper.to_array(scale)
    axis = next((int(a.i) for a in node.attribute if a.name == "axis"), 1)
    shape = [1] * values.ndim
    if factors.size > 1:
        shape[axis] = -1
    result = (values * factors.astype(np.float64).reshape(shape)).astype(factors.dtype)
    return numpy_helper.from_array(result, node.output[0])
