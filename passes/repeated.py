"""Tensors of one number, repeated: what ``full_like`` makes, and what is computed of it.

`walk_shapes` follows small values in full. Of such tensors one number is enough, however large they
are: a search in a table (``torch.bucketize``, as torch.export writes it) begins with them. Cases:

* Expand and ConstantOfShape; what leaves the numbers alone (Unsqueeze, Reshape, ...)
* elementwise operators on such tensors and on single numbers
* Gather and GatherND from a constant table at such a tensor
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from na_convert import pointwise
from na_convert.errors import ModelError
from na_convert.graph import is_constant, is_missing, is_standard

from .single_node import Array, evaluate_node

_KEEPING = ("Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
SMALL = 4096  # elements; constants up to here may say something about shapes


def number_of(tensor: gs.Tensor, known: Mapping[str, Array]) -> Array | None:
    """The number that ``tensor`` repeats, as an array of no axes; None if it is not known to."""
    if not is_constant(tensor):
        return known.get(tensor.name)
    if not 1 <= int(np.prod(tensor.shape)) <= SMALL:
        return None
    return single(np.asarray(tensor.values))


def single(values: Array) -> Array | None:
    """The number that is all there is in ``values``."""
    first = values.ravel()[:1]
    alike = first.size == 1 and bool(np.all(values == first))
    return np.asarray(first.reshape(())) if alike else None


def repeated_number(node: gs.Node, known: Mapping[str, Array], opset: int) -> Array | None:
    """The number that the first output of ``node`` repeats, where its inputs' are ``known``."""
    if is_standard(node, "ConstantOfShape"):
        value = node.attrs.get("value")
        return single(np.zeros(1, np.float32) if value is None else np.asarray(value.values))
    if is_standard(node, *_KEEPING):
        return number_of(node.inputs[0], known)
    given = [t for t in node.inputs if not is_missing(t)]
    if is_standard(node, "Gather", "GatherND"):
        return _looked_up(node, number_of(node.inputs[1], known))
    numbers = [number_of(t, known) for t in given]
    if not numbers or not pointwise.known(node) or any(n is None for n in numbers):
        return None
    if all(is_constant(t) for t in given):
        return None
    left = iter(numbers)
    try:
        (found, *_) = evaluate_node(
            node, [None if is_missing(t) else next(left) for t in node.inputs], opset
        )
    except ModelError:
        return None
    return single(np.asarray(found))


def _looked_up(node: gs.Node, index: Array | None) -> Array | None:
    table = node.inputs[0]
    if index is None or not is_constant(table) or len(table.shape) != 1:
        return None
    place, size = int(index), int(table.shape[0])
    return np.asarray(table.values[place]) if -size <= place < size else None
