"""Constant subgraphs become constants: evaluated once here instead of in every run.

Cases, each with its test:

* ``Constant`` nodes in every spelling (value, value_float, value_ints, ...)
* ``Identity`` of an initialiser: its consumers read the initialiser itself
* constant arithmetic, ``Cast``, ``CastLike``, ``Reshape``, ``Expand`` of constants
* ``CastLike`` of a constant towards a computed tensor of known type
* weight quantisers: LSQ subgraphs, DequantizeLinear(QuantizeLinear(weight)), QONNX quantisers
* ``If`` with a constant condition, nested ones too: the branch that is taken is inlined
* left alone: random nodes, nodes that feed a graph output directly, results that would be large
  (more than a million elements and four times their inputs)
* refused, before anything is computed: a result of more than 2^24 elements and four times its
  inputs, or results of more than `size_guard` lets a file make, all together
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from na_convert.errors import ModelError
from na_convert.graph import Names, is_constant, is_missing, is_output, is_standard, label, rename
from na_convert.results import Skip
from na_convert.size_guard import MOST_CONSTANT, most_made

from .node_builder import release
from .result_size import elements_of_result, stored_elements
from .single_node import Array, evaluate_node
from .strip_noise import RANDOM_OPS

LARGE = 1 << 20  # elements
_GROWTH = 4


class Allowance:
    """How many elements may still be made out of constants, however often a graph is folded."""

    def __init__(self, graph: gs.Graph) -> None:
        self.most = self.left = most_made(stored_elements(graph))

    def take(self, node: gs.Node, elements: int) -> None:
        """Raise ModelError where ``node`` would make more than is left."""
        self.left -= elements
        if self.left < 0:
            raise _too_much(node, self.most - self.left, self.most, " with those before it")


def fold_constants(
    graph: gs.Graph, allowance: Allowance | None = None
) -> tuple[int, tuple[Skip, ...]]:
    """Fold what is constant; returns how many nodes went, and what could not be evaluated.

    ``allowance`` is shared by the calls on one graph. Raises ModelError where constants would be
    computed that are too large.
    """
    allowance = allowance or Allowance(graph)
    changed, skipped = 0, []
    graph.toposort()
    names, waiting = Names(graph), deque(graph.nodes)
    while waiting:
        node = waiting.popleft()
        if is_standard(node, "If") and is_constant(node.inputs[0]):
            waiting.extendleft(reversed(_inline_branch(graph, node, names)))
            changed += 1
            continue
        if is_standard(node, "CastLike"):
            _as_cast(node)
        if not _foldable(graph, node):
            continue
        if is_standard(node, "Identity"):
            rename(graph, node.outputs[0], node.inputs[0])
            node.outputs.clear()
            changed += 1
            continue
        reason = _fold(node, int(graph.opset), allowance)
        if reason:
            skipped.append(Skip(label(node), reason))
        else:
            changed += 1
    graph.cleanup().toposort()
    return changed, tuple(skipped)


def to_constants(node: gs.Node, values: Sequence[Array]) -> None:
    """Turn the outputs of ``node`` into constants with the given values; the node is left bare."""
    outputs = list(node.outputs)
    node.outputs.clear()
    for tensor, value in zip(outputs, values, strict=False):
        tensor.to_constant(np.asarray(value))


def _foldable(graph: gs.Graph, node: gs.Node) -> bool:
    if not node.outputs or node.op in RANDOM_OPS:
        return False
    if any(isinstance(value, gs.Graph) for value in node.attrs.values()):
        return False
    if any(is_output(graph, tensor) for tensor in node.outputs):
        return False
    return all(is_constant(t) or is_missing(t) for t in node.inputs)


def _fold(node: gs.Node, opset: int, allowance: Allowance) -> str | None:
    """Fold ``node``; returns the reason where it must stay."""
    if node.op == "Constant" and isinstance(node.attrs.get("value"), gs.Constant):
        to_constants(node, [node.attrs["value"].values])
        return None
    values = [None if is_missing(t) else t.values for t in node.inputs]
    elements = elements_of_result(node, values, opset)
    given = sum(
        t.values.size for t in {id(t): t for t in node.inputs if not is_missing(t)}.values()
    )
    if elements > max(MOST_CONSTANT, _GROWTH * given):
        raise _too_much(node, elements, MOST_CONSTANT)
    if elements > max(LARGE, _GROWTH * given):
        return f"{node.op} would make a constant of more than {LARGE} elements"
    allowance.take(node, elements)
    try:
        results = evaluate_node(node, values, opset)
    except ModelError as error:
        return str(error)
    node.outputs = [t for t in node.outputs if t.name]
    to_constants(node, results)
    inputs = list(node.inputs)
    node.inputs.clear()
    release(inputs)
    return None


def _too_much(node: gs.Node, elements: int, most: int, together: str = "") -> ModelError:
    return ModelError(
        f"{label(node)!r} ({node.op}) would make a constant of {elements:.3g} elements{together}, "
        f"more than {most:.3g}",
        node=label(node),
        remedy="store it in the file, or look at what makes it",
    )


def _as_cast(node: gs.Node) -> None:
    """CastLike needs only the type of its second input, which is often known."""
    like = node.inputs[1].dtype
    if like is None:
        return
    to = like if isinstance(like, int) else onnx.helper.np_dtype_to_tensor_dtype(np.dtype(like))
    node.op, node.attrs = "Cast", {"to": int(to)}
    node.inputs = [node.inputs[0]]


def _rename_weights(graph: gs.Graph, branch: gs.Graph, names: Names) -> None:
    """Branches beside each other may call different weights alike; one graph may not."""
    known = {t.name: t for n in graph.nodes for t in (*n.inputs, *n.outputs)}
    known |= {t.name: t for t in graph.inputs}
    inside = [t for n in branch.nodes for t in n.inputs]
    for tensor in (t for t in (*inside, *branch.outputs) if is_constant(t)):
        if known.get(tensor.name) is not tensor:
            tensor.name = names.fresh(tensor.name)
            known[tensor.name] = tensor


def _inline_branch(graph: gs.Graph, node: gs.Node, names: Names) -> list[gs.Node]:
    """Replace an ``If`` whose condition is constant by the branch taken; returns its nodes."""
    taken = "then_branch" if bool(node.inputs[0].values.ravel()[0]) else "else_branch"
    branch = node.attrs[taken]
    inlined = list(branch.nodes)
    outer = list(node.outputs)
    node.outputs.clear()
    node.attrs.clear()  # its nodes are the graph's now
    _rename_weights(graph, branch, names)
    for inner in inlined:
        inner.name = names.fresh(inner.name or inner.op)
        for tensor in inner.outputs:
            if tensor.name:
                tensor.name = names.fresh(tensor.name)
    for old, new in zip(outer, branch.outputs, strict=True):
        if new.inputs and any(new.inputs[0] is inner for inner in inlined):
            producer = new.inputs[0]
            for consumer in list(new.outputs):
                consumer.inputs = [old if t is new else t for t in consumer.inputs]
            producer.outputs = [old if t is new else t for t in producer.outputs]
        elif is_output(graph, old):
            graph.nodes.append(
                gs.Node(op="Identity", name=names.fresh("Identity"), inputs=[new], outputs=[old])
            )
        else:
            rename(graph, old, new)
    graph.nodes.extend(inlined)
    return inlined
