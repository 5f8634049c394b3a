"""The proof that no number of an integer layer overflows, and that no rounding decides a spike.

For each layer the worst case over all inputs, from its own weights and the largest counts that can
reach it. onnxruntime's `QLinearConv` sums in int32, turns the sum into a float32, multiplies by a
float32 scale and rounds half to even:

sums         ``|C| < 2^31``
pairs        CPUs without VNNI add two products in int16, which saturates above 32767:
             ``2 * max |w| * largest count <= 32767``
rounding     ``R C / theta`` with theta and R odd is at least ``1 / (2 theta)`` away from a tie; up
             to 256 in size (beyond, uint8 saturates anyway), the float32 roundings of the scale and
             of the product move it by less than ``256 * 4 * 2^-24``: ``theta <= 8191``
uint8        the zero point and everything a rounded quotient is compared with lie in 1 .. 255, so
             that saturation at 0 and 255 never decides
wide         float32 convolutions of whole numbers: ``2 |C|`` and ``theta (2 T + 1)`` below 2^24
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from .integer import UINT8, IntegerNetwork, Layer, Product, Shortcut

INT32 = 2**31 - 1
INT16 = 2**15 - 1
FLOAT32 = 2**24
LARGEST_THRESHOLD = 8191


@dataclass(frozen=True)
class Bound:
    """A quantity of a layer in the worst case, and what it must not exceed."""

    layer: str
    what: str
    worst: int
    limit: int

    @property
    def holds(self) -> bool:
        return self.worst <= self.limit


def largest_counts(network: IntegerNetwork) -> dict[str, int]:
    """The largest count that each tensor can hold after the network's last step."""
    most: dict[str, int] = {}
    for operation in network.operations:
        if isinstance(operation, Layer):
            most[operation.output] = network.timesteps
            continue
        largest = max(most[s] for s in operation.sources)
        if operation.op == "SumPool":
            kernel = operation.attributes["kernel_shape"]
            assert isinstance(kernel, list)
            largest *= prod(kernel)
        most[operation.output] = largest
    return most


def bounds(layer: Layer, most: Mapping[str, int], timesteps: int) -> list[Bound]:
    """Every bound of ``layer``; ``most``: the largest count of each tensor after ``timesteps``."""
    found = [_bound(layer, "threshold", int(layer.threshold.max()), LARGEST_THRESHOLD)]
    total = worst_sum(layer, most, timesteps)
    if layer.wide:
        margin = int(layer.threshold.max()) * (2 * timesteps + 1)
        found.append(_bound(layer, "sum in float32", max(2 * total, margin), FLOAT32))
        return found
    found.append(_bound(layer, "sum in int32", total, INT32))
    for product in layer.products:
        pair = 2 * int(np.abs(product.weight.astype(np.int64)).max(initial=0))
        found.append(_bound(layer, "pair of products in int16", pair * most[product.source], INT16))
    found.append(_bound(layer, "comparison in uint8", largest_comparison(layer, most, timesteps),
                        UINT8))  # fmt: skip
    if layer.analogs:
        margin = int(layer.threshold.max()) * (2 * timesteps + 1)
        found.append(_bound(layer, "current in float32", max(2 * total, margin), FLOAT32))
    return found


def worst_sum(layer: Layer, most: Mapping[str, int], timesteps: int) -> int:
    """The largest ``|C_t|`` over all counts that can arise."""
    largest = timesteps * int(np.abs(layer.bias).max(initial=0))
    sums = [_worst_product(p) * most[p.source] for p in layer.products]
    sums += [
        timesteps * int(max(np.abs(a.low).max(initial=0), np.abs(a.high).max(initial=0)))
        for a in layer.analogs
    ]
    if layer.wide:
        sums += [int(np.abs(s.weight).max(initial=0)) * most[s.source] for s in layer.shortcuts]
    return largest + sum(sums)


def _worst_product(product: Product) -> int:
    weight = product.weight.reshape(len(product.weight), -1).astype(np.int64)
    positive = np.where(weight > 0, weight, 0).sum(axis=1)
    negative = np.where(weight < 0, -weight, 0).sum(axis=1)
    return int(max(positive.max(initial=0), negative.max(initial=0)))


def largest_comparison(layer: Layer, most: Mapping[str, int], timesteps: int) -> int:
    """The largest value that a rounded quotient is compared with, zero point included.

    The smallest is 1 by the choice of the zero point (`zero_point`).
    """
    if layer.constant:
        return timesteps
    ratio = layer.resolution
    highest = layer.zero_point + (ratio + 1) // 2 + ratio * (timesteps - 1)
    return highest + sum(-_lowest(s.weight) * most[s.source] for s in layer.shortcuts)


def zero_point(resolution: int, shortcuts: Sequence[Shortcut], most: Mapping[str, int]) -> int:
    """So that the smallest value compared with is 1: ``R N + (R + 1) / 2 - sum of q N`` + this."""
    subtracted = sum(max(0, int(s.weight.max())) * most[s.source] for s in shortcuts)
    return max(0, subtracted + 1 - (resolution + 1) // 2)


def _lowest(weight: NDArray[np.int64]) -> int:
    return min(0, int(weight.min()))


def _bound(layer: Layer, what: str, worst: int, limit: int) -> Bound:
    return Bound(layer.name, what, int(worst), limit)
