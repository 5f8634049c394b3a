"""NIR nodes, made one by one: a `Value` becomes edges, and 1x1 convolutions where it has to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from .network import LINEAR, SCALING, Array, Node, Shape
from .values import Term, Value, added

CONVOLUTIONS = {2: "Conv1d", 3: "Conv2d"}  # by the number of axes of one sample


class Unfit(Exception):
    """Why something has no NIR counterpart, and what to do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


class Builder:
    """The nodes and edges of a NIR graph so far."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: list[tuple[str, str]] = []

    def add(self, node: Node, sources: Sequence[str] = (), name: str = "") -> Value:
        """``node``, with an edge from each of ``sources``; its output. Names become identifiers:
        '/' breaks reading, and readers make modules and functions of them."""
        wanted = re.sub(r"\W+", "_", name or node.onnx).strip("_") or node.kind.lower()
        wanted = f"n{wanted}" if wanted[0].isdigit() else wanted
        name, count = wanted, 1
        while name in self.nodes:
            count += 1
            name = f"{wanted}_{count}"
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return Value.of_node(name, node.shape)

    def channels(self, term: Term) -> int:
        """Channels of the node that ``term`` is made from."""
        return self.nodes[term.node].shape[0]

    def require_pixels(self, value: Value) -> None:
        """Raises Unfit where the pixels of ``value`` are not in the shape that its nodes have."""
        if any(self.nodes[term.node].shape[1:] != value.shape[1:] for term in value.terms):
            raise Unfit(
                "its input has the pixels of another tensor in another shape",
                "reshape in front of means and of the readout alone",
            )

    def linear(
        self,
        kind: str,
        value: Value,
        weight: Array,
        bias: Array,
        shape: Shape,
        onnx: str,
        values: Mapping[str, Array],
    ) -> Value:
        """``weight`` [O, I, ...] applied to ``value``, plus ``bias`` [O], of ``shape``.

        Terms that come with the same factors share a node; the first node has the bias.
        """
        self.require_pixels(value)
        groups: list[list[Term]] = []
        for term in value.terms:
            alike = [group for group in groups if group[0].same_mixing(term)]
            alike = [group for group in alike if self.channels(group[0]) == self.channels(term)]
            if alike:
                alike[0].append(term)
            else:
                groups.append([term])
        found = []
        for group in groups:
            channels = self.channels(group[0])
            mixed = np.tensordot(weight, group[0].matrix(channels), axes=([1], [0]))
            made = Node(
                kind,
                (channels, *value.shape[1:]),
                shape,
                {"weight": _float(np.moveaxis(mixed, -1, 1)), "bias": _float(bias), **values},
                onnx,
            )
            found.append(self.add(made, [term.node for term in group]))
            bias = np.zeros_like(bias)
        return added(found) if found else Value(shape, (), bias)

    def sources(self, value: Value, name: str) -> list[str]:
        """Nodes whose outputs add up to ``value``; ``name`` says what for."""
        if not value.terms:
            raise Unfit("its input is the same for all samples", "fold it into the network")
        self.require_pixels(value)
        biased = self._bearer(value) if value.biased else -1
        found = []
        for position, term in enumerate(value.terms):
            if term.is_plain(self.channels(term)) and position != biased:
                found.append(term.node)
                continue
            bias = value.bias if position == biased else np.zeros_like(value.bias)
            strides = (1,) * (len(value.shape) - 1)
            found.append(self._pointwise(term, bias, value.shape, strides, name))
        return found

    def _bearer(self, value: Value) -> int:
        """Which term gets the bias: one that needs a node of its own, else one that can take it."""
        plain = [term.is_plain(self.channels(term)) for term in value.terms]
        linear = [self.nodes[term.node].kind in LINEAR for term in value.terms]
        if not all(plain):
            return plain.index(False)
        return linear.index(True) if any(linear) else 0

    def materialised(self, value: Value, name: str) -> Value:
        """The same as outputs of nodes as they stand, without a bias."""
        return added([Value.of_node(node, value.shape) for node in self.sources(value, name)])

    def flat(self, value: Value, name: str) -> Value:
        """All of a sample along one axis."""
        pixels = prod(value.shape[1:])
        found = []
        for term in value.terms:
            source = self.nodes[term.node]
            made = Node("Flatten", source.shape, (prod(source.shape),), {}, name)
            node = self.add(made, [term.node], f"{term.node}_flatten").terms[0].node
            channel = np.repeat(term.index, pixels)
            pixel = np.tile(np.arange(pixels), len(term.index))
            index = np.where(channel >= 0, channel * pixels + pixel, -1)
            found.append(Term(node, index, np.repeat(term.factor, pixels)))
        bias = np.repeat(value.bias, pixels)
        return Value((value.shape[0] * pixels,), tuple(found), bias)

    def thinned(self, value: Value, shape: Shape, strides: tuple[int, ...], name: str) -> Value:
        """Every n-th pixel, from the first on: 1x1 convolutions with a stride."""
        self.require_pixels(value)
        nothing = np.zeros(len(value.bias))
        made = [self._pointwise(term, nothing, shape, strides, name) for term in value.terms]
        return added([Value.of_node(node, shape) for node in made]).raised(value.bias)

    def _pointwise(
        self, term: Term, bias: Array, shape: Shape, strides: tuple[int, ...], name: str
    ) -> str:
        """A node that gives ``term``, pixel by pixel: a 1x1 convolution, or an Affine."""
        source, axes = self.nodes[term.node], len(strides)
        weight = term.matrix(source.shape[0])
        values = {
            "weight": _float(weight.reshape(*weight.shape, *[1] * axes)),
            "bias": _float(bias),
        }
        kind = CONVOLUTIONS[len(shape)] if axes else "Affine"
        if axes:
            values |= {"stride": np.asarray(strides), "padding": np.zeros(axes, np.int64)}
        made = Node(kind, source.shape, shape, values, f"{SCALING}{term.node} for {name}")
        return self.add(made, [term.node], f"{term.node}_scaled").terms[0].node


def _float(values: Array) -> Array:
    return np.ascontiguousarray(values, np.float32)
