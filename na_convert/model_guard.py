"""What a model file may ask for, checked before anything is read, allocated or run.

A file comes from anywhere: what it declares is compared with what it holds, and with limits
far above what networks need. Raises ModelError, in one line each:

* a protobuf of more than 2 GiB
* a tensor of unknown type, or with more or fewer bytes than its shape takes, inside the file or in
  its external data; external data larger than the machine's memory
* an input of unknown type, with a size below 0, or larger than `size_guard.MOST_ELEMENTS`
* two versions of ONNX's own operators at once
* names with control characters
* local functions that call each other until there are more than `MOST_NODES` nodes
* operators on which onnxruntime ends the process when an optional input is left out
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto

from .errors import ModelError
from .machine import beyond_memory
from .protos import all_nodes, tensors_of, with_subgraphs
from .size_guard import check_elements

MOST_BYTES = 2**31  # of a protobuf
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


def check_external(path: Path, model: onnx.ModelProto) -> int:
    """External data, before it is read: ``model`` was loaded without it. Returns its bytes.

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
    if too_large := beyond_memory(total):
        raise ModelError(f"{path}: weights of {too_large}")
    return total


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
        check_elements(path, sparse.values.name, prod(sparse.dims))
    _check_inputs(path, model)
    _check_functions(path, model)
    _check_names(path, model)
    _check_operators(path, model)


# --- tensors --------------------------------------------------------------------------------------


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
        if any(size < 0 for size in sizes):
            raise ModelError(
                f"{path}: input {value.name!r} has a size below 0 ({min(sizes)})",
                node=value.name,
                remedy="leave sizes that are free without a number (dynamic axes)",
            )
        own = [d.dim_value for d in tensor.shape.dim[1:]]
        check_elements(path, value.name, prod(max(s, 1) for s in own))


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
    for node in all_nodes(graph):
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
    bodies = (node for f in model.functions for node in with_subgraphs(f.node))
    for node in (*all_nodes(graph), *bodies):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)


def _is_printable(name: str) -> bool:
    return (name.isascii() and name.isprintable()) or not any(map(_is_control, name))


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc"


def _check_functions(path: Path, model: onnx.ModelProto) -> None:
    nodes = count_nodes(model)
    if nodes > MOST_NODES:
        raise ModelError(
            f"{path}: {nodes} nodes (local functions inlined), more than {MOST_NODES}",
            remedy="simplify the model, with onnxsim for instance: a network has fewer by far",
        )


_FATAL_BELOW = {"QLinearLeakyRelu": 5, "QLinearSigmoid": 5}  # inputs, of onnxruntime's own


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    """What onnxruntime (seen in 1.32) does not refuse, but abort on."""
    bodies = (node for f in model.functions for node in with_subgraphs(f.node))
    for node in (*all_nodes(model.graph), *bodies):
        if len(node.input) < _FATAL_BELOW.get(node.op_type, 0) and node.domain == "com.microsoft":
            name = node.name or node.output[0]
            raise ModelError(
                f"{path}: {name!r} ({node.op_type}) has no zero point of its result, without which "
                "onnxruntime ends",
                node=name,
                remedy="add it: 0 is what leaving it out means",
            )


def count_nodes(model: onnx.ModelProto) -> int:
    """Nodes of ``model``, its local functions (not recursive, says the checker) inlined."""
    bodies = {(f.domain, f.name): f for f in model.functions}
    counted: dict[tuple[str, str], int] = {}

    def count(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in bodies and key not in counted:
                counted[key] = count(with_subgraphs(bodies[key].node))
            total += counted.get(key, 1)
        return total

    return count(all_nodes(model.graph))
