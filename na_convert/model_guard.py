"""What a model file may ask for, checked before anything is read, allocated or run.

A file comes from anywhere: what it declares is compared with what it holds, and with limits that
no network in use comes near. Raises ModelError, or NotConvertible, in one line each:

* a protobuf of more than 2 GiB
* a tensor of unknown type, or with more or fewer bytes than its shape takes, inside the file or in
  its external data; external data larger than the machine's memory
* an input of unknown type, with a size below 0, or larger than `MOST_ELEMENTS`
* two versions of ONNX's own operators at once
* names with control characters
* local functions that call each other until there are more than `MOST_NODES` nodes
* Loop and Scan: how often they run is up to the data
* a tensor of more than `MOST_ELEMENTS` elements, or constants computed from little that come to
  more than `MOST_CONSTANT`, where shapes can be inferred
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from .cut import reads
from .errors import ModelError, NotConvertible
from .results import Refusal

MOST_BYTES = 2**31  # of a protobuf
MOST_ELEMENTS = 2**27  # of a tensor, for one sample; half a GiB in float32
MOST_CONSTANT = 2**24  # elements of tensors that are computed from constants, all together, ...
MOST_GROWTH = 64  # ... or as many for each number in the file
MOST_NODES = 30_000  # after local functions are inlined
MOST_CHARACTERS = 4096  # of a name
_STANDARD = ("", "ai.onnx")
_HALF_BYTES = {"FLOAT4E2M1", "INT4", "UINT4"}
_QUARTER_BYTES = {"INT2", "UINT2"}
_FROM_ANYWHERE = "the file is damaged, or was made to do harm: export the model anew"


def check_size(path: Path) -> None:
    """Before the file is read at all."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ModelError(
            f"{path}: {size / 2**30:.1f} GiB, over protobuf's limit of 2",
            remedy="export it with its weights as external data",
        )


def check_external(path: Path, model: onnx.ModelProto) -> None:
    """External data, before it is read: ``model`` was loaded without it.

    onnx's checker has refused locations outside the model's folder, links and what is no file.
    """
    total = 0
    for tensor in tensors_of(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        _check_type(path, tensor)
        needed, stored = _bytes_needed(tensor), _external_bytes(path, tensor)
        if stored != needed:
            raise ModelError(
                f"{path}: weight {tensor.name!r} takes {needed} bytes, its external data has "
                f"{stored}",
                node=tensor.name,
                remedy="keep the .data file of the same export beside the model",
            )
        total += needed
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if total > memory:
        raise ModelError(
            f"{path}: weights of {total / 2**30:.1f} GiB, and this machine has "
            f"{memory / 2**30:.1f} GiB of memory"
        )


def check_model(path: Path, model: onnx.ModelProto) -> None:
    """What is inside the file, once onnx's checker has passed it."""
    versions = [i.version for i in model.opset_import if i.domain in _STANDARD]
    if len(versions) > 1:
        raise ModelError(
            f"{path}: imports two versions of ONNX's operators ({versions[0]} and {versions[1]})",
            remedy="export it anew",
        )
    for tensor in tensors_of(model):
        _check_type(path, tensor)
        if tensor.data_location != TensorProto.EXTERNAL:
            _check_bytes(path, tensor)
    for sparse in model.graph.sparse_initializer:
        _check_elements(path, sparse.values.name, prod(sparse.dims))
    _check_inputs(path, model)
    _check_functions(path, model)
    _check_names(path, model)


def refuse_loops(path: Path, model: onnx.ModelProto) -> None:
    """Raise NotConvertible, listing every Loop and Scan of an ANN, those in subgraphs included."""
    refused = tuple(
        Refusal(
            node.name or next(iter(node.output), node.op_type),
            node.op_type,
            "a loop, whose number of rounds may depend on data",
            "export with torch.jit.trace or torch.export, which write the rounds out, or cut the "
            "network before it",
        )
        for node in _all_nodes(model.graph)
        if node.op_type in ("Loop", "Scan") and node.domain in _STANDARD
    )
    if refused:
        raise NotConvertible(
            f"{path}: {len(refused)} node(s) are loops",
            node=refused[0].node,
            remedy="see the table: each is named with the reason and what to do",
            refused=refused,
        )


def check_sizes(path: Path, model: onnx.ModelProto, feeds: Mapping[str, Any]) -> None:
    """Tensors that running the network on one sample of ``feeds`` [N, ...] would make.

    Where shapes cannot be inferred nothing is known, and nothing refused.
    """
    shapes = _shapes_for(model, feeds)
    for name, shape in shapes.items():
        _check_elements(path, name, prod(shape))
    allowed = max(MOST_CONSTANT, MOST_GROWTH * sum(prod(t.dims) for t in tensors_of(model)))
    fed, total = {i.name for i in model.graph.input}, 0
    for node in model.graph.node:
        if any(name in fed for name in reads(node)):
            fed.update(node.output)
            continue
        total += sum(prod(shapes[name]) for name in node.output if name in shapes)
        if total > allowed:
            raise ModelError(
                f"{path}: constants of {total:.3g} elements would be computed by "
                f"{node.name or node.output[0]!r} and what is before it, more than {allowed:.3g}",
                node=node.name or node.output[0],
                remedy="store them in the file, or look at what makes them",
            )


# --- tensors --------------------------------------------------------------------------------------


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


def _check_type(path: Path, tensor: onnx.TensorProto) -> None:
    if tensor.data_type not in TensorProto.DataType.values():
        raise ModelError(
            f"{path}: weight {tensor.name!r} has the unknown type {tensor.data_type}",
            node=tensor.name,
            remedy=_FROM_ANYWHERE,
        )


def _bytes_needed(tensor: onnx.TensorProto) -> int:
    name = TensorProto.DataType.Name(tensor.data_type)
    count = int(prod(tensor.dims))
    if name in _HALF_BYTES:
        return (count + 1) // 2
    if name in _QUARTER_BYTES:
        return (count + 3) // 4
    return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _check_bytes(path: Path, tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.STRING:
        return
    if tensor.HasField("raw_data"):
        needed, stored, unit = _bytes_needed(tensor), len(tensor.raw_data), "bytes"
    else:
        field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
        parts = 2 if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128) else 1
        needed, stored, unit = prod(tensor.dims) * parts, len(getattr(tensor, field)), "values"
        if TensorProto.DataType.Name(tensor.data_type) in _HALF_BYTES | _QUARTER_BYTES:
            needed = _bytes_needed(tensor)
    if stored != needed:
        raise ModelError(
            f"{path}: weight {tensor.name!r} takes {needed} {unit} and has {stored}",
            node=tensor.name,
            remedy=_FROM_ANYWHERE,
        )


def _external_bytes(path: Path, tensor: onnx.TensorProto) -> int:
    """How many bytes lie where ``tensor`` says, as far as the file goes."""
    entries = {e.key: e.value for e in tensor.external_data}
    file = path.parent / entries.get("location", "")
    try:
        size = file.stat().st_size
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", "-1"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: the external data of weight {tensor.name!r} cannot be found ({error})",
            node=tensor.name,
            remedy="keep the .data file of the same export beside the model",
        ) from error
    rest = size - offset if 0 <= offset <= size else 0
    return min(rest, length) if "length" in entries else rest


def _check_elements(path: Path, name: str, elements: int) -> None:
    if elements > MOST_ELEMENTS:
        raise ModelError(
            f"{path}: tensor {name!r} would have {elements:.3g} elements, more than "
            f"{MOST_ELEMENTS:.3g}",
            node=name,
            remedy="no network in use has a tensor as large: look at what makes it",
        )


# --- inputs, functions, nodes ---------------------------------------------------------------------


def _check_inputs(path: Path, model: onnx.ModelProto) -> None:
    for value in model.graph.input:
        tensor = value.type.tensor_type
        if tensor.elem_type not in TensorProto.DataType.values():
            raise ModelError(
                f"{path}: input {value.name!r} has the unknown type {tensor.elem_type}",
                node=value.name,
                remedy=_FROM_ANYWHERE,
            )
        sizes = [d.dim_value for d in tensor.shape.dim if d.HasField("dim_value")]
        if any(d.dim_value < 0 for d in tensor.shape.dim[1:]):
            raise ModelError(
                f"{path}: input {value.name!r} has a size below 0 ({min(sizes)})",
                node=value.name,
                remedy="leave sizes that are free without a number (dynamic axes)",
            )
        _check_elements(path, value.name, prod(max(s, 1) for s in sizes))


def _check_names(path: Path, model: onnx.ModelProto) -> None:
    """Names are printed, and written into reports: no escape sequences, and no books; and
    whatever is a text is one."""
    for name in (*_texts(model), *_names(model)):
        if not isinstance(name, str):  # protobuf gives bytes that are no UTF-8 as they are
            raise ModelError(
                f"{path}: a name that is no text, {name[:40]!r}", remedy=_FROM_ANYWHERE
            )
    for name in _names(model):
        if len(name) > MOST_CHARACTERS or not _is_printable(name):
            raise ModelError(
                f"{path}: a name with control characters or more than {MOST_CHARACTERS} "
                f"characters, {name[:40]!r}",
                remedy=_FROM_ANYWHERE,
            )


def _texts(model: onnx.ModelProto) -> Iterator[str | bytes]:
    """Texts of any length, that are kept or shown."""
    graph = model.graph
    yield from (model.producer_name, model.producer_version, model.domain, model.doc_string)
    yield from (graph.name, graph.doc_string, *(i.domain for i in model.opset_import))
    yield from (text for p in model.metadata_props for text in (p.key, p.value))
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.doc_string
        yield from (d.dim_param for d in value.type.tensor_type.shape.dim)
    for node in _all_nodes(graph):
        yield node.doc_string
        yield from (text for p in node.metadata_props for text in (p.key, p.value))
        for attribute in node.attribute:
            yield attribute.name
            if attribute.HasField("g"):
                yield attribute.g.name


def _names(model: onnx.ModelProto) -> Iterator[str]:
    graph = model.graph
    for function in model.functions:
        yield from (function.name, function.domain)
    yield from (name for f in model.functions for name in (*f.input, *f.output))
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    yield from (value.name for value in values)
    bodies = (node for f in model.functions for node in _with_subgraphs(f.node))
    for node in (*_all_nodes(graph), *bodies):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)


def _is_printable(name: str) -> bool:
    return (name.isascii() and name.isprintable()) or not any(map(_is_control, name))


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc"


def _check_functions(path: Path, model: onnx.ModelProto) -> None:
    """The nodes that local functions (not recursive, says the checker) come to when inlined."""
    bodies = {(f.domain, f.name): f for f in model.functions}
    counted: dict[tuple[str, str], int] = {}

    def count(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in bodies and key not in counted:
                counted[key] = count(_with_subgraphs(bodies[key].node))
            total += counted.get(key, 1)
        return total

    nodes = count(_all_nodes(model.graph))
    if nodes > MOST_NODES:
        raise ModelError(
            f"{path}: {nodes} nodes (local functions inlined), more than {MOST_NODES}",
            remedy="simplify the model, with onnxsim for instance: a network has fewer by far",
        )


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    yield from _with_subgraphs(graph.node)


def _with_subgraphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all_nodes(attribute.g)
            for graph in attribute.graphs:
                yield from _all_nodes(graph)


# --- shapes ---------------------------------------------------------------------------------------


def _shapes_for(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> dict[str, list[int]]:
    """Inferred shapes for one sample; sizes that stay unknown count as 1."""
    light = _without_weights(model)
    for value in light.graph.input:
        if value.name not in feeds:
            continue
        sizes = feeds[value.name].shape
        for axis, (dim, size) in enumerate(
            zip(value.type.tensor_type.shape.dim, sizes, strict=False)
        ):
            if axis and not dim.dim_value:
                dim.dim_value = size
            elif not axis and dim.dim_value <= 0:
                dim.dim_value = 1
    try:
        inferred = onnx.shape_inference.infer_shapes(light)
    except Exception:  # whatever is wrong with it, running it says more clearly
        return {}
    return {
        value.name: [max(d.dim_value, 1) for d in value.type.tensor_type.shape.dim]
        for value in inferred.graph.value_info
    }


_SMALL = 4096  # bytes; what may say something about shapes


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which weights are inputs; the outputs are inferred like any tensor."""
    light = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    known = {i.name for i in model.graph.input}
    for weight in model.graph.initializer:
        if weight.ByteSize() <= _SMALL:
            light.graph.initializer.append(weight)
        elif weight.name not in known:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
            )
    return light
