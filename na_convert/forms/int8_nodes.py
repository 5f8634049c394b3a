"""The nodes of one time step of an integer network; int8 forms differ in what is around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .. import graph as g
from ..integer import IntegerNetwork, Layer, Product
from ..integer_moves import Move
from ..integer_view import channels_of, leave_time

Tensors: TypeAlias = dict[str, gs.Tensor]
Array: TypeAlias = NDArray[Any]


class StepBuilder:
    """Adds the nodes of time steps to ``graph``; weights are constants that all steps share.

    ``network.snn.graph`` was copied into ``graph``: analog tensors and readout are found there by
    name.
    """

    def __init__(
        self, graph: gs.Graph, network: IntegerNetwork, names: g.Names | None = None
    ) -> None:
        self.graph, self.network = graph, network
        self.names = names or g.Names(graph)
        self._constants: dict[tuple[str, str], gs.Constant] = {}
        self._tensors = g.tensors_by_name(graph)
        self._channels = channels_of(network.operations)

    # --- currents that are the same at every step -------------------------------------------------

    def units(self) -> Tensors:
        """Constant currents in units of the weights, by layer and number (`unit_key`)."""
        made: Tensors = {}
        for layer in self.network.layers:
            for index, each in enumerate(layer.analogs):
                name = unit_key(layer, index)
                inputs = [
                    self._tensors[each.tensor],
                    *(
                        self.constant(name, which, np.asarray(values, np.float32))
                        for which, values in (
                            ("gain", each.gain),
                            ("low", each.low),
                            ("high", each.high),
                        )
                    ),
                ]
                made[name] = self.emit("CurrentUnits", inputs, name, name, np.float32)
        return made

    # --- a step -----------------------------------------------------------------------------------

    def step(
        self,
        suffix: str,
        before: Mapping[str, gs.Tensor] | None,
        units: Mapping[str, gs.Tensor],
        time: Clock,
    ) -> Tensors:
        """The nodes of one step; returns all counts by tensor name.

        Args:
            suffix: of the names of nodes and tensors.
            before: the layers' counts before the step; None at the first.
            time: how much time has passed, as a number or as a tensor.
        """
        counts: Tensors = {}
        for operation in self.network.operations:
            sources = [counts[s] for s in operation.sources]
            if isinstance(operation, Move):
                made = self.move(operation, sources, suffix)
            elif operation.constant:
                current = units[unit_key(operation, 0)]
                previous = None if before is None else before[operation.output]
                made = time.constant(self, operation, current, previous, suffix)
            else:
                previous = None if before is None else before[operation.output]
                build = self._wide if operation.wide else self._int8
                made = build(operation, counts, previous, units, suffix, time)
            counts[operation.output] = made
        return counts

    def if_constant(
        self, layer: Layer, current: gs.Tensor, scale: gs.Tensor, suffix: str
    ) -> gs.Variable:
        """Counts of ``layer`` under a constant current, in whole numbers of ``scale``."""
        return self.emit("IFConstant", [current, scale], layer.name + suffix,
                         counts_name(layer.output) + suffix, np.uint8)  # fmt: skip

    def _int8(
        self,
        layer: Layer,
        counts: Tensors,
        before: gs.Tensor | None,
        units: Mapping[str, gs.Tensor],
        suffix: str,
        time: Clock,
    ) -> gs.Variable:
        (product,) = layer.products
        op = f"IFInt8{'' if product.window else 'Dense'}{'Pooled' if layer.pool else ''}"
        op += "First" if before is None else ""
        weight = _as_image(product)
        scale = np.float32(layer.resolution) / layer.threshold.reshape(-1).astype(np.float32)
        inputs = [counts[product.source], *([] if before is None else [before])]
        inputs += [
            self.constant(layer.name, "weight", weight),
            self.constant(layer.name, "scale", scale),
            time.bias(self, layer),
        ]
        if layer.shortcuts:
            kind, extra = self._shortcuts(layer, counts)
            op, inputs = op + kind, [*inputs, *extra]
        return self.emit(op, inputs, layer.name + suffix, counts_name(layer.output) + suffix,
                         np.uint8, _attributes(layer, product))  # fmt: skip

    def _shortcuts(self, layer: Layer, counts: Tensors) -> tuple[str, list[gs.Tensor]]:
        plain = layer.resolution == 1 and all(np.all(s.weight == 1) for s in layer.shortcuts)
        offset = layer.zero_point + (layer.resolution + 1) // 2
        inputs: list[gs.Tensor] = [
            self.constant(layer.name, "zero", np.asarray(layer.zero_point, np.uint8)),
            self.constant(layer.name, "offset", np.asarray(offset, np.uint8)),
        ]
        if not plain:
            ratio = np.asarray(layer.resolution, np.uint8)
            inputs.append(self.constant(layer.name, "ratio", ratio))
        inputs += [counts[s.source] for s in layer.shortcuts]
        if not plain:
            inputs += [
                self.constant(layer.name, f"times{i}", (s.weight % 256).astype(np.uint8))
                for i, s in enumerate(layer.shortcuts)
            ]
        return f"{'Tied' if plain else 'Shortcut'}{len(layer.shortcuts)}", inputs

    def _wide(
        self,
        layer: Layer,
        counts: Tensors,
        before: gs.Tensor | None,
        units: Mapping[str, gs.Tensor],
        suffix: str,
        time: Clock,
    ) -> gs.Variable:
        first = "First" if before is None else ""
        sizes = (len(layer.products), len(layer.shortcuts), len(layer.analogs))
        op = f"IFWide{first}{'x'.join(str(n) for n in sizes)}"
        theta = np.asarray(layer.threshold, np.float32)
        inputs = [] if before is None else [before]
        inputs += [self.constant(layer.name, "theta", theta), *time.wide(self, layer)]
        attributes: dict[str, object] = {}
        for i, product in enumerate(layer.products):
            assert product.window is not None
            weight = self.constant(layer.name, f"weight{i}", product.weight)
            inputs += [counts[product.source], weight]
            attributes.update({f"{k}{i}": v for k, v in product.window.attributes().items()})
        for i, shortcut in enumerate(layer.shortcuts):
            times = np.asarray(shortcut.weight, np.float32)
            inputs += [counts[shortcut.source], self.constant(layer.name, f"times{i}", times)]
        inputs += [units[unit_key(layer, i)] for i in range(len(layer.analogs))]
        return self.emit(op, inputs, layer.name + suffix, counts_name(layer.output) + suffix,
                         np.uint8, attributes)  # fmt: skip

    def move(self, move: Move, sources: Sequence[gs.Tensor], suffix: str) -> gs.Variable:
        name = counts_name(move.output)
        attributes = dict(move.attributes)
        if move.op == "SumPool":
            channels = self._channels[move.sources[0]]
            kernel = attributes.pop("kernel_shape")
            assert isinstance(kernel, list)
            ones = self.constant(name, "ones", np.ones((channels, 1, *kernel), np.int8))
            attributes["group"] = channels
            return self.emit("SumPool", [*sources, ones], name + suffix, name + suffix, np.uint8,
                             attributes)  # fmt: skip
        constants = [self.constant(name, str(i), c) for i, c in enumerate(move.constants)]
        if move.op == "Slice":  # starts, ends, axes, steps
            attributes = {}
        return self.emit(move.op, [*sources, *constants], name + suffix, name + suffix, np.uint8,
                         attributes, domain="")  # fmt: skip

    # --- steps that are proved --------------------------------------------------------------------

    def proved(self, made: gs.Tensor, output: str) -> gs.Variable:
        """``made + 1``, for ``made`` steps before: an entry of a table, so that a number outside
        1 to T is an error of the file (an index out of bounds) and no wrong result."""
        most = self.network.timesteps
        table = self.constant("steps", "proved", np.arange(1, most + 1, dtype=np.int64))
        none = self.constant("steps", "none", np.asarray(0, np.int64))
        beyond = self.constant("steps", "beyond", np.asarray(most, np.int64))
        name = f"at_most_{most}_steps"  # a negative index would count from the table's end
        negative = self.emit("Less", [made, none], f"{name}_negative", f"{output}_negative",
                             np.bool_, domain="")  # fmt: skip
        index = self.emit("Where", [negative, beyond, made], f"{name}_index", f"{output}_index",
                          np.int64, domain="")  # fmt: skip
        return self.emit("Gather", [table, index], name, output, np.int64, {"axis": 0}, domain="")

    # --- the readout ------------------------------------------------------------------------------

    def read_out(self, counts: Mapping[str, gs.Tensor], timesteps: gs.Tensor) -> None:
        """Let the readout's tensors be means of ``counts``; what made them is cut off."""
        leave_time(self.graph)
        for mean in self.network.means:
            output = self._tensors[mean.output]
            output.inputs.clear()
            inputs = [
                counts[mean.source],
                timesteps,
                self.constant(mean.output, "scale", mean.scale),
                self.constant(mean.output, "offset", mean.offset),
            ]
            name = self.names.fresh(f"Mean_{mean.output}")
            node = g.node("CountsMean", inputs, [output], name, {}, "na_convert")
            self.graph.nodes.append(node)

    # --- small things -----------------------------------------------------------------------------

    def constant(self, owner: str, which: str, values: Array) -> gs.Constant:
        """One constant for all steps, called after its owner."""
        key = (owner, which)
        if key not in self._constants:
            name = self.names.fresh(f"{owner}_{which}")
            self._constants[key] = g.constant(name, np.asarray(values))
        return self._constants[key]

    def name_of(self, owner: str, *which: str) -> str:
        """The name of the first of these constants that there is."""
        return next(str(self._constants[owner, w].name) for w in which if (owner, w) in
                    self._constants)  # fmt: skip

    def emit(
        self,
        op: str,
        inputs: Sequence[gs.Tensor],
        name: str,
        output: str,
        dtype: type[np.generic],
        attributes: Mapping[str, object] | None = None,
        domain: str = "na_convert",
    ) -> gs.Variable:
        made = gs.Variable(self.names.fresh(output), np.dtype(dtype))
        node = g.node(op, list(inputs), [made], self.names.fresh(name), dict(attributes or {}),
                      domain)  # fmt: skip
        self.graph.nodes.append(node)
        return made


class Clock(Protocol):
    """How much time has passed at a step: a number (`Time`), or a tensor (`int8_loop.LoopTime`).

    ``constant`` makes the counts of a layer whose only current is analog.
    """

    def bias(self, builder: StepBuilder, layer: Layer) -> gs.Tensor: ...

    def constant(
        self,
        builder: StepBuilder,
        layer: Layer,
        units: gs.Tensor,
        before: gs.Tensor | None,
        suffix: str,
    ) -> gs.Variable: ...

    def wide(self, builder: StepBuilder, layer: Layer) -> list[gs.Tensor]: ...


class Time:
    """A number of steps."""

    def __init__(self, t: int) -> None:
        self.t = t

    def bias(self, builder: StepBuilder, layer: Layer) -> gs.Tensor:
        """``t * b`` as QLinearConv takes it, int32 [C]."""
        bias = np.broadcast_to(layer.bias, layer.threshold.shape).reshape(-1)
        return builder.constant(layer.name, f"bias_{self.t}", (self.t * bias).astype(np.int32))

    def constant(
        self,
        builder: StepBuilder,
        layer: Layer,
        units: gs.Tensor,
        before: gs.Tensor | None,
        suffix: str,
    ) -> gs.Variable:
        """The quotient of a current and a scale is ``t * units / theta``."""
        scale = (theta_of(layer) / np.float32(self.t)).astype(np.float32)
        per_step = builder.constant(layer.name, f"theta_{self.t}", scale)
        return builder.if_constant(layer, units, per_step, suffix)

    def wide(self, builder: StepBuilder, layer: Layer) -> list[gs.Tensor]:
        """``t * b`` and t, in float32."""
        bias = (self.t * layer.bias).astype(np.float32)
        step = np.asarray(self.t, np.float32)
        return [
            builder.constant(layer.name, f"bias_{self.t}", bias),
            builder.constant("step", str(self.t), step),
        ]


def unit_key(layer: Layer, index: int) -> str:
    return f"{layer.name}_units{index or ''}"


def counts_name(tensor: str) -> str:
    return f"{tensor}_counts"


def theta_of(layer: Layer) -> Array:
    """Thresholds [C] in float32, which holds them exactly."""
    return np.asarray(layer.threshold, np.float32).reshape(-1)


def _as_image(product: Product) -> NDArray[np.int8]:
    """Dense weights [O, I] as a 1x1 convolution."""
    weight = product.weight
    return weight if product.window else weight.reshape(*weight.shape, 1, 1)


def _attributes(layer: Layer, product: Product) -> dict[str, object]:
    attributes = product.window.attributes() if product.window else {}
    if layer.pool is not None:
        pool = dict(layer.pool)
        attributes["kernel_shape"] = pool["kernel_shape"]
        attributes.update({f"pool_{k}": pool[k] for k in ("strides", "pads", "dilations")})
        attributes["ceil_mode"] = pool["ceil_mode"]
    return attributes
