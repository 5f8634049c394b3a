"""A network as hardware sees it: operations in order, whole numbers, one memory of spike counts.

Every tensor of counts of one sample has its place in the memory, C order, from its offset on. Each
step makes all operations once. A `Layer` sums, with t the number of the step from 1::

    S = t * bias + sum of weights * counts + t * currents      (convolutions, and analog currents)
    M = resolution * max(S over its window, if it pools) + sum of times * counts
    counts += 1 where 2 M >= resolution * threshold * (2 counts + 1)

and a `Move` copies, takes maxima or adds up, by a table of places. This is `integer` without its
rounded quotients, which decide nothing: ``round(R C / theta) >= m`` says that
``2 R C >= theta (2 m - 1)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Pair: TypeAlias = tuple[int, int]
NOWHERE = -1  # in a table: no place, a count of 0


@dataclass(frozen=True)
class Product:
    """A convolution of two dimensions; a dense layer is one of 1x1 on an image of one pixel.

    Attributes:
        source: offset of the counts, [group * I, height, width] with ``size`` (height, width).
        weight: int8 [O, I, kernel height, kernel width].
        pads: rows above and columns to the left, of zeros.
        made: height and width of what it makes.
    """

    source: int
    weight: NDArray[np.int8]
    size: Pair
    strides: Pair
    pads: Pair
    dilations: Pair
    group: int
    made: Pair


@dataclass(frozen=True)
class Shortcut:
    """``times * counts``, from offset ``source``; int32, one number per channel of the layer."""

    source: int
    times: NDArray[np.int32]


@dataclass(frozen=True)
class Layer:
    """Neurons; see the module.

    Attributes:
        name: of the IF node; ``output`` the offset of its counts, ``shape`` [C, ...].
        summed: the shape of S, [C, ...]; that of the counts unless it pools.
        currents: offsets of its analog currents, each of the size of S.
        bias: int32, one number per channel, or one for each entry of S.
        threshold: int32, one per channel.
        window: int32 [neurons, places]: the entries of S under each neuron's max-pool; or None.
    """

    name: str
    output: int
    shape: tuple[int, ...]
    summed: tuple[int, ...]
    products: tuple[Product, ...]
    shortcuts: tuple[Shortcut, ...]
    currents: tuple[int, ...]
    bias: NDArray[np.int32]
    threshold: NDArray[np.int32]
    resolution: int
    window: NDArray[np.int32] | None

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Move:
    """Counts from elsewhere in the memory: for each, the largest or the sum of some places.

    Attributes:
        name: of the tensor; ``op`` what the network calls it.
        table: int32 [size, places], offsets into the memory or `NOWHERE`.
        adds: the sum, not the largest.
    """

    name: str
    op: str
    output: int
    shape: tuple[int, ...]
    table: NDArray[np.int32]
    adds: bool


@dataclass(frozen=True)
class Current:
    """An analog current: ``clip(round(gain * x), low, high)`` of the float tensor ``tensor``.

    Its entry in the input of a step begins at ``offset`` and has the shape ``shape`` of S.
    """

    layer: str
    tensor: str
    offset: int
    shape: tuple[int, ...]
    gain: NDArray[np.float32]
    low: NDArray[np.int32]
    high: NDArray[np.int32]


@dataclass(frozen=True)
class Mean:
    """A tensor of the readout: ``scale * counts / T + offset``, counts from ``source`` on."""

    tensor: str
    source: int
    shape: tuple[int, ...]
    scale: NDArray[np.float32]
    offset: NDArray[np.float32]


@dataclass(frozen=True)
class Program:
    """Attributes: ``memory``, its counts; ``timesteps``, the T up to which nothing overflows."""

    operations: tuple[Layer | Move, ...]
    currents: tuple[Current, ...]
    means: tuple[Mean, ...]
    memory: int
    timesteps: int

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(op for op in self.operations if isinstance(op, Layer))

    @property
    def inputs(self) -> int:
        """Numbers that one sample's analog currents are."""
        return sum(prod(current.shape) for current in self.currents)

    @property
    def weights(self) -> int:
        """Bytes of int8 weights."""
        return sum(p.weight.nbytes for layer in self.layers for p in layer.products)
