"""What a tensor of the SNN is, in terms of NIR nodes: scaled and reordered channels, added up.

NIR has no Mul, Add, Concat or Slice. A tensor between two NIR nodes is kept as a `Value` until a
node has to receive it; most of it then goes into that node's weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .network import Array, Shape


@dataclass(frozen=True)
class Term:
    """``factor[c] * y[index[c]]`` for each channel c, where y is the output of ``node``.

    Attributes:
        index: channels of the node's output [C]; -1: none, the channel is 0.
        factor: [C], float64.
    """

    node: str
    index: Array
    factor: Array

    def matrix(self, channels: int) -> Array:
        """The term as a matrix [C, channels]."""
        result = np.zeros((len(self.index), channels))
        used = self.index >= 0
        result[np.flatnonzero(used), self.index[used]] = self.factor[used]
        return result

    def same_mixing(self, other: Term) -> bool:
        return np.array_equal(self.index, other.index) and np.array_equal(self.factor, other.factor)


@dataclass(frozen=True)
class Value:
    """The sum of ``terms`` and ``bias`` [C], of shape [C, ...].

    The pixels are those of the terms' nodes in the same order, though they may have another shape.
    """

    shape: Shape
    terms: tuple[Term, ...]
    bias: Array

    @classmethod
    def of_node(cls, node: str, shape: Shape) -> Value:
        """The output of a node."""
        term = Term(node, np.arange(shape[0]), np.ones(shape[0]))
        return cls(shape, (term,), np.zeros(shape[0]))

    @property
    def biased(self) -> bool:
        return bool(np.any(self.bias != 0))

    def scaled(self, factor: Array) -> Value:
        """Times ``factor``, a number or [C]."""
        terms = tuple(replace(t, factor=t.factor * factor) for t in self.terms)
        return Value(self.shape, terms, self.bias * factor)

    def raised(self, bias: Array) -> Value:
        """Plus ``bias``, a number or [C]."""
        return replace(self, bias=self.bias + bias)

    def selected(self, channels: Array, shape: Shape) -> Value:
        """The channels ``channels`` [C'] of it (-1: zeros), of ``shape`` [C', ...]."""
        kept = channels >= 0
        terms = []
        for term in self.terms:
            index = np.where(kept, term.index[channels], -1)
            factor = np.where(kept & (index >= 0), term.factor[channels], 0.0)
            terms.append(Term(term.node, index, factor))
        return Value(shape, tuple(terms), np.where(kept, self.bias[channels], 0.0))


def added(values: Sequence[Value]) -> Value:
    """The sum of values of one shape; terms of one node and order become one."""
    terms: list[Term] = []
    for term in (t for value in values for t in value.terms):
        known = next((t for t in terms if t.node == term.node), None)
        if known is not None and np.array_equal(known.index, term.index):
            both = replace(known, factor=known.factor + term.factor)
            terms = [both if t is known else t for t in terms]
        else:
            terms.append(term)
    bias = np.sum([value.bias for value in values], axis=0)
    return Value(values[0].shape, tuple(t for t in terms if np.any(t.factor != 0)), bias)


def concatenated(values: Sequence[Value]) -> Value:
    """Values side by side along the channels."""
    total = sum(v.shape[0] for v in values)
    parts, start = [], 0
    for value in values:
        place = np.full(total, -1)
        place[start : start + value.shape[0]] = np.arange(value.shape[0])
        parts.append(value.selected(place, (total, *value.shape[1:])))
        start += value.shape[0]
    return added(parts)
