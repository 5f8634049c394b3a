"""Padding by rule (``auto_pad``) as numbers.

TensorFlow's exporters name the rule, also where the image's size is fixed. Cases, each with its
test:

* ``MaxPool``, ``AveragePool`` and ``Conv`` with ``SAME_UPPER`` or ``SAME_LOWER``: ``pads``, where
  the sizes of their input are known
* the same without a stride: the pads are those of the kernel, whatever the sizes are
* a stride and open sizes, or a kernel of unknown size: left alone; so are dilations, of which
  onnxruntime, unlike ONNX, takes no account here
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_graphsurgeon as gs

from na_convert.graph import is_standard
from na_convert.kernels import pads_of
from na_convert.tensor_types import TensorType, tensor_types

_PADDED = ("MaxPool", "AveragePool", "Conv")
_RULES = ("SAME_UPPER", "SAME_LOWER")


def plain_pads(graph: gs.Graph) -> int:
    """Returns how many nodes changed."""
    found = [
        n for n in graph.nodes if is_standard(n, *_PADDED) and n.attrs.get("auto_pad") in _RULES
    ]
    types = tensor_types(graph) if found else {}
    return sum(_write_out(node, types) for node in found)


def _write_out(node: gs.Node, types: Mapping[str, TensorType]) -> bool:
    kernel = _kernel(node, types)
    if kernel is None or any(int(d) != 1 for d in node.attrs.get("dilations") or []):
        return False
    rank = len(kernel)
    strides = [int(s) for s in node.attrs.get("strides") or [1] * rank]
    sizes = types.get(node.inputs[0].name, TensorType()).shape
    spatial = sizes[2:] if sizes is not None and len(sizes) == rank + 2 else (None,) * rank
    if any(s > 1 and not isinstance(n, int) for n, s in zip(spatial, strides, strict=True)):
        return False
    known = [n if isinstance(n, int) else 1 for n in spatial]  # without a stride any size will do
    pads = pads_of(node, known, kernel, strides, [1] * rank)
    del node.attrs["auto_pad"]
    node.attrs.pop("ceil_mode", None)  # by rule the last window is a whole one
    node.attrs["pads"] = [a for a, _ in pads] + [b for _, b in pads]
    return True


def _kernel(node: gs.Node, types: Mapping[str, TensorType]) -> list[int] | None:
    """The sizes of the windows of ``node``, where they are known."""
    if "kernel_shape" in node.attrs:
        return [int(k) for k in node.attrs["kernel_shape"]]
    shape = types.get(node.inputs[1].name, TensorType()).shape
    if shape is None or not all(isinstance(n, int) for n in shape):
        return None
    return [int(n) for n in shape[2:] if isinstance(n, int)]
