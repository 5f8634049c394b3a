"""Files for a batch so large that only its number makes their tensors too large.

The checks run a network at its file's own batch. Where that is more than `size_guard` lets through
and the number stands in the shapes of inputs and outputs alone, the batch is freed before anything
is run; where nodes have it built in, the file is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path

import onnx

from .cut import reads
from .errors import ModelError
from .protos import without_weights
from .size_guard import MOST_ELEMENTS

_ASKS_FOR_SHAPES = ("Shape", "Size")
_ANY = "N"
REMEDY = "export with a dynamic batch size (dynamic_shapes, or dynamic_axes), or one sample"


def free_large_batch(path: Path, model: onnx.ModelProto) -> str:
    """Free the batch of ``model``, in place, if it is too large; a note for the user, or nothing.

    Raises ModelError where tensors are too large at its batch, and that is built into nodes, or
    inputs differ in it.
    """
    inputs = _inputs(model)
    batches = {i.type.tensor_type.shape.dim[0].dim_value for i in inputs if _rank(i)}
    if max(batches, default=0) < 2:
        return ""
    sizes = {name: prod(max(n, 1) for n in dims) for name, dims in _shapes(model, None).items()}
    largest = max(sizes, key=lambda name: sizes[name], default="")
    if sizes.get(largest, 0) <= MOST_ELEMENTS:
        return ""
    if len(batches) > 1 or not all(map(_rank, inputs)):
        raise ModelError(
            f"{path}: tensor {largest!r} would have {sizes[largest]:.3g} elements, more than "
            f"{MOST_ELEMENTS:.3g}, and the inputs differ in their batch",
            node=largest,
            remedy=REMEDY,
        )
    (batch,) = batches
    too_large = (
        f"tensor {largest!r} would have {sizes[largest]:.3g} elements at the file's batch of "
        f"{batch}, more than {MOST_ELEMENTS:.3g}"
    )
    builtin = _builtin(model)
    if builtin is not None:
        raise ModelError(
            f"{path}: {too_large}, and {builtin!r} may have that batch built in",
            node=largest,
            remedy=REMEDY,
        )
    for value in (*inputs, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_value == batch:
            dims[0].dim_param = _ANY
    del model.graph.value_info[:]
    return f"{too_large}: the batch was freed, and the network is checked at a smaller one"


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    weights = {i.name for i in model.graph.initializer}
    return [i for i in model.graph.input if i.name not in weights]


def _rank(value: onnx.ValueInfoProto) -> int:
    return len(value.type.tensor_type.shape.dim)


def _builtin(model: onnx.ModelProto) -> str | None:
    """The first node whose outputs do not follow the batch of what it reads, as far as is known."""
    one, two = _shapes(model, 1), _shapes(model, 2)
    samples = {
        name
        for name, dims in one.items()
        if min(dims, default=0) > 0 and dims[0] == 1 and two.get(name) == [2, *dims[1:]]
    }
    for node in model.graph.node:
        if node.op_type in _ASKS_FOR_SHAPES or samples.isdisjoint(reads(node)):
            continue
        if not samples.issuperset(name for name in node.output if name):
            return str(node.name or node.output[0])
    return None


def _shapes(model: onnx.ModelProto, batch: int | None) -> dict[str, list[int]]:
    """Shapes of inputs and computed tensors at ``batch``, or that of the file; 0 is not known."""
    light = without_weights(model)
    fed = {i.name for i in _inputs(model)}
    for value in light.graph.input:
        if batch is not None and value.name in fed:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    values = [i for i in light.graph.input if i.name in fed]
    try:
        inferred = onnx.shape_inference.infer_shapes(
            light, strict_mode=batch is not None, data_prop=batch is not None
        )
    except Exception:  # whatever is wrong with it, running it says more clearly
        return _dims(values)
    return _dims([*values, *inferred.graph.value_info])


def _dims(values: Iterable[onnx.ValueInfoProto]) -> dict[str, list[int]]:
    return {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
