"""How large the tensors get that running a model makes, as far as shapes can be inferred.

Raises ModelError, in one line, for

* a tensor of more than `MOST_ELEMENTS` elements
* constants computed from little that come to more than `MOST_CONSTANT`
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import onnx

from .cut import reads
from .errors import ModelError
from .protos import tensors_of, without_weights

MOST_ELEMENTS = 2**27  # of a tensor, for one sample or a fixed batch; half a GiB in float32
MOST_CONSTANT = 2**24  # elements of tensors that are computed from constants, all together, ...
MOST_GROWTH = 64  # ... or as many for each number in the file


def check_sizes(path: Path, model: onnx.ModelProto, feeds: Mapping[str, Any]) -> None:
    """Tensors that running the network on one sample of ``feeds`` [N, ...] would make, or on as
    many as the file fixes.

    Where shapes cannot be inferred nothing is known, and nothing refused.
    """
    shapes = _shapes_for(model, feeds)
    for name, shape in shapes.items():
        check_elements(path, name, prod(shape))
    allowed = most_made(sum(prod(t.dims) for t in tensors_of(model)))
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


def most_made(stored: int) -> int:
    """Elements of all constants that may be computed from ``stored`` numbers."""
    return max(MOST_CONSTANT, MOST_GROWTH * stored)


def check_elements(path: Path, name: str, elements: int) -> None:
    """Raise ModelError where the tensor ``name`` has too many."""
    if elements > MOST_ELEMENTS:
        raise ModelError(
            f"{path}: tensor {name!r} would have {elements:.3g} elements, more than "
            f"{MOST_ELEMENTS:.3g}",
            node=name,
            remedy="look at what makes it",
        )


def _shapes_for(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> dict[str, list[int]]:
    """Inferred shapes for one sample, or the file's batch; sizes that stay unknown count as 1."""
    light = without_weights(model)
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
