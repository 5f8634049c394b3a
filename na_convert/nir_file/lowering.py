"""From an SNN with thresholds 1 and spikes of 1 to a graph of NIR nodes.

Each tensor is followed as a `Value`: NIR nodes with scaled, reordered channels, added up.

=====================  =============================================================================
IF                     an IF node; each term of its current an edge into it (residual: two edges). A
                       term that is not a node's output as it stands goes through a 1x1 convolution
Conv, Gemm, MatMul     Conv2d, Conv1d, Affine; scales and order of what comes in go into the weights
AveragePool, means     SumPool2d, 1/k^2 goes into the weights behind; along one axis a Conv1d
Add, Sub, Mul, Div     scales and biases per channel
MaxPoolCounts          two layers of IF neurons that fire once (`maxima`), for up to T steps
Concat                 channels side by side; what follows gets one node per part
Reshape and the like   Flatten, an order of channels, or a stride (`movement`)
Encode, Decode         nothing: the input is the same at every step, the output is a mean over steps
=====================  =============================================================================

Everything else is refused by the name of its node.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_graphsurgeon as gs

from .. import graph as g
from ..errors import NotConvertible
from ..regions import data_inputs
from ..results import Refusal
from ..snn import Snn, neuron_nodes
from . import movement
from .boundaries import MOVED, Boundaries, boundaries
from .builder import Builder, Unfit
from .network import Array, Network, Node, tidied
from .operators import OPERATORS, why_not
from .values import Value


class _Missing(Exception):
    """A refused node comes before."""


def lower(snn: Snn, feeds: Mapping[str, Array]) -> Network:
    """The NIR graph of ``snn``; all thresholds and amplitudes have to be 1.

    ``feeds`` are two samples of the network's inputs, by name: sizes may be computed from them.
    Raises NotConvertible with every node that NIR cannot hold in ``refused``.
    """
    around = boundaries(snn.graph, feeds)
    walk = _Walk(snn.graph, feeds, around, snn.timesteps)
    for node in around.nodes:
        walk.take(node)
    walk.finish()
    if walk.refused:
        first = walk.refused[0]
        more = f" (and {len(walk.refused) - 1} more)" if len(walk.refused) > 1 else ""
        raise NotConvertible(
            f"{first.node!r} ({first.op}) cannot be written to NIR{more}: {first.reason}",
            node=first.node,
            remedy=first.remedy,
            refused=tuple(walk.refused),
        )
    built = walk.builder
    names = {node.name for node in neuron_nodes(snn.graph)}
    made = Network(
        built.nodes,
        tuple(built.edges),
        around.input,
        walk.outputs,
        {node.onnx: name for name, node in built.nodes.items() if node.onnx in names},
        around.statements,
    )
    return tidied(made)


class _Walk:
    """What each tensor is in terms of the NIR nodes made so far."""

    def __init__(
        self, graph: gs.Graph, feeds: Mapping[str, Array], around: Boundaries, timesteps: int
    ) -> None:
        self._graph, self._feeds, self._around = graph, feeds, around
        self.builder = Builder(timesteps)
        self.outputs: dict[str, str] = {}
        self.refused: list[Refusal] = []
        entry = Node("Input", around.shape, around.shape, onnx=around.input)
        self._values: dict[str, Value | None] = {around.input: self.builder.add(entry, (), "input")}
        self._origins: dict[str, str] = {}  # of a moved tensor: what it was moved from

    def take(self, node: gs.Node) -> None:
        """Follow ``node``; if it cannot be, it is noted in ``refused``."""
        if g.is_standard(node, *MOVED):
            before = data_inputs(node)[0].name
            for tensor in node.outputs:
                self._origins[tensor.name] = self._origins.get(before, before)
            return
        output = node.outputs[0].name
        try:
            self._values[output] = self._followed(node)
        except _Missing:
            self._values[output] = None
        except Unfit as found:
            self.refused.append(Refusal(g.label(node), node.op, found.reason, found.remedy))
            self._values[output] = None

    def finish(self) -> None:
        """The Output nodes."""
        wanted = self._around.outputs
        for index, name in enumerate(wanted):
            try:
                value = self._value(name)
                made = Node("Output", value.shape, value.shape, onnx=name)
                sources = self.builder.sources(value, name)
                called = "output" if len(wanted) == 1 else f"output_{index}"
                node = self.builder.add(made, sources, called).terms[0].node
            except _Missing:
                continue
            except Unfit as found:
                self.refused.append(Refusal(name, "output", found.reason, found.remedy))
            else:
                self.outputs[node] = name

    def _followed(self, node: gs.Node) -> Value:
        if g.is_ours(node, "Encode", "Decode"):
            return self._value(node.inputs[0].name)
        if node.op not in OPERATORS:
            raise why_not(node)
        return OPERATORS[node.op](node, lambda tensor: self._value(tensor.name), self.builder)

    def _value(self, tensor: str) -> Value:
        """What ``tensor`` is; raises _Missing where a refused node comes before it."""
        if tensor not in self._values and tensor in self._origins:
            origin = self._origins[tensor]
            self._values[tensor] = self._moved(self._value(origin), origin, tensor)
        value = self._values.get(tensor)
        if value is None:
            raise _Missing
        return value

    def _moved(self, value: Value, origin: str, tensor: str) -> Value:
        """``value`` of the tensor ``origin``, as ``tensor`` has it."""
        index = movement.positions(self._graph, self._feeds, origin, value.shape, tensor)
        if index is None:
            raise Unfit(
                f"{tensor!r} is not a rearrangement of each sample of {origin!r}",
                "move values about with Reshape, Flatten and the like alone",
            )
        if index.ndim == 1 < len(value.shape):
            return self.builder.flat(value, tensor).selected(index, index.shape)
        channels = movement.channel_selection(index, value.shape)
        if channels is not None:
            return value.selected(channels, index.shape)
        strided = movement.strided_selection(index, value.shape)
        if strided is None:
            raise Unfit(
                f"{tensor!r} has the pixels of {origin!r} in another order",
                "NIR moves no pixels: flatten at once, or take every n-th pixel from the first on",
            )
        channels, strides = strided
        kept = value.selected(channels, (len(channels), *value.shape[1:]))
        return self.builder.thinned(kept, index.shape, strides, tensor)
