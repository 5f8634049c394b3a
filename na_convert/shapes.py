"""Shapes of tensors: inferred and written into a file, or seen in a run."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_graphsurgeon as gs

from .graph import Carried, Parts, export_parts
from .neurons import ACTIVATION_OPS, DOMAIN
from .runtime import Feeds, run
from .snn import Snn, float_type, neuron_nodes

_PRIME = 1009  # a batch whose multiples are no other size


def of_one_sample(
    graph: gs.Graph, carried: Carried, feeds: Feeds, tensors: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Shapes of ``tensors`` for one sample of ``feeds``, batch left out.

    Inferred; where inference does not see through the graph, taken from a run.
    """
    if not tensors:
        return {}
    parts = export_parts(graph, carried)
    typed = parts.typed()
    for value in typed.graph.input:
        if value.name in feeds:
            _fix(value, (1, *feeds[value.name].shape[1:]))
    inferred = _inferred(typed)
    if all(name in inferred and None not in inferred[name] for name in tensors):
        return {name: tuple(d or 0 for d in inferred[name][1:]) for name in tensors}
    model = parts.whole()
    known = {o.name for o in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors if t not in known)
    values = run(model, {k: v[:1] for k, v in feeds.items()}, list(dict.fromkeys(tensors)))
    return {name: tuple(value.shape[1:]) for name, value in values.items()}


def of_one_step(snn: Snn) -> dict[str, tuple[int | None, ...] | None]:
    """Shapes of the tensors of ``snn.graph`` without the batch; None for an unknown size or rank.

    Inferred, with the neuron layers' shapes given.
    """
    typed = export_parts(snn.graph, snn.carried).typed()
    sizes = {neuron.name: neuron.shape for neuron in snn.neurons}
    for node in neuron_nodes(snn.graph):
        kind = onnx.helper.np_dtype_to_tensor_dtype(float_type(node))
        spikes = node.outputs[0].name
        value = onnx.helper.make_tensor_value_info(spikes, kind, ["N", *sizes[node.name]])
        typed.graph.value_info.append(value)
    found = _inferred(typed)
    names = [t.name for node in snn.graph.nodes for t in (*node.inputs, *node.outputs)]
    return {n: found[n][1:] if n in found else None for n in names}


def rows_per_sample(snn: Snn, feeds: Feeds) -> dict[str, int]:
    """How many rows each neuron layer has for one sample of ``feeds``, by name: one, unless the
    network makes rows of a sample's parts (tokens, frames) in front of it."""
    typed = export_parts(snn.graph, snn.carried).typed()
    for value in typed.graph.input:
        if value.name in feeds:
            _fix(value, (1, *feeds[value.name].shape[1:]))
    inferred = _inferred(typed)
    rows = {}
    for node in neuron_nodes(snn.graph):
        sizes = inferred.get(node.outputs[0].name) or (1,)
        rows[node.name] = sizes[0] or 1
    return rows


def _fix(value: onnx.ValueInfoProto, sizes: Sequence[int]) -> None:
    for dim, size in zip(value.type.tensor_type.shape.dim, sizes, strict=True):
        dim.dim_value = size


def annotate(parts: Parts, batch: str = "N") -> None:
    """Write inferred shapes of inner tensors into ``parts``; time lies in the batch as ``T*N``.

    A stale shape would pass the checker and fail in onnxruntime, so all are inferred anew; and so
    would one name for two sizes, where rows are parts of samples: these have none.
    """
    model = parts.light
    del model.graph.value_info[:]
    timed, whole = _timed_tensors(model), rows_of_samples(parts)
    for value in _infer(parts.typed()).graph.value_info:
        tensor = value.type.tensor_type
        if not tensor.elem_type:
            continue
        for dim in tensor.shape.dim:
            if dim.dim_param.startswith("unk__"):
                dim.Clear()
        if tensor.shape.dim and value.name in timed:
            tensor.shape.dim[0].Clear()
            if value.name in whole:
                tensor.shape.dim[0].dim_param = f"T*{batch}"
        model.graph.value_info.append(value)


def rows_of_samples(parts: Parts) -> set[str]:
    """The tensors that have one row for each sample, as far as that can be inferred."""
    typed = parts.typed()
    others = {*(i.name for i in typed.graph.initializer), *parts.weights}  # states, weights
    for value in typed.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and value.name not in others:
            dims[0].dim_value = _PRIME
    return {name for name, sizes in _inferred(typed).items() if sizes[:1] == (_PRIME,)}


def _inferred(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Inferred shapes by tensor; None for an unknown size."""
    graph = _infer(model).graph
    return {
        value.name: tuple(
            d.dim_value if d.HasField("dim_value") else None
            for d in value.type.tensor_type.shape.dim
        )
        for value in [*graph.input, *graph.value_info, *graph.output]
        if value.type.tensor_type.HasField("shape")
    }


def _infer(model: onnx.ModelProto) -> onnx.ModelProto:
    timeless = onnx.ModelProto()
    timeless.CopyFrom(model)
    del timeless.functions[:]
    timeless.functions.extend(f for f in model.functions if f.name in ACTIVATION_OPS)
    del timeless.graph.node[:]
    timeless.graph.node.extend(_timeless(node) for node in model.graph.node)
    return onnx.shape_inference.infer_shapes(timeless)


def _timeless(node: onnx.NodeProto) -> onnx.NodeProto:
    """What ``node`` does to the shape of one time step: inference does not see through time."""
    if node.domain != DOMAIN or node.op_type in ACTIVATION_OPS:
        return node
    if node.op_type.removesuffix("Step") != "MaxPoolCounts":
        return onnx.helper.make_node("Identity", node.input[:1], node.output[:1])
    pool = onnx.helper.make_node("MaxPool", node.input[:1], node.output[:1])
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
