"""Tensors that lie on the grid of a QuantizeLinear: integers that are only moved, then read as
floats, and values that are quantised again by the quantiser they come from."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from na_convert.graph import (
    Names,
    constant,
    is_constant,
    is_missing,
    is_output,
    is_standard,
    producer,
    rename,
)
from na_convert.regions import MOVING

_MOVING = (*MOVING, "MaxPool", "Pad", "Resize")  # what commutes with a dequantisation, if it does
_MAX_DEPTH = 10_000


def move_behind_dequantisation(graph: gs.Graph) -> int:
    """DequantizeLinear(Move(q)) becomes Move(DequantizeLinear(q)); returns the number of moves."""
    graph.toposort()
    names = Names(graph)
    return sum(_move(graph, node, names) for node in reversed(list(graph.nodes)))


def merge_duplicates(graph: gs.Graph) -> int:
    """One QuantizeLinear, one DequantizeLinear per tensor and grid; exporters write several.

    Returns how many went.
    """
    graph.toposort()
    changed = 0
    for node in list(graph.nodes):
        if not is_standard(node, "QuantizeLinear", "DequantizeLinear") or not node.outputs:
            continue
        for other in list(node.inputs[0].outputs):
            if other is node or other.op != node.op or not is_standard(other):
                continue
            if is_output(graph, other.outputs[0]) or not _same_grid(node, other):
                continue
            rename(graph, other.outputs[0], node.outputs[0])
            other.outputs.clear()
            other.inputs.clear()
            changed += 1
    graph.cleanup()
    return changed


def drop_requantisation(graph: gs.Graph) -> int:
    """Drop quantisers of values that already lie on their grid; returns how many."""
    changed = 0
    for node in list(graph.nodes):
        if not is_standard(node, "DequantizeLinear") or not node.inputs:
            continue
        source = _quantiser(node)
        if source is None or not _same_grid(source, node):
            continue
        if _on_grid(source.inputs[0], node) and not is_output(graph, node.outputs[0]):
            rename(graph, node.outputs[0], source.inputs[0])
            node.outputs.clear()
            changed += 1
    return changed


def _move(graph: gs.Graph, node: gs.Node, names: Names) -> int:
    if not _moves(node) or len(node.outputs) != 1:
        return 0
    moved = node.outputs[0]
    readers = list(moved.outputs)
    if is_output(graph, moved) or not readers or is_constant(node.inputs[0]):
        return 0
    if not all(is_standard(r, "DequantizeLinear") and _per_tensor(r) for r in readers):
        return 0
    first = readers[0]
    if not all(_same_grid(first, r) for r in readers[1:]):
        return 0
    if any(is_output(graph, r.outputs[0]) for r in readers[1:]):
        return 0
    integers, result = node.inputs[0], first.outputs[0]
    floats = gs.Variable(names.fresh(f"{integers.name}_dequantised"), dtype=result.dtype)
    early = gs.Node(
        "DequantizeLinear", names.fresh(f"{integers.name}_DequantizeLinear"), dict(first.attrs),
        [integers, *first.inputs[1:]], [floats],
    )  # fmt: skip
    for reader in readers:
        output = reader.outputs[0]
        reader.outputs.clear()
        reader.inputs.clear()
        if output is not result:
            rename(graph, output, result)
    node.inputs = [floats, *node.inputs[1:]]
    if node.op == "Pad":
        _pad_with_floats(node, early, names)
    node.outputs = [result]
    graph.nodes.append(early)
    return 1


def _moves(node: gs.Node) -> bool:
    """Whether ``node`` gives nothing but values of its first input, or a constant beside them."""
    if not is_standard(node, *_MOVING):
        return False
    if node.op == "Resize":
        cropped = node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
        return node.attrs.get("mode", "nearest") == "nearest" and not cropped
    if node.op == "Pad":
        return all(is_constant(t) for t in node.inputs[1:3] if not is_missing(t))
    return True


def _pad_value(node: gs.Node) -> float:
    """The number that a Pad puts around its input; without one, 0."""
    given = len(node.inputs) > 2 and not is_missing(node.inputs[2])
    return float(np.ravel(node.inputs[2].values)[0]) if given else 0.0


def _pad_with_floats(node: gs.Node, dequantiser: gs.Node, names: Names) -> None:
    """Let the Pad ``node`` put around floats what it put around the integers."""
    if node.attrs.get("mode", "constant") != "constant":
        return
    scale = dequantiser.inputs[1].values
    value = (_pad_value(node) - _zero_point(dequantiser)[1]) * float(np.ravel(scale)[0])
    filled = constant(names.fresh(f"{node.outputs[0].name}_value"), np.asarray(value, scale.dtype))
    rest = node.inputs[3:]
    node.inputs = [*node.inputs[:2], filled, *rest]


def _on_grid(tensor: gs.Tensor, dequantiser: gs.Node) -> bool:
    """Whether ``tensor`` only holds values that ``dequantiser`` can give out."""
    waiting = [tensor]
    for _ in range(_MAX_DEPTH):
        if not waiting:
            return True
        node = producer(waiting.pop())
        if node is None:
            return False
        if is_standard(node, "DequantizeLinear"):
            if _same_grid(node, dequantiser) and _limits(node) == _limits(dequantiser):
                continue
            return False
        if is_standard(node, "Concat"):
            waiting.extend(node.inputs)
        elif is_standard(node, "Pad") and _pads_off(node, dequantiser):
            return False
        elif _moves(node) or is_standard(node, "Relu"):
            waiting.append(node.inputs[0])
        else:
            return False
    return False


def _pads_off(node: gs.Node, dequantiser: gs.Node) -> bool:
    """Whether a Pad puts a number around its input that ``dequantiser`` may not give out."""
    if node.attrs.get("mode", "constant") != "constant":
        return False
    return _pad_value(node) != 0 or _limits(dequantiser) != ()


def _quantiser(dequantiser: gs.Node) -> gs.Node | None:
    """The QuantizeLinear before ``dequantiser``; a Clip of the integers may stand between."""
    node = producer(dequantiser.inputs[0])
    if node is not None and is_standard(node, "Clip"):
        node = producer(node.inputs[0])
    return node if node is not None and is_standard(node, "QuantizeLinear") else None


def _limits(dequantiser: gs.Node) -> tuple[int, ...] | str:
    """The limits that the integers before ``dequantiser`` were clipped to; () if they were not."""
    node = producer(dequantiser.inputs[0])
    if node is None or not is_standard(node, "Clip"):
        return ()
    if not all(is_constant(t) for t in node.inputs[1:]):
        return str(node.name)
    return tuple(int(t.values) for t in node.inputs[1:])


def _per_tensor(node: gs.Node) -> bool:
    return all(is_constant(t) and t.values.size == 1 for t in node.inputs[1:] if not is_missing(t))


def _same_grid(a: gs.Node, b: gs.Node) -> bool:
    """Whether two (de)quantisers have the same constant scale, zero point and integer type."""
    if not (_per_tensor(a) and _per_tensor(b)):
        return False
    if float(np.ravel(a.inputs[1].values)[0]) != float(np.ravel(b.inputs[1].values)[0]):
        return False
    return _zero_point(a) == _zero_point(b)


def _zero_point(node: gs.Node) -> tuple[str, int]:
    if len(node.inputs) < 3 or is_missing(node.inputs[2]):
        integers = node.outputs[0] if node.op == "QuantizeLinear" else node.inputs[0]
        return str(np.dtype(integers.dtype or np.uint8)), 0
    values = node.inputs[2].values
    return values.dtype.name, int(np.ravel(values)[0])
