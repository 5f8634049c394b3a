"""Every tensor between neurons as counts, or as a weighted sum of counts.

`read` walks the spiking part of an `Snn` and says of each of its tensors which of the two it is, in
real numbers (float64); `quantise_weights` makes integers of them. Cases:

* the output of a neuron: counts, each worth the amplitude;
* Concat, Slice, Split, Gather, Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Pad with zeros,
  DepthToSpace, SpaceToDepth, Identity of counts: counts again, moved; each keeps what it is worth;
* MaxPool of counts that are worth the same, or of a sum in front of a neuron;
* AveragePool, GlobalAveragePool and ReduceMean over the image of counts: their sums, worth
  ``1 / k^2`` as much; where a uint8 does not hold them, a sum of weights 1 / k^2;
* Mul, Div, Neg by constants per channel: worth more or less, of a sum as well;
* Conv, ConvTranspose, Gemm, MatMul of counts with constant weights: a sum; Add and Sub of sums and
  counts: a sum;
* these, averages, Concat and a flattened pixel, of sums with no neurons in between: a sum again, of
  other weights (`compose_terms`);
* Add of a constant per channel: an offset, part of the next layer's bias; behind a padding of zeros
  it is a map, not a bias;
* an Encode'd tensor: an analog current.

Anything else is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert.graph import is_constant, is_ours, is_standard, label
from na_convert.integer_moves import Move
from na_convert.integer_moves import move as apply
from na_convert.results import Refusal
from na_convert.shapes import of_one_step
from na_convert.snn import Snn, neuron_nodes, parameters

from .count_moves import (
    read_blocks,
    read_concat,
    read_gather,
    read_identity,
    read_pad,
    read_reshape,
    read_slice,
    read_split,
    read_transpose,
)
from .count_values import (
    FOLDED,
    Counts,
    NoIntegerForm,
    Sum,
    Value,
    as_sum,
    by_channel,
    is_per_channel,
    narrowed,
    plus,
    scaled,
    whole,
)
from .count_weights import read_average, read_conv, read_dense, read_transposed

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """What `read` found.

    Attributes:
        order: moves of counts, and names of neuron nodes, in the order of the graph.
        currents: of each neuron, by node name.
        values: by tensor name.
        refused: nodes that integers cannot do; the others are still read.
    """

    order: tuple[Move | str, ...]
    currents: dict[str, Sum]
    values: dict[str, Value]
    refused: tuple[Refusal, ...]


class Reader:
    """Reads a network node by node.

    Attributes:
        order, currents, values, refused: as of `Reading`, of the nodes visited.
        most: by the name of counts, their largest number.
    """

    def __init__(self, network: Snn, timesteps: int) -> None:
        self.network = network
        self.shapes = {neuron.name: neuron.shape for neuron in network.neurons}
        self.sizes = of_one_step(network)
        self.neurons = {id(node) for node in neuron_nodes(network.graph)}
        self.timesteps = timesteps
        self.order: list[Move | str] = []
        self.currents: dict[str, Sum] = {}
        self.values: dict[str, Value] = {}
        self.most: dict[str, int] = {}
        self.refused: list[Refusal] = []

    def reading(self) -> Reading:
        return Reading(tuple(self.order), self.currents, self.values, tuple(self.refused))

    def walk(self) -> Iterator[Move | tuple[str, Sum]]:
        """The moves, and the names of neuron nodes with their currents, in the order of the graph.

        Sums are let go where nothing reads them any more: all of them, in float64, are twice the
        network.
        """
        nodes = self.network.graph.nodes
        last = {t.name: k for k, node in enumerate(nodes) for t in (*node.outputs, *node.inputs)}
        for k, node in enumerate(nodes):
            done = len(self.order)
            self.visit(node)
            for item in self.order[done:]:
                yield item if isinstance(item, Move) else (item, self.currents.pop(item))
            for tensor in (*node.inputs, *node.outputs):
                if last[tensor.name] == k and isinstance(self.values.get(tensor.name), Sum):
                    del self.values[tensor.name]

    def visit(self, node: gs.Node) -> None:
        if is_ours(node, "Encode"):
            encoded = Sum(analogs=((node.inputs[0].name, np.ones(())),))
            self._keep(node.outputs[0].name, encoded)
        elif id(node) in self.neurons:
            self._neuron(node)
        elif not is_ours(node, "Decode") and any(t.name in self.values for t in node.inputs):
            if is_standard(node, "Shape", "Size"):
                return
            try:
                self._operator(node)
            except NoIntegerForm as why:
                self.refused.append(Refusal(label(node), node.op, why.reason, why.remedy))

    def _neuron(self, node: gs.Node) -> None:
        current = self.values.get(node.inputs[0].name)
        if current is not None:
            self.currents[node.name] = as_sum(current)
            self.order.append(node.name)
        amplitude = np.asarray(parameters(node).amplitude, np.float64)
        name = node.outputs[0].name
        nothing = np.zeros(())
        counts = Counts(name, self.shapes[node.name], amplitude, nothing, self.timesteps)
        self._keep(name, counts)

    def _operator(self, node: gs.Node) -> None:
        rule = _MAX_POOL if is_ours(node, "MaxPoolCounts") else _RULES.get(node.op)
        if rule is None or not (is_ours(node) or is_standard(node)):
            raise NoIntegerForm(f"{node.op} of counts has no integer form here")
        for tensor, value in zip(node.outputs, rule(self, node), strict=False):
            self._keep(tensor.name, value)

    def _keep(self, name: str, value: Value) -> None:
        self.values[name] = value
        if isinstance(value, Counts):
            self.most[value.name] = value.most

    # --- what the rules need ----------------------------------------------------------------------

    def value(self, tensor: gs.Tensor) -> Value:
        if tensor.name not in self.values:
            raise NoIntegerForm(f"its input {tensor.name!r} was refused")
        return self.values[tensor.name]

    def rank(self, node: gs.Node) -> int:
        """Number of axes of the node's output, the batch included."""
        size = self.sizes.get(node.outputs[0].name)
        if size is None:
            raise NoIntegerForm("its number of axes is not known", "export with static image sizes")
        return len(size) + 1

    def shape(self, tensor: gs.Tensor) -> tuple[int, ...] | None:
        """Of one sample; None where it is not known."""
        value = self.values.get(tensor.name)
        if isinstance(value, Counts):
            return value.shape
        size = self.sizes.get(tensor.name)
        return None if size is None or None in size else tuple(n for n in size if n is not None)

    def counts(self, tensor: gs.Tensor) -> Counts:
        value = self.value(tensor)
        if isinstance(value, Sum):
            raise NoIntegerForm(
                "works on a sum of currents, with no neurons in between",
                f"put a quantised activation before it, or {FOLDED}",
            )
        return value

    def moved(self, output: str, move: Move, sources: Sequence[Counts]) -> Counts:
        """Counts after ``move``; what they are worth moves with them."""
        self.order.append(move)
        scale = apply(move, [whole(c.scale, c.shape) for c in sources])[0]
        offset = apply(move, [whole(c.offset, c.shape) for c in sources])[0]
        shape = scale.shape
        most = max(c.most for c in sources)
        return Counts(output, shape, narrowed(scale), narrowed(offset), most)


# --- pooling --------------------------------------------------------------------------------------


def _max_pool(reader: Reader, node: gs.Node) -> list[Value]:
    attributes = {k: v for k, v in node.attrs.items() if k != "unit"}
    name, value = node.outputs[0].name, reader.value(node.inputs[0])
    if isinstance(value, Sum):
        if value.identities or value.analogs or value.pool or len(value.terms) != 1:
            raise NoIntegerForm("takes the maximum of a sum of several currents")
        if not is_per_channel(value.bias, reader.rank(node) - 1):
            raise NoIntegerForm("takes the maximum of currents with a number per pixel in them")
        return [replace(value, pool=attributes)]
    if by_channel(value.scale, value.shape) is None or np.any(value.scale <= 0):
        raise NoIntegerForm(
            "takes the maximum of spikes that are not worth the same, or less than nothing"
        )
    move = Move(name, "MaxPool", (value.name,), attributes)
    reader.order.append(move)
    shape = apply(move, [np.zeros((1, *value.shape), np.uint8)]).shape[1:]
    return [Counts(name, shape, value.scale, value.offset, value.most)]


# --- arithmetic -----------------------------------------------------------------------------------


def _add(reader: Reader, node: gs.Node) -> list[Value]:
    signs = [1.0, -1.0] if node.op == "Sub" else [1.0] * len(node.inputs)
    known = [t for t in node.inputs if not is_constant(t)]
    values = [
        scaled(reader.value(t), np.asarray(sign))
        for t, sign in zip(node.inputs, signs, strict=True)
        if t in known
    ]
    constant = sum(
        (
            sign * _of_one_sample(t, reader.rank(node))
            for t, sign in zip(node.inputs, signs, strict=True)
            if is_constant(t)
        ),
        start=np.zeros(()),
    )
    if len(values) == 1 and isinstance(values[0], Counts):
        _require_size(reader, node, values[0])
        return [replace(values[0], offset=values[0].offset + constant)]
    total = as_sum(values[0])
    for value in values[1:]:
        total = plus(total, as_sum(value))
    made = reader.shape(node.outputs[0])
    if made is not None and any(len(term.weight) != made[0] for term in total.terms):
        raise NoIntegerForm("adds currents of unlike numbers of channels")
    if total.pool is not None and not is_per_channel(constant, reader.rank(node) - 1):
        raise NoIntegerForm("adds a number per pixel to the maximum of a sum of currents")
    return [replace(total, bias=total.bias + constant)]


def _mul(reader: Reader, node: gs.Node) -> list[Value]:
    if node.op == "Neg":
        return [scaled(reader.value(node.inputs[0]), np.asarray(-1.0))]
    data, other = node.inputs
    if is_constant(data) and node.op == "Mul":
        data, other = other, data
    if not is_constant(other):
        raise NoIntegerForm("multiplies counts by something that is computed at run time")
    value = reader.value(data)
    if isinstance(value, Counts):
        _require_size(reader, node, value)
    factor = _of_one_sample(other, reader.rank(node))
    return [scaled(value, 1 / factor if node.op == "Div" else factor)]


def _require_size(reader: Reader, node: gs.Node, counts: Counts) -> None:
    if reader.shape(node.outputs[0]) not in (None, counts.shape):
        raise NoIntegerForm("makes counts larger by a constant of more rows, columns or channels")


def _of_one_sample(tensor: gs.Tensor, rank: int) -> Array:
    """A constant that broadcasts against [N, ...], of ``rank`` with N, as one against a sample."""
    values = np.asarray(tensor.values, np.float64)
    if values.ndim < rank:
        return values
    if values.ndim > rank or values.shape[0] != 1:
        raise NoIntegerForm("its constant differs between samples")
    return np.asarray(values[0])


Rule: TypeAlias = Callable[[Reader, gs.Node], Sequence[Any]]

_MAX_POOL: Rule = _max_pool
_RULES: dict[str, Rule] = {
    "Add": _add,
    "AveragePool": read_average,
    "Concat": read_concat,
    "Conv": read_conv,
    "ConvTranspose": read_transposed,
    "DepthToSpace": read_blocks,
    "Div": _mul,
    "Flatten": read_reshape,
    "Gather": read_gather,
    "Gemm": read_dense,
    "GlobalAveragePool": read_average,
    "Identity": read_identity,
    "MatMul": read_dense,
    "Mul": _mul,
    "Neg": _mul,
    "Pad": read_pad,
    "ReduceMean": read_average,
    "Reshape": read_reshape,
    "Slice": read_slice,
    "SpaceToDepth": read_blocks,
    "Split": read_split,
    "Squeeze": read_reshape,
    "Sub": _add,
    "Sum": _add,
    "Transpose": read_transpose,
    "Unsqueeze": read_reshape,
}
