"""A linear layer on an analog input, in three parts of which each is exact in float32.

On one grid, 24 bits are all there is for weight times input, about 11 for each: too few for the
first layer, whose rounding every later layer amplifies. So both are split, ``x = x_high + x_low``
and ``w = w_high + w_low``, and

    w x  =  w_high x_high  +  (w_low x_high + w_high x_low)        (w_low x_low: below 2^-24)

Each bracket is a sum of multiples of one power of two below 2^24 of it, so exact in any order; the
last addition rounds once, elementwise, and so alike in every engine. (The split is Dekker's, Numer.
Math. 18, 1971, for a sum of products.)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert import worst_case
from na_convert.unit_scale import NotExact
from na_convert.worst_case import Bound

from .rescale import Weights

Array = NDArray[Any]

MANTISSA = 24  # bits of a float32 significand
INPUT_BITS = 11  # of the high part of the input, beside its sign
GROWTH = 1 + 2**-8  # what rounding may add to a bound; the rounded weights are proven afterwards


@dataclass(frozen=True)
class Stem:
    """The parts, and the exponents of their grids.

    Attributes:
        high: w_high, and the bias.
        low: w_low.
        input_high, input_low: of x_high and x_low.
        bias_grid, low_grid: of the bias, and of w_low.
        error: root mean square of what the parts leave out of the weights, relative to theirs.
    """

    high: Weights
    low: Array
    input_high: int
    input_low: int
    bias_grid: int
    low_grid: int
    error: float

    @property
    def weights(self) -> Weights:
        """Both parts together."""
        return Weights(self.high.weight + self.low, self.high.bias)


def divided(node: gs.Node, weights: Weights, given: Bound) -> Stem:
    """The parts of ``node`` with ``weights``, for an input within ``given``.

    Raises NotExact where not even the parts stay below 2^24 units.
    """
    weight, bias = weights.weight.astype(np.float64), weights.bias
    input_high = ceil(log2(max(-given[0], given[1]))) - INPUT_BITS
    first = _unit(worst_case.of_weighted(node, weight, bias, given))
    high_grid = first - input_high
    high = nearest(weight, high_grid)
    low = weight - high
    second = _unit(_second(node, high, low, given, input_high))
    low_grid, input_low = second - input_high, second - high_grid
    rounded = nearest(low, low_grid)
    kept = Weights(high, None if bias is None else nearest(bias, first))
    for bound, unit in (
        (worst_case.of_weighted(node, kept.weight, kept.bias, given), first),
        (_second(node, high, rounded, given, input_high), second),
    ):
        if max(-bound[0], bound[1]) > 2.0 ** (MANTISSA + unit):
            raise NotExact(node, f"its sums leave 2^{MANTISSA} units, in two parts as well")
    size = float(np.sqrt(np.mean(weight**2)))
    error = float(np.sqrt(np.mean((low - rounded) ** 2))) / size if size else 0.0
    return Stem(kept, rounded, input_high, input_low, first, low_grid, error)


def nearest(values: Array, exponent: int) -> Array:
    """``values`` rounded to multiples of 2^exponent, half to even, in their own float type."""
    made = np.asarray(np.ldexp(values, -exponent))
    np.rint(made, out=made)
    return np.asarray(np.ldexp(made, exponent, out=made))


def _second(node: gs.Node, high: Array, low: Array, given: Bound, input_high: int) -> Bound:
    """Of the second bracket, all of its partial sums."""
    half = 2.0 ** (input_high - 1)
    terms = [
        worst_case.of_weighted(node, low, None, given),
        worst_case.of_weighted(node, high, None, (-half, half)),
    ]
    return (terms[0][0] + terms[1][0], terms[0][1] + terms[1][1])


def _unit(bound: Bound) -> int:
    """The finest power of two of which ``bound`` has fewer than 2^24."""
    return ceil(log2(max(-bound[0], bound[1], 2**-60) * GROWTH)) - MANTISSA
