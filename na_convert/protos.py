"""Everything inside a model file: its nodes and tensors, those of subgraphs and functions too; and
the model without its weights, for what cannot or need not take them; weights left in a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from .errors import ModelError, first_line

PROTOBUF_LIMIT = 2**31 - 1 - (1 << 20)  # bytes of a model, with some room for its tags
_SMALL = 4096  # bytes; what may say something about shapes


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node of ``graph``, each before those of its subgraphs."""
    yield from with_subgraphs(graph.node)


def with_subgraphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """``nodes``, each before those of its subgraphs."""
    for node in nodes:
        yield node
        yield from subgraph_nodes(node)


def subgraph_nodes(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Every node inside ``node``'s subgraphs."""
    for graph in subgraphs(node):
        yield from all_nodes(graph)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The subgraphs of ``node`` itself: branches, bodies of loops."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor stored in ``model``: initialisers and attributes, of subgraphs and functions."""
    yield from _tensors_of_graph(model.graph)
    for function in model.functions:
        yield from _tensors_of_nodes(function.node)


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors_of_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _tensors_of_graph(graph)


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which weights are inputs, but for small ones; it has no outputs yet."""
    light = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    known = {i.name for i in model.graph.input}
    for weight in model.graph.initializer:
        if not is_heavy(weight):
            light.graph.initializer.append(weight)
        elif weight.name not in known:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
            )
    return light


def is_heavy(weight: onnx.TensorProto) -> bool:
    """Whether `without_weights` leaves it out."""
    return size_of(weight) > _SMALL


def size_of(tensor: onnx.TensorProto) -> int:
    """About how many bytes it takes; protobuf itself would copy them to tell."""
    return int(prod(tensor.dims)) * dtype_of(tensor).itemsize


def dtype_of(tensor: onnx.TensorProto) -> np.dtype[Any]:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))


# --- weights that stay in a file ------------------------------------------------------------------

_MODIFIED = "modified"  # of the file, when the model was read


def leave_in_file(tensor: onnx.TensorProto, folder: Path) -> None:
    """Let ``tensor``, external data of a model in ``folder``, say where it is to be read later."""
    place = {entry.key: entry.value for entry in tensor.external_data}
    file = (folder / place["location"]).absolute()
    place |= {"location": str(file), _MODIFIED: str(file.stat().st_mtime_ns)}
    del tensor.external_data[:]
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)


def forget_place(tensor: onnx.TensorProto) -> None:
    """What a model from anywhere says under our own key means nothing."""
    kept = [entry for entry in tensor.external_data if entry.key != _MODIFIED]
    if len(kept) < len(tensor.external_data):
        del tensor.external_data[:]
        tensor.external_data.extend(kept)


def stays_in_file(tensor: onnx.TensorProto) -> bool:
    return any(entry.key == _MODIFIED for entry in tensor.external_data)


def array_of(tensor: onnx.TensorProto) -> NDArray[Any]:
    """The values of a weight, read from its file if they stay there.

    Raises ModelError where that file is not what it was.
    """
    if not stays_in_file(tensor):
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    place = {entry.key: entry.value for entry in tensor.external_data}
    file, count = Path(place["location"]), int(prod(tensor.dims))
    try:
        with file.open("rb") as stored:
            same = str(os.fstat(stored.fileno()).st_mtime_ns) == place[_MODIFIED]
            stored.seek(int(place.get("offset", "0")))
            values = np.fromfile(stored, dtype_of(tensor).newbyteorder("<"), count)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({first_line(error)})") from error
    if not same or values.size < count:
        raise ModelError(f"{file}: changed while it was in use", remedy="run it again")
    return values.astype(dtype_of(tensor), copy=False).reshape(tuple(tensor.dims))
