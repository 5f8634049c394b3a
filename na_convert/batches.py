"""Samples in batches, as many at once as the memory should hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray

from .layers import Layer

Array: TypeAlias = NDArray[Any]

MEMORY = 256 << 20  # bytes: about what the values of one batch's neurons may take
LARGEST = 64  # samples


def rows(feeds: Mapping[str, Array], start: int, count: int) -> dict[str, Array]:
    return {name: values[start : start + count] for name, values in feeds.items()}


def batches(feeds: Mapping[str, Array], size: int) -> Iterator[dict[str, Array]]:
    count = len(next(iter(feeds.values())))
    return (rows(feeds, start, size) for start in range(0, count, size))


def batch_size(layers: Sequence[Layer], copies: int) -> int:
    """`samples_at_once` of networks with these neuron layers."""
    return samples_at_once(sum(layer.size for layer in layers), copies)


def samples_at_once(neurons: int, copies: int) -> int:
    """Samples of ``neurons`` each that fit into `MEMORY`, ``copies`` float32 values per neuron; one
    at least, and `LARGEST` at most."""
    return max(1, min(LARGEST, neurons_at_once(copies) // max(1, neurons)))


def neurons_at_once(copies: int) -> int:
    """Neurons of which ``copies`` float32 values fit into `MEMORY`."""
    return MEMORY // (4 * copies)
