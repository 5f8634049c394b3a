"""Linear operators in a row, with no neurons in between, become one.

A sum of weighted counts that goes through another linear operator is a sum of weighted counts
again, exactly: its weights are the products. Cases:

* a convolution (or an average) behind a convolution: the kernels convolved; where the second pads
  with zeros, only if the first sees nothing but zeros there (a 1x1 kernel, or windows that do not
  overlap and leave nothing over), since its borders are no convolution otherwise;
* equal groups, or one of the two depthwise: groups stay as they are; else both are written out;
* a dense layer behind a dense one: the matrices multiplied;
* one pixel per channel, flattened: a convolution with one output pixel becomes a dense layer;
* sums side by side (Concat): zeros where one does not reach the other's channels;
* identity shortcuts in a sum become convolutions or dense layers;
* biases: a number per channel, or a map where the second pads.

Analog currents and maxima of currents do not go through: refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from na_convert import kernels
from na_convert.integer import Window

from .count_values import Array, Counts, NoIntegerForm, Sum, Term, by_channel, channels_or_refuse

MOST_WEIGHTS = 1 << 26  # of a layer: the product of two kernels can be far larger than both


def convolved(value: Sum, weight: Array, window: Window, shape: tuple[int, ...] | None) -> Sum:
    """``value`` through a convolution [O, M / group, ...]; ``shape`` of one sample of ``value``."""
    _check(value, "convolves")
    if any(term.window is None for term in value.terms):
        raise NoIntegerForm("convolves the sum of a dense layer, with no neurons in between")
    terms = [_through(term, weight, window) for term in value.terms]
    terms += [_of_identity(*identity, weight, window) for identity in value.identities]
    return Sum(terms=tuple(terms), bias=answer(value.bias, weight, window, shape))


def multiplied(value: Sum, matrix: Array) -> Sum:
    """``value``, a vector, times ``matrix`` [O, M]."""
    _check(value, "multiplies")
    if any(term.window is not None for term in value.terms):
        raise NoIntegerForm("multiplies a sum of currents that is an image")
    terms = [Term(t.source, matrix @ t.weight, None) for t in value.terms]
    terms += [
        Term(counts, matrix * np.broadcast_to(gain * counts.scale, counts.shape), None)
        for counts, gain in value.identities
    ]
    bias = matrix @ np.broadcast_to(value.bias, matrix.shape[1:])
    return Sum(terms=tuple(terms), bias=bias)


def answer(values: Array, weight: Array, window: Window, shape: tuple[int, ...] | None) -> Array:
    """What a convolution makes of constant ``values``, which broadcast against ``shape``: [O, 1,
    ...], or a map behind zero padding."""
    rank = weight.ndim - 2
    if not np.any(values):
        return np.zeros((weight.shape[0], *[1] * rank))
    if shape is None:
        raise NoIntegerForm(
            "the size of its image is not known, and a bias before it needs it",
            "export with static image sizes",
        )
    node = gs.Node("Conv", attrs=window.attributes())
    whole = np.ascontiguousarray(np.broadcast_to(values, (1, *shape)), np.float64)
    found = kernels.conv(node, [whole, weight], np.dtype(np.float64))[0]
    vector = found.reshape(len(found), -1)
    if np.ptp(vector, axis=1).max() <= 1e-12 * np.abs(vector).max():
        return np.asarray(vector[:, :1].reshape(-1, *[1] * rank))
    return np.asarray(found)


def beside(values: Sequence[Sum], shapes: Sequence[tuple[int, ...]]) -> Sum:
    """Sums of these shapes (of one sample), joined along the channels."""
    total = sum(shape[0] for shape in shapes)
    rank = len(shapes[0]) - 1
    terms, start = list[Term](), 0
    for value, shape in zip(values, shapes, strict=True):
        _check(value, "joins")
        own = [*value.terms, *(_as_term(*identity, rank) for identity in value.identities)]
        for term in own:
            written = _without_groups(term)
            weight = np.zeros((total, *written.weight.shape[1:]))
            weight[start : start + shape[0]] = written.weight
            terms.append(Term(written.source, _bounded(weight), written.window))
        start += shape[0]
    space = np.broadcast_shapes(*(np.shape(v.bias)[1:] for v in values), (1,) * rank)
    parts = [
        np.broadcast_to(value.bias, (shape[0], *space))
        for value, shape in zip(values, shapes, strict=True)
    ]
    return Sum(terms=tuple(terms), bias=np.concatenate(parts))


def as_dense(term: Term) -> Array:
    """The matrix [O, I * ...] of a convolution with one output pixel, on its input flattened."""
    written = _without_groups(term)
    window, space = written.window, written.source.shape[1:]
    assert window is not None
    matrix = np.zeros((*written.weight.shape[:2], *space))
    for where in product(*(range(k) for k in written.weight.shape[2:])):
        place = [
            d * q - p
            for q, d, p in zip(where, window.dilations, window.pads[: len(space)], strict=True)
        ]
        if all(0 <= i < n for i, n in zip(place, space, strict=True)):
            matrix[_pixel(place)] = written.weight[_pixel(where)]
    return matrix.reshape(len(matrix), -1)


def _pixel(where: Iterable[Any]) -> tuple[Any, ...]:
    """An index into [O, I, ...]: all channels."""
    return (slice(None), slice(None), *where)


# --- one convolution behind another ---------------------------------------------------------------


def _through(term: Term, second: Array, after: Window) -> Term:
    first, before = term.weight, term.window
    assert before is not None
    _check_borders(term, before, after)
    first, second, group = _matched(first, before.group, second, after.group)
    kernels_of = list(zip(first.shape[2:], second.shape[2:], strict=True))
    strides = tuple(a * b for a, b in zip(before.strides, after.strides, strict=True))
    spread = [s * d for s, d in zip(before.strides, after.dilations, strict=True)]
    if all(k == 1 for k, _ in kernels_of):
        dilations, apart, close = tuple(spread), [1] * len(spread), [1] * len(spread)
    elif all(k == 1 for _, k in kernels_of):
        dilations, apart, close = before.dilations, [1] * len(spread), [1] * len(spread)
    else:
        dilations, apart, close = (1,) * len(spread), spread, list(before.dilations)
    sizes = [
        a * (k2 - 1) + c * (k1 - 1) + 1
        for a, c, (k1, k2) in zip(apart, close, kernels_of, strict=True)
    ]
    shape = (len(second), first.shape[1], *sizes)
    if prod(shape) > MOST_WEIGHTS:
        raise NoIntegerForm(
            f"together with the linear operator before it, it has {prod(shape)} weights"
        )
    weight = np.zeros(shape)
    for where in product(*(range(k) for k in second.shape[2:])):
        taken = tuple(
            slice(a * q, a * q + c * (k1 - 1) + 1, c)
            for a, q, c, (k1, _) in zip(apart, where, close, kernels_of, strict=True)
        )
        weight[_pixel(taken)] += _times(second[_pixel(where)], first, group)
    ends = [p + s * q for p, q, s in zip(before.pads, after.pads, before.strides * 2, strict=True)]
    return Term(term.source, weight, Window(strides, tuple(ends), dilations, group))


def _check_borders(term: Term, before: Window, after: Window) -> None:
    """Behind padding the first operator has to be 0 wherever the second pads."""
    rank = len(before.strides)
    for i in range(rank):
        if not (after.pads[i] or after.pads[rank + i]):
            continue
        reach = before.dilations[i] * (term.weight.shape[2 + i] - 1) + 1
        size, stride = term.source.shape[1 + i], before.strides[i]
        made = (size - reach) // stride + 1
        inside = before.pads[i] or before.pads[rank + i] or reach > stride
        if inside or (after.pads[rank + i] and made * stride < size):
            raise NoIntegerForm(
                "pads sums of currents with zeros: with no neurons in between, the two linear "
                "operators are not one there",
                "put a quantised activation before it, or use the folded form with float weights "
                "(--weights float)",
            )


def _matched(first: Array, group1: int, second: Array, group2: int) -> tuple[Array, Array, int]:
    """Both with the same groups, or the second depthwise (its own group is then len(second))."""
    if second.shape[1] == 1 and len(second) == len(first) == group2:
        return first, second, group1
    if group1 == group2:
        return first, second, group1
    return _written_out(first, group1), _written_out(second, group2), 1


def _times(chosen: Array, first: Array, group: int) -> Array:
    """[O, M / group] times [M, I / group, ...], group by group; [O, 1]: row by row."""
    if chosen.shape[1] == 1 and len(chosen) == len(first):
        return chosen.reshape(-1, *[1] * (first.ndim - 1)) * first
    rows = chosen.reshape(group, -1, chosen.shape[1])
    columns = first.reshape(group, chosen.shape[1], -1)
    return np.asarray(np.matmul(rows, columns).reshape(len(chosen), *first.shape[1:]))


def _written_out(weight: Array, group: int) -> Array:
    """[O, I / group, ...] as [O, I, ...], zeros between the groups."""
    if group == 1:
        return weight
    outputs, inputs = len(weight) // group, weight.shape[1]
    whole = np.zeros((len(weight), inputs * group, *weight.shape[2:]))
    for i in range(group):
        rows, columns = slice(i * outputs, (i + 1) * outputs), slice(i * inputs, (i + 1) * inputs)
        whole[rows, columns] = weight[rows]
    return _bounded(whole)


def _bounded(weight: Array) -> Array:
    if weight.size > MOST_WEIGHTS:
        raise NoIntegerForm(f"written out it has {weight.size} weights")
    return weight


def _without_groups(term: Term) -> Term:
    if term.window is None or term.window.group == 1:
        return term
    window = term.window
    plain = Window(window.strides, window.pads, window.dilations)
    return Term(term.source, _written_out(term.weight, window.group), plain)


# --- identity shortcuts ---------------------------------------------------------------------------


def _of_identity(counts: Counts, gain: Array, weight: Array, window: Window) -> Term:
    worth = _worth(counts, gain)
    per_group = worth.reshape(window.group, 1, weight.shape[1], *[1] * (weight.ndim - 2))
    grouped = weight.reshape(window.group, -1, *weight.shape[1:]) * per_group
    return Term(counts, grouped.reshape(weight.shape), window)


def _as_term(counts: Counts, gain: Array, rank: int) -> Term:
    worth = _worth(counts, gain)
    if not rank:
        return Term(counts, np.diag(worth), None)
    ones, zeros = (1,) * rank, (0,) * 2 * rank
    weight = worth.reshape(-1, 1, *ones)
    return Term(counts, weight, Window(ones, zeros, ones, len(worth)))


def _worth(counts: Counts, gain: Array) -> Array:
    """What a spike of each channel adds, [C]."""
    channels_or_refuse(counts, "adds")
    worth = by_channel(np.asarray(gain * counts.scale), counts.shape)
    if worth is None:
        raise NoIntegerForm("adds spikes that are worth unlike amounts within a channel")
    return worth


def _check(value: Sum, does: str) -> None:
    if value.pool is not None:
        raise NoIntegerForm(f"{does} a maximum of currents, with no neurons in between")
    if value.analogs:
        raise NoIntegerForm(
            f"{does} a sum of currents that holds an analog one ({value.analogs[0][0]!r}), with no "
            "neurons in between",
            "put a quantised activation before it, or use the folded form with float weights "
            "(--weights float)",
        )
