"""An integer network seen as the description of an ordinary SNN, in real units.

The view has the same layers, names, thresholds and readout; a spike is worth 1 in it, the weights
are the integers times what one of them is worth. It serves what asks for an `Snn`: names, shapes,
parameters, stepping in numpy. Its counts are the integer network's: float32 would have to be off by
half a unit of the weights to make another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from . import graph as g
from .integer import IntegerNetwork, Layer
from .integer_moves import Move
from .neurons import INITIAL_MEMBRANE
from .snn import Snn

Array: TypeAlias = NDArray[Any]


def view(network: IntegerNetwork) -> Snn:
    """The `Snn` that ``network`` is, weights and thresholds as they became."""
    graph = network.snn.graph.copy()
    leave_time(graph)
    _View(graph, network).build()
    graph.cleanup().toposort()
    return replace(network.snn, graph=graph, timesteps=network.timesteps)


def leave_time(graph: gs.Graph) -> None:
    """What is left of the float network lies before the neurons or behind them, on means: Encode
    and Decode there are identities, and a max-pool is one of means."""
    for node in graph.nodes:
        if g.is_ours(node, "Encode", "Decode"):
            node.op, node.domain, node.attrs = "Identity", None, {}
        elif g.is_ours(node, "MaxPoolCounts"):
            pool = {name: value for name, value in node.attrs.items() if name != "unit"}
            node.op, node.domain, node.attrs = "MaxPool", None, pool


def worth(network: IntegerNetwork, layer: Layer) -> Array:
    """What one unit of the layer's weights is worth, broadcast against a sample."""
    neuron = next(n for n in network.neurons if n.name == layer.name)
    theta = np.asarray(neuron.threshold, np.float64)
    if theta.ndim:
        theta = theta.reshape(-1, *[1] * (len(layer.shape) - 1))
    return np.asarray(theta / layer.threshold)


class _View:
    def __init__(self, graph: gs.Graph, network: IntegerNetwork) -> None:
        self.graph, self.network = graph, network
        self.tensors = g.tensors_by_name(graph)
        self.names = g.Names(graph)
        self.made: dict[str, gs.Tensor] = {}

    def build(self) -> None:
        self._clear()
        for operation in self.network.operations:
            if isinstance(operation, Layer):
                self.made[operation.output] = self._layer(operation)
            else:
                self.made[operation.output] = self._move(operation)
        for mean in self.network.means:
            output = self.tensors[mean.output]
            output.inputs.clear()
            counts = self.made[mean.source]
            decoded = self._emit("Decode", [counts], f"Decode_{mean.output}", domain="na_convert")
            scaled = self._emit("Mul", [decoded, self._constant(mean.output, mean.scale)],
                                f"Scale_{mean.output}")  # fmt: skip
            offset = self._constant(mean.output, mean.offset)
            name = self.names.fresh(f"Mean_{mean.output}")
            self.graph.nodes.append(g.node("Add", [scaled, offset], [output], name))

    def _clear(self) -> None:
        """Neurons and their outputs keep their names: what had them before lets go of them."""
        kept = {m.output for m in self.network.means}
        for operation in self.network.operations:
            taken = [operation.output] if operation.output not in kept else []
            for tensor in (self.tensors.get(name) for name in taken):
                if tensor is not None:
                    tensor.inputs.clear()
        nodes = {node.name: node for node in self.graph.nodes}
        for layer in self.network.layers:
            if layer.name in nodes:
                nodes[layer.name].name = self.names.fresh(f"{layer.name}_float")

    def _layer(self, layer: Layer) -> gs.Tensor:
        unit = worth(self.network, layer)
        parts = [self._product(layer, i, unit) for i in range(len(layer.products))]
        for shortcut in layer.shortcuts:
            per_count = unit if layer.wide else unit * layer.threshold / layer.resolution
            factor = self._constant(f"{layer.name}_shortcut", shortcut.weight * per_count)
            parts.append(self._emit("Mul", [self.made[shortcut.source], factor],
                                    f"{layer.name}_shortcut"))  # fmt: skip
        for each in layer.analogs:
            units = self.tensors[each.tensor]
            for op, values in (("Mul", each.gain), ("Round", None), ("Max", each.low),
                               ("Min", each.high)):  # fmt: skip
                extra = [] if values is None else [self._constant(f"{layer.name}_{op}", values)]
                units = self._emit(op, [units, *extra], f"{layer.name}_units_{op}")
            encoded = self._emit("Encode", [units], f"Encode_{each.tensor}", domain="na_convert")
            gain = self._constant(f"{layer.name}_unit", unit)
            parts.append(self._emit("Mul", [encoded, gain], f"{layer.name}_analog"))
        current = parts[0]
        for part in parts[1:]:
            current = self._emit("Add", [current, part], f"{layer.name}_sum")
        if layer.wide and np.any(layer.bias):
            bias = self._constant(f"{layer.name}_bias", layer.bias * unit)
            current = self._emit("Add", [current, bias], f"{layer.name}_biased")
        if layer.pool is not None:
            attributes = {**layer.pool, "unit": 1.0}
            current = self._emit("MaxPoolCounts", [current], f"{layer.name}_pool", attributes,
                                 "na_convert")  # fmt: skip
        return self._fire(layer, unit, current)

    def _fire(self, layer: Layer, unit: Array, current: gs.Tensor) -> gs.Tensor:
        spikes = gs.Variable(self._own_name(layer.output), np.dtype(np.float32))
        inputs = [
            current,
            self._constant(f"{layer.name}_threshold", unit * layer.threshold),
            self._constant(f"{layer.name}_amplitude", np.ones(())),
        ]
        attributes: dict[str, object] = {"initial": float(INITIAL_MEMBRANE)}
        node = g.node("IFPerChannel", inputs, [spikes], layer.name, attributes, "na_convert")
        self.graph.nodes.append(node)
        return spikes

    def _product(self, layer: Layer, index: int, unit: Array) -> gs.Tensor:
        product = layer.products[index]
        per_output = np.broadcast_to(unit.reshape(-1), len(product.weight))
        factor = per_output.reshape(-1, *[1] * (product.weight.ndim - 1))
        weight = g.Computed(
            self.names.fresh(f"{layer.name}_weight"),
            product.weight.shape,
            np.float32,
            lambda: (product.weight * factor).astype(np.float32),
        )
        inputs = [self.made[product.source], weight]
        if not layer.wide:
            channels = np.broadcast_to(layer.bias, layer.threshold.shape).reshape(-1)
            inputs.append(self._constant(f"{layer.name}_bias", channels * per_output))
        if product.window is None:
            return self._emit("Gemm", inputs, f"{layer.name}_Gemm", {"transB": 1})
        attributes = product.window.attributes()
        return self._emit("Conv", inputs, f"{layer.name}_Conv", attributes)

    def _move(self, move: Move) -> gs.Tensor:
        sources = [self.made[s] for s in move.sources]
        attributes = dict(move.attributes)
        name = self._own_name(move.output)
        if move.op == "MaxPool":
            attributes["unit"] = 1.0
            return self._emit("MaxPoolCounts", sources, name, attributes, "na_convert")
        if move.op == "SumPool":
            kernel = attributes.pop("kernel_shape")
            attributes["group"] = channels = self.channels(move.sources[0])
            assert isinstance(kernel, list)
            ones = self._constant(f"{name}_ones", np.ones((channels, 1, *kernel)))
            return self._emit("Conv", [*sources, ones], name, attributes)
        constants = [
            g.constant(self.names.fresh(f"{name}_{i}"), c) for i, c in enumerate(move.constants)
        ]
        return self._emit(move.op, [*sources, *constants], name, attributes)

    def channels(self, source: str) -> int:
        return channels_of(self.network.operations)[source]

    def _own_name(self, name: str) -> str:
        taken = self.tensors.get(name)
        if taken is not None:
            taken.name = self.names.fresh(f"{name}_float")
        return name

    def _constant(self, name: str, values: Array) -> gs.Constant:
        return g.constant(self.names.fresh(name), np.asarray(values).astype(np.float32))

    def _emit(
        self,
        op: str,
        inputs: Sequence[gs.Tensor],
        name: str,
        attributes: Mapping[str, object] | None = None,
        domain: str = "",
    ) -> gs.Variable:
        output = gs.Variable(self.names.fresh(f"{name}_out"), np.dtype(np.float32))
        node = g.node(op, list(inputs), [output], self.names.fresh(name), dict(attributes or {}),
                      domain)  # fmt: skip
        self.graph.nodes.append(node)
        return output


def channels_of(operations: Sequence[Layer | Move]) -> dict[str, int]:
    """The size of axis 1 of every count tensor."""
    found: dict[str, int] = {}
    for operation in operations:
        if isinstance(operation, Layer):
            found[operation.output] = operation.shape[0]
            continue
        sizes = [found[s] for s in operation.sources]
        found[operation.output] = sum(sizes) if operation.op == "Concat" else sizes[0]
        if operation.op == "Reshape":
            found[operation.output] = int(operation.constants[0][1])
    return found
