"""From an integer network to a program: places in memory, tables of places, numbers in int32."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .. import integer, integer_moves
from ..errors import NotConvertible
from ..integer import IntegerNetwork
from ..results import Refusal
from .program import NOWHERE, Current, Layer, Mean, Move, Pair, Product, Program, Shortcut

Array: TypeAlias = NDArray[Any]

_POOLS = ("MaxPool", "SumPool")
_IMAGE = 2  # dimensions of a convolution


def lower(network: IntegerNetwork) -> Program:
    """The program of ``network``; raises NotConvertible naming the layers it cannot hold."""
    _refuse(network)
    return _Lowering(network).program()


def _refuse(network: IntegerNetwork) -> None:
    refused = [
        Refusal(layer.name, "Conv", "a convolution in three dimensions",
                "the layout of docs/hardware.md has two")
        for layer in network.layers
        if any(p.window is not None and len(p.window.strides) > _IMAGE for p in layer.products)
    ]  # fmt: skip
    if refused:
        raise NotConvertible(
            f"{refused[0].node!r} and {len(refused) - 1} other layers cannot be exported"
            if len(refused) > 1
            else f"{refused[0].node!r} cannot be exported: {refused[0].reason}",
            refused=tuple(refused),
            node=refused[0].node,
            remedy=refused[0].remedy,
        )


class _Lowering:
    def __init__(self, network: IntegerNetwork) -> None:
        self.network = network
        self.offsets: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.currents: list[Current] = []
        self.memory = 0

    def program(self) -> Program:
        operations = tuple(
            self._layer(op) if isinstance(op, integer.Layer) else self._move(op)
            for op in self.network.operations
        )
        means = tuple(
            Mean(m.output, self.offsets[m.source], self.shapes[m.source], m.scale, m.offset)
            for m in self.network.means
        )
        return Program(operations, tuple(self.currents), means, self.memory, self.network.timesteps)

    def _place(self, tensor: str, shape: tuple[int, ...]) -> int:
        self.offsets[tensor], self.shapes[tensor] = self.memory, shape
        self.memory += prod(shape)
        return self.offsets[tensor]

    # --- layers -----------------------------------------------------------------------------------

    def _layer(self, layer: integer.Layer) -> Layer:
        products = tuple(self._product(p) for p in layer.products)
        channels = layer.shape[0]
        summed, window = layer.shape, None
        if layer.pool is not None:
            (product,) = layer.products
            summed = (channels, *_made(product, self.shapes[product.source]))
            window = window_table(layer.pool, summed, layer.shape)
        self._require_one_size(layer, summed)
        per_unit = 1 if layer.wide else layer.threshold.reshape(-1)
        shortcuts = tuple(
            Shortcut(self.offsets[s.source],
                     _int32(layer, per_unit * np.broadcast_to(s.weight.reshape(-1), (channels,))))
            for s in layer.shortcuts
        )  # fmt: skip
        currents = tuple(self._current(layer, each, summed) for each in layer.analogs)
        return Layer(
            layer.name,
            self._place(layer.output, layer.shape),
            layer.shape,
            summed,
            products,
            shortcuts,
            currents,
            _int32(layer, _per_channel(layer.bias, summed)),
            _int32(layer, np.broadcast_to(layer.threshold.reshape(-1), (channels,))),
            layer.resolution,
            window,
        )

    def _require_one_size(self, layer: integer.Layer, summed: tuple[int, ...]) -> None:
        """ONNX repeats what has one row or column, or one channel, when it is added."""
        sizes = [self.shapes[s.source] for s in layer.shortcuts]
        sizes += [(len(p.weight), *_made(p, self.shapes[p.source])) for p in layer.products]
        if any(size != summed for size in sizes):
            raise NotConvertible(
                f"{layer.name!r} cannot be exported: it adds sums or counts of unlike sizes",
                node=layer.name,
                remedy="the layout of docs/hardware.md has one size for all that is added",
            )

    def _product(self, product: integer.Product) -> Product:
        offset, shape = self.offsets[product.source], self.shapes[product.source]
        weight, window = product.weight, product.window
        if window is None:
            one = (1, 1)
            dense = weight.reshape(*weight.shape, 1, 1)
            return Product(offset, dense, one, one, (0, 0), one, 1, one)
        return Product(
            offset,
            weight.reshape(*weight.shape[:2], *_pair(weight.shape[2:], 1)),
            _pair(shape[1:], 1),
            _pair(window.strides, 1),
            _pair(window.pads[: len(window.strides)], 0),
            _pair(window.dilations, 1),
            window.group,
            _pair(_made(product, shape), 1),
        )

    def _current(self, layer: integer.Layer, each: integer.Analog, summed: tuple[int, ...]) -> int:
        offset = sum(prod(current.shape) for current in self.currents)
        self.currents.append(
            Current(layer.name, each.tensor, offset, summed, each.gain,
                    _int32(layer, each.low), _int32(layer, each.high))
        )  # fmt: skip
        return offset

    # --- moves ------------------------------------------------------------------------------------

    def _move(self, move: integer_moves.Move) -> Move:
        """Its table is what the move makes of the places themselves (plus one: 0 is padding)."""
        places = [self._places(source) for source in move.sources]
        made = integer_moves.move(move, places)
        shape = made.shape[1:]
        table = (made - 1).reshape(-1, 1)
        if move.op in _POOLS:
            (source,) = move.sources
            inside = window_table(move.attributes, self.shapes[source], shape)
            table = np.where(inside == NOWHERE, NOWHERE, self.offsets[source] + inside)
        output = self._place(move.output, shape)
        adds = move.op == "SumPool"
        return Move(move.output, move.op, output, shape, table.astype(np.int32), adds)

    def _places(self, source: str) -> Array:
        shape = self.shapes[source]
        return self.offsets[source] + 1 + np.arange(prod(shape)).reshape(1, *shape)


# --- windows --------------------------------------------------------------------------------------


def window_table(
    attributes: Any, shape: tuple[int, ...], made: tuple[int, ...]
) -> NDArray[np.int32]:
    """The entries of an array [C, ...] of ``shape`` under each window of a pool.

    Returns int32 [size of ``made``, which the pool makes; places under a window], `NOWHERE` for
    padding.
    """
    kernel = [int(k) for k in attributes["kernel_shape"]]
    rank = len(kernel)
    strides, dilations, pads = (
        [int(i) for i in attributes.get(name) or [default] * rank]
        for name, default in (("strides", 1), ("dilations", 1), ("pads", 0))
    )
    index = np.arange(shape[0]).reshape(-1, 1, 1)
    inside = np.ones((shape[0], 1, 1), bool)
    for axis in range(rank):
        starts = np.arange(made[axis + 1])[:, None] * strides[axis] - pads[axis]
        at = starts + np.arange(kernel[axis]) * dilations[axis]
        within = (at >= 0) & (at < shape[axis + 1])
        index = index[:, :, None, :, None] * shape[axis + 1] + at[None, None, :, None, :]
        inside = inside[:, :, None, :, None] & within[None, None, :, None, :]
        flat = (index.shape[0], index.shape[1] * index.shape[2], -1)
        index, inside = index.reshape(flat), inside.reshape(flat)
    table = np.where(inside, index, NOWHERE)
    return table.reshape(-1, table.shape[-1]).astype(np.int32)


def _made(product: integer.Product, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width (or the one length) of what a product makes of counts [C, ...]."""
    window = product.window
    if window is None:
        return ()
    rank = len(window.strides)
    return tuple(
        (shape[1 + i] + window.pads[i] + window.pads[rank + i]
         - window.dilations[i] * (product.weight.shape[2 + i] - 1) - 1) // window.strides[i] + 1
        for i in range(rank)
    )  # fmt: skip


# --- numbers --------------------------------------------------------------------------------------


def _pair(sizes: Sequence[int], missing: int) -> Pair:
    """Sizes along two axes; an axis that there is not comes first."""
    filled = [missing] * (_IMAGE - len(sizes)) + [int(size) for size in sizes]
    return filled[0], filled[1]


def _per_channel(values: Array, summed: tuple[int, ...]) -> Array:
    """One number per channel where that says it all, else one for each entry of S."""
    rank = len(summed)
    wide = values.reshape((1,) * (rank - values.ndim) + values.shape)
    if all(size == 1 for size in wide.shape[1:]):
        return np.broadcast_to(wide.reshape(-1), (summed[0],))
    return np.broadcast_to(wide, summed).reshape(-1)


def _int32(layer: integer.Layer, values: Array) -> NDArray[np.int32]:
    found = np.asarray(values).astype(np.int32)
    if not np.array_equal(found, values):
        raise NotConvertible(
            f"{layer.name!r} has a number that int32 does not hold", node=layer.name,
            remedy="convert it again with a smaller -T",
        )  # fmt: skip
    return found
