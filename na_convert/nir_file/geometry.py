"""Convolutions as every reader of NIR takes them: no groups, one padding per axis, square kernels.

nir 1.0.8 checks shapes on reading as if a kernel were as wide as it is high, cannot read what it
wrote of a convolution in groups, and has one padding for both ends of an axis. Zeros in the weights
express all of these without a change of what is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .network import Array


class NoGeometry(Exception):
    """Why a convolution cannot be written; the message is the reason."""


@dataclass(frozen=True)
class Geometry:
    """A convolution's weight [O, I, ...], and padding and stride per axis; dilation is 1."""

    weight: Array
    padding: tuple[int, ...]
    stride: tuple[int, ...]


def without_groups(weight: Array, groups: int) -> Array:
    """``weight`` [O, I / groups, ...] as [O, I, ...], with zeros between the groups."""
    if groups == 1:
        return weight
    outputs, inputs = weight.shape[0], weight.shape[1] * groups
    result = np.zeros((outputs, inputs, *weight.shape[2:]), weight.dtype)
    per_group, width = outputs // groups, weight.shape[1]
    for group in range(groups):
        rows = slice(group * per_group, (group + 1) * per_group)
        result[rows, group * width : (group + 1) * width] = weight[rows]
    return result


def plain(
    weight: Array,
    size: Sequence[int],
    pads: Sequence[tuple[int, int]],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Geometry:
    """A square kernel with the same padding at both ends that computes the same on ``size`` pixels.

    ``pads`` at the beginning and the end of each axis. Raises NoGeometry where there is none: where
    kernel and pads, added up, are odd along one axis with a stride of 1, and even along another.
    (Zeros up to a side k + |a - b| make the pads a and b of an axis one; with a stride of 1 so do
    all that are larger by an even number, and with a larger stride all that are larger.)
    """
    weight = _without_dilation(weight, dilation)
    kernel = weight.shape[2:]
    ends = [
        (n + a + b - k) // s + 1 for n, (a, b), k, s in zip(size, pads, kernel, stride, strict=True)
    ]
    widest = max(k + abs(a - b) for k, (a, b) in zip(kernel, pads, strict=True))
    for side in range(max(kernel), widest + 2):
        found = [
            _padding(n, a, k, s, end, side)
            for n, (a, _), k, s, end in zip(size, pads, kernel, stride, ends, strict=True)
        ]
        if all(p is not None for p in found):
            padding = tuple(p for p in found if p is not None)
            before = [p - a for p, (a, _) in zip(padding, pads, strict=True)]
            return Geometry(_widened(weight, before, side), padding, tuple(stride))
    raise NoGeometry(
        f"its {'x'.join(map(str, kernel))} kernel with pads {[list(p) for p in pads]} is no square "
        "one with zeros and one padding per axis"
    )


def _padding(size: int, begin: int, kernel: int, stride: int, end: int, side: int) -> int | None:
    """The padding at both ends under which a kernel widened to ``side`` computes the same."""
    for padding in range(begin, begin + side - kernel + 1):
        if (size + 2 * padding - side) // stride + 1 == end:
            return padding
    return None


def _widened(weight: Array, before: Sequence[int], side: int) -> Array:
    """``weight`` with zeros in front and behind, up to ``side``."""
    around = [(b, side - k - b) for b, k in zip(before, weight.shape[2:], strict=True)]
    return np.pad(weight, [(0, 0), (0, 0), *around])


def _without_dilation(weight: Array, dilation: Sequence[int]) -> Array:
    """The same kernel with zeros in between instead of a dilation."""
    if all(d == 1 for d in dilation):
        return weight
    sides = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    result = np.zeros((*weight.shape[:2], *sides), weight.dtype)
    spread = tuple(slice(None, None, d) for d in dilation)
    result[(slice(None), slice(None), *spread)] = weight
    return result
