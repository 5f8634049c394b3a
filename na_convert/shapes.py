"""Shapes of tensors: inferred and written into a file, or seen in a run."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_graphsurgeon as gs

from .graph import Carried, export_graph
from .neurons import ACTIVATION_OPS, DOMAIN
from .runtime import Feeds, run

_LARGE = 1024  # bytes; larger weights are left out of shape inference, which copies the model


def observed(
    graph: gs.Graph, carried: Carried, feeds: Feeds, tensors: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Shapes of one sample (batch left out) of ``tensors``, from a run of ``graph``."""
    if not tensors:
        return {}
    model = export_graph(graph, carried)
    known = {o.name for o in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors if t not in known)
    values = run(model, {k: v[:1] for k, v in feeds.items()}, list(dict.fromkeys(tensors)))
    return {name: tuple(value.shape[1:]) for name, value in values.items()}


def annotate(model: onnx.ModelProto, batch: str = "N") -> None:
    """Write inferred shapes of inner tensors into ``model``; time lies in the batch as ``T*N``.

    A stale shape would pass the checker and fail in onnxruntime, so all are inferred anew.
    """
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(_without_weights(model))
    timed = _timed_tensors(model)
    for value in inferred.graph.value_info:
        tensor = value.type.tensor_type
        if not tensor.elem_type:
            continue
        for dim in tensor.shape.dim:
            if dim.dim_param.startswith("unk__"):
                dim.Clear()
        if tensor.shape.dim and value.name in timed:
            tensor.shape.dim[0].Clear()
            tensor.shape.dim[0].dim_param = f"T*{batch}"
        model.graph.value_info.append(value)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.functions.extend(f for f in model.functions if f.name in ACTIVATION_OPS)
    light.graph.name = model.graph.name
    light.graph.node.extend(_timeless(node) for node in model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    inputs = {i.name for i in model.graph.input}
    for weight in model.graph.initializer:
        if weight.ByteSize() <= _LARGE:
            light.graph.initializer.append(weight)
        elif weight.name not in inputs:
            value = onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
            light.graph.input.append(value)
    return light


def _timeless(node: onnx.NodeProto) -> onnx.NodeProto:
    """What ``node`` does to the shape of one time step: inference does not see through time."""
    if node.domain != DOMAIN or node.op_type in ACTIVATION_OPS:
        return node
    if node.op_type != "MaxPoolCounts":
        return onnx.helper.make_node("Identity", node.input[:1], node.output)
    pool = onnx.helper.make_node("MaxPool", node.input[:1], node.output)
    pool.attribute.extend(a for a in node.attribute if a.name != "unit")
    return pool


def _timed_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of tensors between Encode and Decode: their first axis is time and batch."""
    timed: set[str] = set()
    for node in model.graph.node:
        ours = node.domain == DOMAIN
        if (ours and node.op_type == "Encode") or (
            not (ours and node.op_type == "Decode") and any(i in timed for i in node.input)
        ):
            timed.update(node.output)
    return timed
