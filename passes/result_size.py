"""How large the result of a node on constants will be, before it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, isfinite, prod

import onnx
import onnx_graphsurgeon as gs

from na_convert.graph import is_constant

from .single_node import Array, node_model

_TELLS_SHAPES = 64  # elements of an input whose values may say something about the result's shape


def stored_elements(graph: gs.Graph) -> int:
    """Elements of the constants in ``graph``, those of ``Constant`` nodes included."""
    inside = (n.attrs.get("value") for n in graph.nodes if n.op == "Constant")
    constants = [t for t in graph.tensors().values() if is_constant(t)]
    constants += [value for value in inside if isinstance(value, gs.Constant)]
    return sum(prod(t.shape) for t in constants)


def elements_of_result(node: gs.Node, values: Sequence[Array | None], opset: int) -> int:
    """Elements of the outputs of ``node`` for its input ``values``; 0 where nothing tells."""
    return max(_told_by_values(node, values), _inferred(node, values, opset))


def _told_by_values(node: gs.Node, values: Sequence[Array | None]) -> int:
    """Of operators whose inputs hold sizes: exact, where inference has 64 bits for a size."""
    given = [v for v in values if v is not None]
    if node.op == "Range" and all(v.size == 1 for v in given):
        start, limit, delta = (float(v.ravel()[0]) for v in given)
        count = (limit - start) / delta if delta else 0.0
        return ceil(max(count, 0)) if isfinite(count) else 0
    if node.op == "Tile":
        return given[0].size * prod(int(n) for n in given[1].ravel())
    if node.op in ("Expand", "ConstantOfShape"):
        return prod(max(int(n), 1) for n in given[-1].ravel())
    return 0


def _inferred(node: gs.Node, values: Sequence[Array | None], opset: int) -> int:
    """By onnx's shape inference."""
    model = onnx.ModelProto.FromString(node_model(node, values, opset))
    given = [v for v in values if v is not None]
    for value, array in zip(model.graph.input, given, strict=True):
        for dim, size in zip(value.type.tensor_type.shape.dim, array.shape, strict=True):
            dim.dim_value = size
        if array.size <= _TELLS_SHAPES:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # whatever is wrong with it, evaluating it says more clearly
        return 0
    shapes = (o.type.tensor_type.shape.dim for o in inferred.graph.output)
    return sum(prod(max(d.dim_value, 0) for d in dims) for dims in shapes)
