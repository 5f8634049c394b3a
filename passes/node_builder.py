"""Small helper of the passes that write several nodes in place of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert import graph as graphs


def release(tensors: Iterable[gs.Tensor]) -> None:
    """Let go of the values of constants that nothing reads any more.

    graphsurgeon's tensors refer to themselves: without this a replaced weight stays in memory
    until the garbage collector happens to run.
    """
    for tensor in tensors:
        if isinstance(tensor, gs.Constant) and not tensor.outputs:
            tensor.values = np.empty(0, np.float32)


class Builder:
    """Adds nodes to ``graph`` under fresh names; the caller sorts the graph when it is done."""

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self._names = graphs.Names(graph)

    def base(self, node: gs.Node) -> str:
        """The name from which those of the nodes that replace ``node`` are made."""
        return graphs.label(node)

    def is_output(self, tensor: gs.Tensor) -> bool:
        return graphs.is_output(self.graph, tensor)

    def constant(self, name: str, values: NDArray[np.generic]) -> gs.Constant:
        return graphs.constant(self._names.fresh(name), np.asarray(values))

    def variable(self, name: str, dtype: object = None) -> gs.Variable:
        return gs.Variable(self._names.fresh(name), dtype=dtype)

    def emit(
        self,
        op: str,
        inputs: Sequence[gs.Tensor],
        name: str,
        attrs: Mapping[str, object] | None = None,
        dtype: object = None,
    ) -> gs.Variable:
        """Add a node with one new output, which is returned and called ``name``."""
        output = self.variable(name, dtype)
        self.emit_into(op, inputs, output, attrs)
        return output

    def emit_into(
        self,
        op: str,
        inputs: Sequence[gs.Tensor],
        output: gs.Tensor,
        attrs: Mapping[str, object] | None = None,
    ) -> gs.Node:
        """Add a node that writes ``output``, a tensor that nothing writes any more."""
        name = self._names.fresh(f"{output.name}_{op}")
        node = graphs.node(op, list(inputs), [output], name, dict(attrs or {}))
        self.graph.nodes.append(node)
        return node

    def take_output(self, node: gs.Node) -> gs.Tensor:
        """Detach and return ``node``'s first output, for another node to write."""
        output = node.outputs[0]
        node.outputs.clear()
        return output

    def remove(self, node: gs.Node) -> bool:
        """Take ``node`` out of the graph; True."""
        node.inputs.clear()
        node.outputs.clear()
        self.graph.nodes.remove(node)
        return True
