"""An `Snn` as an integer network: int8 weights, odd integer thresholds, uint8 counts.

Requires the description of `na_convert.snn`; ensures an `IntegerNetwork` whose bounds hold for any
input and any T up to the one given (`integer_bounds`), or refuses by node name. Cases:

* constant current into the first neurons: rounded once, in units of threshold / 8191;
* one convolution or dense layer: int8 weights, scale per output channel (`weight_scales`);
* a second convolution (downsampling shortcut): joined with the first (`join_terms`);
* linear operators in a row: one, of the product of their weights (`compose_terms`);
* an identity shortcut: a whole number of counts, at a resolution that uint8 holds
  (`shortcut_ratio`); 1 where the thresholds along it are tied (`tie_shortcuts`); what is left over
  through the convolution, as further input channels, where that is larger than 1x1;
* a sum of counts without any convolution: the first of them becomes a depthwise convolution;
* anything else that is affine, and shortcuts whose ratio uint8 does not hold well enough: a wide
  layer, exact sums of whole numbers in float32;
* weights on a grid of their own (low-bit training): their own integers, error 0;
* typical activations given: biases corrected for the mean error of rounding the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert import kernels
from na_convert.errors import NotConvertible, UsageError
from na_convert.integer import (
    INT8,
    UINT8,
    Analog,
    IntegerNetwork,
    Layer,
    Product,
    Shortcut,
    Window,
)
from na_convert.integer_bounds import (
    FLOAT32,
    INT16,
    LARGEST_THRESHOLD,
    bounds,
    worst_sum,
    zero_point,
)
from na_convert.integer_moves import Move
from na_convert.integer_moves import move as apply
from na_convert.results import QuantisedLayer, Refusal
from na_convert.snn import Snn, float_type, neuron_nodes, parameters

from .count_means import means_of
from .count_sums import Reader
from .count_values import FOLDED, NoIntegerForm, Sum, Term, by_channel
from .edges import ABOVE, BELOW, on_side, sides
from .join_terms import join
from .layer_kinds import UNLIKE, adds_unlike, is_constant, is_larger, misfit, with_a_term
from .shortcut_ratio import Ratio, best_ratio
from .weight_scales import Scaled, choose

Array: TypeAlias = NDArray[np.float64]

TOLERATED = 0.05  # of a threshold: what a shortcut may be off by at half its largest count
WORTH_A_CHANNEL = 0.02  # from here on what is left over goes through the convolution
_BELOW_HALF = 1 - 2.0**-14  # half of the threshold, an odd number, is rounded down
_NARROWER = (INT8, 63, 31, 15, 7)


@dataclass(frozen=True)
class Quantised:
    network: IntegerNetwork
    layers: tuple[QuantisedLayer, ...]


def run(network: Snn, timesteps: int, typical: Mapping[str, Array] | None = None) -> Quantised:
    """The integer network of ``network`` for up to ``timesteps`` steps.

    Args:
        typical: mean spikes per step of each neuron, by the name of the layer's output, [C, ...]
            of one sample: biases then make up, on average, for what rounding did to the weights.

    Raises UsageError where ``timesteps`` is not in 1 .. 255, NotConvertible naming every node that
    has no integer form.
    """
    if not 1 <= timesteps <= UINT8:
        raise UsageError(
            f"T = {timesteps}: int8 counts reach from 1 to {UINT8} time steps",
            remedy="take fewer steps, or float weights",
        )
    _check_types(network)
    reader = Reader(network, timesteps)
    builder = _Builder(network, reader.most, timesteps, typical or {})
    operations = [each for item in reader.walk() for each in builder.operations(item)]
    means, unread = means_of(network, reader.reading())
    refused = (*reader.refused, *builder.refused, *unread)
    if refused:
        raise NotConvertible(
            f"{len(refused)} node(s) have no int8 form",
            node=refused[0].node,
            refused=refused,
        )
    integer = IntegerNetwork(network, tuple(operations), tuple(means), timesteps)
    return Quantised(integer, tuple(builder.reports))


def _check_types(network: Snn) -> None:
    for node in neuron_nodes(network.graph):
        kind = float_type(node)
        if kind != np.float32:
            raise NotConvertible(
                f"{node.name}: the network computes in {kind}; for int8 it has to be float32",
                node=node.name,
                remedy=f"export it in float32, or {FOLDED}",
            )


class _Builder:
    """Makes operations in order; keeps what is known of the counts made so far."""

    def __init__(
        self, network: Snn, most: dict[str, int], timesteps: int, typical: Mapping[str, Array]
    ) -> None:
        self.network, self.most, self.timesteps = network, most, timesteps
        self.typical = {name: np.asarray(v, np.float64)[None] for name, v in typical.items()}
        self.nodes = {node.name: node for node in neuron_nodes(network.graph)}
        self.sides = sides(network.neurons)
        self.shapes = {neuron.name: neuron.shape for neuron in network.neurons}
        self.reports: list[QuantisedLayer] = []
        self.refused: list[Refusal] = []

    def operations(self, item: Move | tuple[str, Sum]) -> list[Move | Layer]:
        if isinstance(item, Move):
            for source in item.sources:  # what a ReduceMean makes on its way
                self.most.setdefault(item.output, self.most.get(source, UINT8))
            self._move_typical([item])
            return [item]
        name, current = item
        node, shape = self.nodes[name], self.shapes[name]
        theta = by_channel(np.asarray(parameters(node).threshold, np.float64), shape)
        made = None if theta is None else self._layer(node, current, theta)
        if made is None:
            why = NoIntegerForm(UNLIKE) if theta is None else misfit(current, shape)
            self.refused.append(Refusal(name, node.op, why.reason, why.remedy))
        return made or []

    def _layer(self, node: gs.Node, current: Sum, theta: Array) -> list[Move | Layer] | None:
        if is_constant(current):
            return [self._constant(node, current, theta)]
        narrow = self._narrow(node, current, theta)
        return narrow or self._wide(node, current, theta)

    # --- the kinds of layers ----------------------------------------------------------------------

    def _constant(self, node: gs.Node, current: Sum, theta: Array) -> Layer:
        threshold = np.full(theta.shape, LARGEST_THRESHOLD, np.int64)
        (tensor, gain), = current.analogs  # fmt: skip
        shape = self.shapes[node.name]
        per_unit = _broadcast(threshold / theta, shape) * gain
        if self.sides[node.name] == BELOW:
            per_unit = per_unit * _BELOW_HALF
        limit = _broadcast(threshold, shape)
        analog = Analog(tensor, per_unit.astype(np.float32), np.zeros_like(limit), limit)
        layer = self._new(node, threshold, analogs=(analog,), bias=np.zeros_like(threshold))
        self._report(layer, None, 0, Ratio(1, (), 0.0))
        return layer

    def _whole_bias(self, node: gs.Node, bias: Array) -> NDArray[np.int64]:
        """Rounded; a half, as which half of an odd threshold stands there, to the ANN's side."""
        side = self.sides[node.name]
        found = np.floor(bias + 0.5) if side == ABOVE else on_side(bias, 0, side)
        return found.astype(np.int64)

    def _narrow(self, node: gs.Node, current: Sum, theta: Array) -> list[Move | Layer] | None:
        """With uint8 in and out; None where that cannot be."""
        current = with_a_term(current)
        bias = by_channel(current.bias, self.shapes[node.name])
        ratio = self._ratio(node, current, theta)
        if current.analogs or not current.terms or bias is None or ratio is None:
            return None
        terms = current.terms
        if ratio.error > WORTH_A_CHANNEL and all(is_larger(t) for t in terms):
            terms += self._corrections(current, theta, ratio)
            ratio = replace(ratio, error=0.0)
        joined = join(node.outputs[0].name, terms)
        if joined is None or ratio.error > TOLERATED:
            return None
        term, moves = joined
        for move in moves:
            self.most[move.output] = max(self.most[s] for s in move.sources)
        most = self.most[term.source.name]
        largest = min(INT8, INT16 // (2 * most))
        scaled = choose(term.weight, theta, largest)
        self._move_typical(moves)
        bias = bias + self._mean_error(term, scaled, theta)
        shortcuts = tuple(
            Shortcut(counts.name, _broadcast(q, self.shapes[node.name]))
            for (counts, _), q in zip(current.identities, ratio.weights, strict=True)
        )
        layer = self._new(
            node,
            scaled.threshold,
            products=(Product(term.source.name, scaled.weight, term.window),),
            shortcuts=shortcuts,
            bias=self._whole_bias(node, bias * scaled.threshold / theta),
            resolution=ratio.resolution,
            zero_point=zero_point(ratio.resolution, shortcuts, self.most) if shortcuts else 0,
            pool=current.pool,
        )
        if not all(b.holds for b in bounds(layer, self.most, self.timesteps)):
            return None
        self._report(layer, scaled, largest, ratio)
        return [*moves, layer]

    def _ratio(self, node: gs.Node, current: Sum, theta: Array) -> Ratio | None:
        shape = self.shapes[node.name]
        exact, most = [], []
        for counts, gain in current.identities:
            worth = by_channel(gain * counts.scale, shape)
            if worth is None:
                return None
            exact.append(worth / theta)
            most.append(self.most[counts.name])
        return best_ratio(exact, most, self.timesteps)

    def _move_typical(self, moves: Sequence[Move]) -> None:
        for move in moves:
            if all(source in self.typical for source in move.sources):
                values = [self.typical[source] for source in move.sources]
                self.typical[move.output] = apply(move, values)

    def _mean_error(self, term: Term, scaled: Scaled, theta: Array) -> Array:
        """Per channel, what rounding took from the mean current of a step."""
        typical = self.typical.get(term.source.name)
        if typical is None:
            return np.zeros(len(theta))
        units = (theta / scaled.threshold).reshape(-1, *[1] * (term.weight.ndim - 1))
        lost = term.weight - scaled.weight * units
        if term.window is None:
            return np.asarray((typical @ lost.T)[0])
        node = gs.Node("Conv", attrs=term.window.attributes())
        error = kernels.conv(node, [typical, lost], np.dtype(np.float64))[0]
        return np.asarray(error.reshape(len(theta), -1).mean(axis=1))

    def _corrections(self, current: Sum, theta: Array, ratio: Ratio) -> tuple[Term, ...]:
        """What the whole numbers of a ratio leave over, as 1x1 convolutions of the shortcuts."""
        found = []
        for (counts, gain), q in zip(current.identities, ratio.weights, strict=True):
            worth = by_channel(gain * counts.scale, counts.shape)
            assert worth is not None
            rank = len(counts.shape) - 1
            ones, zeros = (1,) * rank, (0,) * 2 * rank
            left = np.diag(worth - q / ratio.resolution * theta)
            found.append(Term(counts, left.reshape(*left.shape, *ones), Window(ones, zeros, ones)))
        return tuple(found)

    def _wide(self, node: gs.Node, current: Sum, theta: Array) -> list[Move | Layer] | None:
        """Whole numbers in float32, with as many bits as fit; None where not even few do."""
        if current.pool is not None or any(t.window is None for t in current.terms):
            return None
        if adds_unlike(current, self.shapes[node.name]):
            return None
        for largest in _NARROWER:
            made = self._wide_with(node, current, theta, largest)
            if made is not None:
                return made
        return None

    def _wide_with(
        self, node: gs.Node, current: Sum, theta: Array, largest: int
    ) -> list[Move | Layer] | None:
        shape = self.shapes[node.name]
        channels = len(theta)
        rows = [t.weight.reshape(channels, -1) for t in current.terms]
        joined = np.concatenate(rows, axis=1) if rows else np.zeros((channels, 1))
        scaled = choose(joined, theta, largest)
        units = scaled.threshold / theta
        ends = np.cumsum([row.shape[1] for row in rows])[:-1]
        parts = np.split(scaled.weight, ends, axis=1)
        products = tuple(
            Product(t.source.name, part.reshape(t.weight.shape), t.window)
            for t, part in zip(current.terms, parts, strict=bool(rows))
        )
        shortcuts = tuple(
            Shortcut(
                counts.name,
                np.rint(_broadcast(units, shape) * gain * counts.scale).astype(np.int64),
            )
            for counts, gain in current.identities
        )
        bias = self._whole_bias(node, _broadcast(units, shape) * current.bias)
        plain = self._new(
            node, scaled.threshold, products=products, shortcuts=shortcuts, bias=bias, wide=True
        )
        layer = self._with_analogs(plain, current, units)
        if layer is None or not all(b.holds for b in bounds(layer, self.most, self.timesteps)):
            return None
        self._report(layer, scaled, largest, Ratio(1, (), 0.0))
        return [layer]

    def _with_analogs(self, layer: Layer, current: Sum, units: Array) -> Layer | None:
        """Analog currents get the room that the others leave, at least four thresholds a step."""
        if not current.analogs:
            return layer
        found = {b.what: b for b in bounds(layer, self.most, self.timesteps)}
        room = FLOAT32 - found["sum in float32"].worst - 2 * self.timesteps
        limit = room // (2 * self.timesteps * len(current.analogs))
        if limit < 4 * int(layer.threshold.max()):
            return None
        high = np.full((), limit, np.int64)
        per_unit = _broadcast(units, layer.shape)
        analogs = tuple(
            Analog(tensor, (per_unit * gain).astype(np.float32), -high, high)
            for tensor, gain in current.analogs
        )
        return replace(layer, analogs=analogs)

    # --- layers and reports -----------------------------------------------------------------------

    def _new(
        self,
        node: gs.Node,
        threshold: NDArray[np.int64],
        *,
        bias: NDArray[np.int64],
        products: tuple[Product, ...] = (),
        analogs: tuple[Analog, ...] = (),
        shortcuts: tuple[Shortcut, ...] = (),
        resolution: int = 1,
        zero_point: int = 0,
        wide: bool = False,
        pool: dict[str, object] | None = None,
    ) -> Layer:
        shape = self.shapes[node.name]
        return Layer(
            node.name,
            node.outputs[0].name,
            shape,
            products,
            analogs,
            shortcuts,
            _broadcast(bias, shape),
            _broadcast(threshold, shape),
            resolution,
            zero_point,
            wide,
            pool,
        )

    def _report(self, layer: Layer, scaled: Scaled | None, largest: int, ratio: Ratio) -> None:
        self.reports.append(
            QuantisedLayer(
                layer.name,
                largest.bit_length() + 1 if largest else 0,
                scaled.error if scaled else 0.0,
                scaled.threshold_error if scaled else 0.0,
                scaled.on_grid if scaled else 0,
                len(layer.threshold),
                ratio.resolution,
                ratio.error,
                layer.wide,
                worst_sum(layer, self.most, self.timesteps),
                (int(layer.threshold.min()), int(layer.threshold.max())),
            )
        )


def _broadcast(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A vector [C] as one that broadcasts against a sample [C, 1, ...]."""
    if values.ndim == 1 and values.size == shape[0]:
        return values.reshape(-1, *[1] * (len(shape) - 1))
    return values
