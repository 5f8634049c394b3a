"""Shapes and element types of a graph's tensors, inferred without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx.helper import tensor_dtype_to_np_dtype

from .graph import STANDARD_DOMAINS, is_constant

_LARGE = 1 << 12  # elements; larger weights enter shape inference by their shape only


@dataclass(frozen=True)
class TensorType:
    """What is known of a tensor: sizes are ints, or names, or None where they are free."""

    dtype: np.dtype[Any] | None = None
    shape: tuple[int | str | None, ...] | None = None


def tensor_types(graph: gs.Graph) -> dict[str, TensorType]:
    """By name, as far as ONNX's shape inference gets; foreign operators count as Identity."""
    light = _without_weights(graph)
    inferred = onnx.shape_inference.infer_shapes(gs.export_onnx(light, do_type_check=False))
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    found = {value.name: _type(value.type.tensor_type) for value in values}
    for name, tensor in graph.tensors().items():
        known = found.get(name, TensorType())
        dtype, shape = known.dtype, known.shape
        if dtype is None and tensor.dtype is not None:
            dtype = np.dtype(tensor.dtype) if isinstance(tensor.dtype, type | np.dtype) else None
        if shape is None and tensor.shape is not None:
            shape = tuple(tensor.shape)
        found[name] = TensorType(dtype, shape)
    return found


def _without_weights(graph: gs.Graph) -> gs.Graph:
    light = graph.copy()
    light.import_domains = None
    for tensor in light.tensors().values():
        if is_constant(tensor) and np.prod(tensor.shape, dtype=np.int64) > _LARGE:
            variable = tensor.to_variable(tensor.dtype, tensor.shape)
            variable.type = "tensor_type"  # graphsurgeon leaves it out, and its exporter reads it
            light.inputs.append(variable)
    for node in light.nodes:
        if (node.domain or "") not in STANDARD_DOMAINS:
            node.op, node.domain, node.attrs = "Identity", None, {}
            node.inputs = node.inputs[:1]
            node.outputs = node.outputs[:1]
    return light


def _type(tensor: onnx.TypeProto.Tensor) -> TensorType:
    kind = tensor.elem_type
    dtype = np.dtype(tensor_dtype_to_np_dtype(kind)) if kind else None
    if not tensor.HasField("shape"):
        return TensorType(dtype, None)
    sizes = tuple(
        d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim
    )
    return TensorType(dtype, sizes)
