"""What a tensor between neurons holds, in real numbers: counts, or a weighted sum of counts.

`count_sums` reads them from the graph, `join_terms`, `shortcut_ratio` and `quantise_weights` work
on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from na_convert.integer import Window

Array: TypeAlias = NDArray[np.float64]

FOLDED = "use the folded form with float weights (--weights float)"


@dataclass(frozen=True)
class Counts:
    """A uint8 tensor. In one sample it is worth ``scale * N + t * offset`` after t steps.

    Attributes:
        shape: of one sample.
        scale, offset: broadcast against one sample.
        most: no count is larger after the last step.
    """

    name: str
    shape: tuple[int, ...]
    scale: Array
    offset: Array
    most: int


@dataclass(frozen=True)
class Term:
    """Real weights [O, I / group, ...] times what the counts `source` are worth.

    ``window`` is None for a dense layer.
    """

    source: Counts
    weight: Array
    window: Window | None


@dataclass(frozen=True)
class Sum:
    """Terms, counts times a gain, analog tensors times a gain, and a bias per step.

    Gains and bias broadcast against one sample. ``pool``: attributes of a max-pool over the sum.
    """

    terms: tuple[Term, ...] = ()
    identities: tuple[tuple[Counts, Array], ...] = ()
    analogs: tuple[tuple[str, Array], ...] = ()
    bias: Array = field(default_factory=lambda: np.zeros(()))
    pool: dict[str, object] | None = None


Value: TypeAlias = Counts | Sum


class NoIntegerForm(Exception):
    """Raised at a node that integers cannot do; `count_sums.Reader` refuses it by name."""

    def __init__(self, reason: str, remedy: str = FOLDED) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


# --- arithmetic -----------------------------------------------------------------------------------


def plus(a: Sum, b: Sum) -> Sum:
    if a.pool is not None or b.pool is not None:
        raise NoIntegerForm("adds to the maximum of a sum of currents")
    return Sum(
        a.terms + b.terms, a.identities + b.identities, a.analogs + b.analogs, a.bias + b.bias
    )


def scaled(value: Value, factor: Array) -> Value:
    if np.all(factor == 1):
        return value
    if isinstance(value, Counts):
        return replace(value, scale=value.scale * factor, offset=value.offset * factor)
    if value.pool is not None and np.any(factor <= 0):
        raise NoIntegerForm("turns the sign of a maximum of currents")
    return Sum(
        tuple(replace(t, weight=_times_outputs(t.weight, factor)) for t in value.terms),
        tuple((counts, gain * factor) for counts, gain in value.identities),
        tuple((name, gain * factor) for name, gain in value.analogs),
        value.bias * factor,
        value.pool,
    )


def _times_outputs(weight: Array, factor: Array) -> Array:
    if factor.size == 1:
        return weight * factor.reshape(())
    if not is_per_channel(factor, weight.ndim - 1):
        raise NoIntegerForm("scales a current by something other than a number per channel")
    return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))


def as_sum(value: Value) -> Sum:
    if isinstance(value, Sum):
        return value
    plain = replace(value, offset=np.zeros(()))
    return Sum(identities=((plain, np.ones(())),), bias=value.offset)


# --- per channel ----------------------------------------------------------------------------------


def is_per_channel(values: Array, rank: int) -> bool:
    """Whether ``values``, against a sample of ``rank`` axes, are one number or one per channel."""
    return values.size == 1 or (values.ndim == rank and values.shape[0] == values.size)


def whole(values: Array, shape: tuple[int, ...]) -> Array:
    return np.asarray(np.broadcast_to(values, (1, *shape)))


def narrowed(values: Array) -> Array:
    """The same, as one number or as [C, 1, ...], where that says it all."""
    if values.size and np.all(values == values.flat[0]):
        return np.asarray(values.flat[0])
    if values.ndim > 1:
        first = values[(slice(None), *[slice(0, 1)] * (values.ndim - 1))]
        if np.all(values == first):
            return np.asarray(first)
    return values


def by_channel(values: Array, shape: tuple[int, ...]) -> Array | None:
    """``values`` [C], or None where they differ within a channel."""
    narrow = narrowed(np.broadcast_to(values, shape))
    if narrow.size in (1, shape[0]) and (narrow.size == 1 or narrow.shape[0] == shape[0]):
        return np.asarray(np.broadcast_to(narrow.reshape(-1), shape[:1]))
    return None


def channels_of(values: Array, shape: tuple[int, ...]) -> Array:
    found = by_channel(values, shape)
    assert found is not None
    return found


def channels_or_refuse(source: Counts, does: str) -> Array:
    found = by_channel(source.scale, source.shape)
    if found is None:
        raise NoIntegerForm(f"{does} spikes that are worth unlike amounts within a channel")
    return found
