"""Reading models: external data, hashes, and what has to be put right before the passes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path

import onnx
import onnx.inliner
from onnx.external_data_helper import load_external_data_for_tensor

from . import model_guard, neurons
from .cut import MOST_AT_ONCE, reads
from .errors import ModelError, NotConvertible, first_line
from .graph import STANDARD_DOMAINS
from .large_batch import free_large_batch
from .lift import OPSET
from .protos import (
    dtype_of,
    forget_place,
    leave_in_file,
    size_of,
    stays_in_file,
    tensors_of,
    without_weights,
)
from .runtime import HEAVY

HDF5 = b"\x89HDF\r\n\x1a\n"  # how such a file begins


@dataclass
class Loaded:
    """A model read from `path`: weights inside, foreign local functions inlined. Of a model with
    more than `cut.MOST_AT_ONCE` bytes of external data the large weights stay in their file
    (`protos.array_of` reads them).

    `bytes` are those of the file and of its external data, `sha256` is of the file alone; `notes`
    says what else was changed while it was read.
    """

    model: onnx.ModelProto
    path: Path
    sha256: str
    bytes: int
    notes: tuple[str, ...] = ()

    def take(self) -> onnx.ModelProto:
        """Hand the model over: the taker may change it, and frees its weights when done."""
        model, self.model = self.model, onnx.ModelProto()
        return model


def load(path: Path) -> Loaded:
    """Read an ONNX model with its external data, and inline local functions that are not ours.

    Nodes that stand before what they read, as some tools write them, are sorted, sizes of -1 are
    free, and a batch too large to run is freed. Raises ModelError
    with one line if the file is missing, unreadable or not a valid model, and NotConvertible if it
    works in bfloat16.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file", remedy="give the path of an ONNX model")
    _refuse_nir(path)
    try:
        model_guard.check_size(path)
        digest = _sha256(path)
        model, beside = _checked(path)
        _open_sizes(model.graph)
        model_guard.check_model(path, model)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{path}: not a readable ONNX model ({first_line(error)})") from error
    _refuse_bfloat16(path, model)
    if not model.graph.node:
        raise ModelError(f"{path}: the model has no nodes")
    model = _without_foreign_functions(path, model)
    note = free_large_batch(path, model)
    return Loaded(model, path, digest, path.stat().st_size + beside, (note,) if note else ())


def _refuse_nir(path: Path) -> None:
    """A NIR file is HDF5; it is written, and never read as a model."""
    with path.open("rb") as file:
        if file.read(len(HDF5)) == HDF5:
            raise ModelError(
                f"{path}: this is an HDF5 file, as NIR files are, and no ONNX model",
                remedy="na-convert writes NIR and reads ONNX: give the ANN or SNN it came from",
            )


def _without_foreign_functions(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    foreign = [(f.domain, f.name) for f in model.functions if f.domain != neurons.DOMAIN]
    if not foreign:
        return model
    try:
        inlined = onnx.inliner.inline_selected_functions(_light(model), foreign)
    except Exception as error:
        raise ModelError(
            f"{path}: its local functions cannot be inlined ({first_line(error)})"
        ) from error
    for field in ("opset_import", "functions"):
        model.ClearField(field)
        getattr(model, field).extend(getattr(inlined, field))
    for field in ("node", "value_info"):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(getattr(inlined.graph, field))
    return model


def _light(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with large weights as inputs: what onnx serialises must stay below 2 GiB."""
    light = without_weights(model)
    light.graph.output.extend(model.graph.output)
    light.graph.value_info.extend(model.graph.value_info)
    light.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    return light


def _checked(path: Path) -> tuple[onnx.ModelProto, int]:
    """The model, valid, its nodes in an order in which they can run; bytes of external data."""
    try:
        onnx.checker.check_model(path)
    except onnx.checker.ValidationError as error:
        if "topologically sorted" not in str(error):
            raise
        model, beside = _with_external_data(path)
        sort_nodes(model.graph)
        onnx.checker.check_model(_light(model))
        return model, beside
    return _with_external_data(path)


def _open_sizes(graph: onnx.GraphProto) -> None:
    """Take -1 for a free size, as onnxruntime does and paddle2onnx writes it."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value == -1:
                dim.Clear()


def _with_external_data(path: Path) -> tuple[onnx.ModelProto, int]:
    model = onnx.load(path, load_external_data=False)
    beside = model_guard.check_external(path, model)
    for tensor in tensors_of(model):
        forget_place(tensor)
    if beside > MOST_AT_ONCE:
        _leave_in_file(model, path.parent)
    for tensor in tensors_of(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL and not stays_in_file(tensor):
            load_external_data_for_tensor(tensor, str(path.parent))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    return model, beside


def _leave_in_file(model: onnx.ModelProto, folder: Path) -> None:
    """Large weights, of types that numpy has, stay where they are until they are needed; not those
    of a model that will be lifted, and compared with what it was."""
    if not any(i.domain in STANDARD_DOMAINS and i.version >= OPSET for i in model.opset_import):
        return
    for weight in model.graph.initializer:
        external = weight.data_location == onnx.TensorProto.EXTERNAL
        if external and size_of(weight) > HEAVY and dtype_of(weight).isbuiltin == 1:
            leave_in_file(weight, folder)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put each node behind those it reads from, and otherwise keep the order; cycles stay."""
    maker = {name: k for k, node in enumerate(graph.node) for name in node.output if name}
    waits = [{maker[name] for name in reads(node) if name in maker} for node in graph.node]
    readers: dict[int, list[int]] = {}
    for k, needed in enumerate(waits):
        for source in needed:
            readers.setdefault(source, []).append(k)
    left = [len(needed) for needed in waits]
    ready = [k for k, count in enumerate(left) if not count]
    order = []
    while ready:
        k = heappop(ready)
        order.append(k)
        for reader in readers.get(k, ()):
            left[reader] -= 1
            if not left[reader]:
                heappush(ready, reader)
    if len(order) < len(graph.node):
        return
    copies = [onnx.NodeProto.FromString(graph.node[k].SerializeToString()) for k in order]
    del graph.node[:]
    graph.node.extend(copies)


def _refuse_bfloat16(path: Path, model: onnx.ModelProto) -> None:
    kind = onnx.TensorProto.BFLOAT16
    inputs = [i.name for i in model.graph.input if i.type.tensor_type.elem_type == kind]
    casts = [
        node.name or node.output[0]
        for node in model.graph.node
        if node.op_type == "Cast" and any(a.name == "to" and a.i == kind for a in node.attribute)
    ]
    if inputs or casts:
        raise NotConvertible(
            f"{path}: {(inputs + casts)[0]!r} works in bfloat16, which onnxruntime does not run",
            node=(inputs + casts)[0],
            remedy="export in float32 (model.float()): the weights keep their values",
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
