"""NIR nodes, made one by one: a `Value` becomes edges, and 1x1 convolutions where it has to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from .geometry import Geometry
from .network import LINEAR, SCALING, Array, Node, Shape
from .values import Term, Value, added

CONVOLUTIONS = {2: "Conv1d", 3: "Conv2d"}  # by the number of axes of one sample


class Unfit(Exception):
    """Why something has no NIR counterpart, and what to do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


class Builder:
    """The nodes and edges of a NIR graph so far, which is to run for ``timesteps`` steps."""

    def __init__(self, timesteps: int) -> None:
        self.timesteps = timesteps
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

        Nodes whose outputs come in the same way share the result; the first one has the bias.
        """
        self.require_pixels(value)
        groups: list[tuple[Array, list[str]]] = []
        for name, mixing in self._mixed(value):
            alike = [names for other, names in groups if np.array_equal(other, mixing)]
            if alike:
                alike[0].append(name)
            else:
                groups.append((mixing, [name]))
        found = []
        for mixing, names in groups:
            mixed = np.moveaxis(np.tensordot(weight, mixing, axes=([1], [0])), -1, 1)
            parameters = {"weight": _float(mixed), "bias": _float(bias), **values}
            given = (mixing.shape[1], *value.shape[1:])
            found.append(self.add(Node(kind, given, shape, parameters, onnx), names))
            bias = np.zeros_like(bias)
        return added(found) if found else Value(shape, (), bias)

    def convolved(self, value: Value, by: Geometry, bias: Array, onnx: str) -> Value:
        """A convolution of ``value``, plus ``bias`` [O]."""
        kernel = by.weight.shape[2:]
        sides = [
            (n + 2 * p - k) // s + 1
            for n, p, k, s in zip(value.shape[1:], by.padding, kernel, by.stride, strict=True)
        ]
        values = {"stride": np.asarray(by.stride), "padding": np.asarray(by.padding)}
        shape = (len(by.weight), *sides)
        kind = CONVOLUTIONS[len(value.shape)]
        return self.linear(kind, value, by.weight, bias, shape, onnx, values)

    def _mixed(self, value: Value) -> list[tuple[str, Array]]:
        """By node, the matrix [C, channels of the node] with which it makes up ``value``."""
        found: dict[str, Array] = {}
        for term in value.terms:
            found[term.node] = found.get(term.node, 0) + term.matrix(self.channels(term))
        return list(found.items())

    def sources(self, value: Value, name: str) -> list[str]:
        """Nodes whose outputs add up to ``value``; ``name`` says what for."""
        if not value.terms:
            raise Unfit("its input is the same for all samples", "fold it into the network")
        self.require_pixels(value)
        mixed = self._mixed(value)
        plain = [_is_identity(matrix) for _, matrix in mixed]
        biased = -1
        if value.biased:  # a node that is needed in any case, else one that can take it
            linear = [self.nodes[node].kind in LINEAR for node, _ in mixed]
            better = [not p for p in plain] if not all(plain) else linear
            biased = better.index(True) if any(better) else 0
        found = []
        for position, (node, matrix) in enumerate(mixed):
            if plain[position] and position != biased:
                found.append(node)
                continue
            bias = value.bias if position == biased else np.zeros_like(value.bias)
            strides = (1,) * (len(value.shape) - 1)
            found.append(self._pointwise(node, matrix, bias, value.shape, strides, name))
        return found

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
        made = [
            self._pointwise(node, matrix, nothing, shape, strides, name)
            for node, matrix in self._mixed(value)
        ]
        return added([Value.of_node(node, shape) for node in made]).raised(value.bias)

    def _pointwise(
        self,
        node: str,
        matrix: Array,
        bias: Array,
        shape: Shape,
        strides: tuple[int, ...],
        name: str,
    ) -> str:
        """A node that mixes the channels of ``node``: a 1x1 convolution, or an Affine."""
        source, axes = self.nodes[node], len(strides)
        values = {
            "weight": _float(matrix.reshape(*matrix.shape, *[1] * axes)),
            "bias": _float(bias),
        }
        kind = CONVOLUTIONS[len(shape)] if axes else "Affine"
        if axes:
            values |= {"stride": np.asarray(strides), "padding": np.zeros(axes, np.int64)}
        made = Node(kind, source.shape, shape, values, f"{SCALING}{node} for {name}")
        return self.add(made, [node], f"{node}_scaled").terms[0].node


def _is_identity(matrix: Array) -> bool:
    rows, columns = matrix.shape
    return rows == columns and np.array_equal(matrix, np.eye(rows))


def _float(values: Array) -> Array:
    return np.ascontiguousarray(values, np.float32)
