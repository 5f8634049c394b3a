"""Shapes by trial: each tensor's shape, and the integers computed from shapes, at chosen sizes.

A graph is walked once, node by node, for several trials side by side (two batch sizes, say). What
differs between the trials depends on the batch; what does not is constant. Weights are never read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from na_convert import qonnx
from na_convert.errors import ModelError
from na_convert.graph import is_constant, is_missing, is_ours, is_standard

from .repeated import SMALL, number_of, repeated_number, single
from .single_node import Array, evaluate_node, node_proto

Shape = tuple[int, ...]

_PLUMBING = 1024  # elements; computed values up to here are followed
_FLOAT = onnx.TensorProto.FLOAT


@dataclass
class Trial:
    """One walk: the sizes it assumes, and what it found, by tensor name.

    Attributes:
        batch: size of axis 0 of every graph input.
        size: of every other axis that the model leaves open.
        shapes: None or missing where a shape could not be inferred.
        values: of tensors that are computed from shapes and constants alone.
        numbers: of such tensors that are one number, repeated (`repeated`).
    """

    batch: int
    size: int = 64
    shapes: dict[str, Shape | None] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    numbers: dict[str, Array] = field(default_factory=dict)

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        if is_constant(tensor):
            return tuple(int(d) for d in tensor.shape)
        return self.shapes.get(tensor.name)

    def value(self, tensor: gs.Tensor) -> Array | None:
        if is_constant(tensor):
            return np.asarray(tensor.values) if _elements(tensor) <= SMALL else None
        return self.values.get(tensor.name)

    def number(self, tensor: gs.Tensor) -> Array | None:
        """The number that ``tensor`` repeats; None if it is not known to."""
        return number_of(tensor, self.numbers)


Visit = Callable[[gs.Node], object]


def walk(
    graph: gs.Graph,
    trials: Sequence[Trial],
    before: Visit | None = None,
    after: Visit | None = None,
) -> dict[str, int]:
    """Fill the trials in the order of the graph; returns the ONNX element types by tensor name.

    ``before`` is called with each node before its outputs are inferred and may edit its inputs and
    attributes; ``after`` once they are known. Nodes must be sorted; new ones are not walked.
    """
    types: dict[str, int] = {}
    for tensor in graph.inputs:
        types[tensor.name] = _element_type(tensor)
        for trial in trials:
            trial.shapes[tensor.name] = _input_shape(tensor, trial)
    for node in list(graph.nodes):
        if before:
            before(node)
        _infer(node, trials, types, int(graph.opset))
        if after:
            after(node)
    return types


def ranks(graph: gs.Graph) -> dict[str, int]:
    """Number of axes of every tensor where it can be inferred, by name."""
    graph.toposort()
    trial = Trial(batch=2)
    walk(graph, [trial])
    return {name: len(shape) for name, shape in trial.shapes.items() if shape is not None}


def infer_types(graph: gs.Graph) -> None:
    """Write the element type of every tensor into it, where it is unknown and can be inferred."""
    graph.toposort()
    trial = Trial(batch=next((_open(t.shape[0], 1) for t in graph.inputs if t.shape), 1))
    types = walk(graph, [trial])
    for tensor in graph.tensors().values():
        kind = types.get(tensor.name)
        if kind and tensor.dtype is None and isinstance(tensor, gs.Variable):
            tensor.dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)


def has_open_sizes(graph: gs.Graph) -> bool:
    """Whether the model leaves axes other than the batch open."""
    return any(
        not (isinstance(d, int) and d > 0) for t in graph.inputs for d in (t.shape or ())[1:]
    )


def batch_axis(trials: Sequence[Trial], tensor: gs.Tensor) -> int | None:
    """The one axis of ``tensor`` that grows with the batch; None if none does, or several.

    The first two trials must differ in nothing but the batch.
    """
    first, second = (t.shape(tensor) for t in trials[:2])
    if first is None or second is None or len(first) != len(second):
        return None
    varying = [k for k, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    return varying[0] if len(varying) == 1 else None


def _input_shape(tensor: gs.Tensor, trial: Trial) -> Shape | None:
    if tensor.shape is None:
        return None
    dims = [_open(d, trial.size) for d in tensor.shape]
    return (trial.batch, *dims[1:]) if dims else ()


def _open(dim: object, size: int) -> int:
    """``dim`` where the model fixes it, else ``size``."""
    return dim if isinstance(dim, int) and dim > 0 else size


def _infer(node: gs.Node, trials: Sequence[Trial], types: dict[str, int], opset: int) -> None:
    proto: onnx.NodeProto | None = None
    for trial in trials:
        if _follow_values(node, trial, types, opset):
            continue
        number = repeated_number(node, trial.numbers, opset)
        if number is not None:
            trial.numbers[node.outputs[0].name] = number
        if is_ours(node) or qonnx.is_qonnx(node.domain, node.op):
            trial.shapes[node.outputs[0].name] = trial.shape(node.inputs[0])
            continue
        if not is_standard(node) or not _shapes_known(node, trial):
            continue
        proto = proto or node_proto(
            node, [t.name for t in node.inputs], [t.name for t in node.outputs]
        )
        _infer_standard(node, proto, trial, types, opset)


def _follow_values(node: gs.Node, trial: Trial, types: dict[str, int], opset: int) -> bool:
    """Compute the outputs of a node whose inputs' values are known, or that asks for a shape."""
    if is_standard(node, "Shape", "Size"):
        shape = trial.shape(node.inputs[0])
        if shape is None:
            return False
        end = node.attrs.get("end")
        part = shape[int(node.attrs.get("start", 0)) : None if end is None else int(end)]
        size = node.op == "Size"
        value = np.asarray(np.prod(shape) if size else part, np.int64)
        _keep(trial, types, node.outputs[0], value)
        return True
    values = [None if is_missing(t) else trial.value(t) for t in node.inputs]
    given = [t for t in node.inputs if not is_missing(t)]
    if any(v is None for v, t in zip(values, node.inputs, strict=True) if not is_missing(t)):
        return False
    if all(is_constant(t) for t in given) and (not given or any(_is_float(t) for t in given)):
        return False
    if _too_many(node, values):
        return False
    try:
        results = evaluate_node(node, values, opset)
    except ModelError:
        return False
    for tensor, result in zip([t for t in node.outputs if t.name], results, strict=True):
        _keep(trial, types, tensor, np.asarray(result))
    return True


def _keep(trial: Trial, types: dict[str, int], tensor: gs.Tensor, value: Array) -> None:
    trial.shapes[tensor.name] = tuple(value.shape)
    types[tensor.name] = int(onnx.helper.np_dtype_to_tensor_dtype(value.dtype))
    if value.size <= _PLUMBING:
        trial.values[tensor.name] = value
        number = single(value)
        if number is not None:
            trial.numbers[tensor.name] = number


def _too_many(node: gs.Node, values: Iterable[Array | None]) -> bool:
    """Whether a node that makes large tensors out of small ones would do so."""
    if node.op not in ("Expand", "ConstantOfShape", "Tile", "Range", "RandomUniform"):
        return any(isinstance(v, gs.Graph) for v in node.attrs.values())
    last = [v for v in values if v is not None][-1]
    return node.op == "Range" or bool(np.prod(np.maximum(last, 1)) > _PLUMBING)


def _shapes_known(node: gs.Node, trial: Trial) -> bool:
    return all(is_missing(t) or trial.shape(t) is not None for t in node.inputs)


def _infer_standard(
    node: gs.Node, proto: onnx.NodeProto, trial: Trial, types: dict[str, int], opset: int
) -> None:
    input_types, input_data = {}, {}
    for name, tensor in zip(proto.input, node.inputs, strict=True):
        if not name:
            continue
        kind = types.get(tensor.name) or _element_type(tensor)
        input_types[name] = onnx.helper.make_tensor_type_proto(kind, trial.shape(tensor))
        value = trial.value(tensor)
        if value is not None:
            input_data[name] = onnx.numpy_helper.from_array(np.asarray(value), name)
    try:
        schema = onnx.defs.get_schema(node.op, opset, "")
        found = onnx.shape_inference.infer_node_outputs(
            schema, proto, input_types, input_data,
            opset_imports=[onnx.helper.make_opsetid("", opset)],
        )  # fmt: skip
    except Exception:  # onnx raises several unrelated types; an unknown shape is no error here
        return
    for name, result in found.items():
        tensor_type = result.tensor_type
        types[name] = tensor_type.elem_type
        dims = tensor_type.shape.dim
        known = tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims)
        trial.shapes[name] = tuple(d.dim_value for d in dims) if known else None


def _is_float(tensor: gs.Tensor) -> bool:
    """Weights are; sizes that the walk has found to be constant are not."""
    return np.asarray(tensor.values).dtype.kind == "f"


def _elements(tensor: gs.Tensor) -> int:
    return int(np.prod([int(d) for d in tensor.shape], dtype=np.int64))


def _element_type(tensor: gs.Tensor) -> int:
    dtype = tensor.dtype
    if dtype is None:
        return int(_FLOAT)
    if isinstance(dtype, int):
        return dtype
    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
