"""Data beside the inputs for which a network's sums are proven to be exact (`passes.snap`).

The proof is for T up to some number and for inputs up to some size, which the file carries. Beyond,
a sum may leave the range in which float32 adds whole units, and engines may count differently. Such
data are not refused: the network is the same, only the promise of identical counts ends there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data import Samples
from .exactness import exactness_of
from .results import WARNING, InputRange
from .snn import Snn

_ROWS = 256  # that are read at once


def proven_inputs(network: Snn) -> dict[str, float]:
    """The largest absolute value of each input for which ``network`` is proven; empty: no proof."""
    found = exactness_of(network)
    return {} if found is None else found.bounds


def largest_inputs(network: Snn, samples: Samples) -> dict[str, float]:
    """The largest absolute value of each input in ``samples``: what a proof is made for."""
    bounds = {}
    for tensor in network.graph.inputs:
        feed, largest = samples.feeds[tensor.name], 0.0
        for start in range(0, len(samples), _ROWS):
            values = np.asarray(feed[start : start + _ROWS])
            largest = max(largest, float(np.max(np.abs(values), initial=0)))
        bounds[tensor.name] = largest or 1.0
    return bounds


def ranges_of(
    bounds: Mapping[str, float], feeds: Mapping[str, NDArray[Any]]
) -> tuple[InputRange, ...]:
    """The values of ``feeds`` [N, ...] beside ``bounds``, by input; NaN counts as beyond."""
    found = []
    for name, bound in bounds.items():
        values = np.abs(np.asarray(feeds[name], np.float64))
        per_sample = values.reshape(len(values), -1).max(axis=1, initial=0)
        beyond = np.count_nonzero(~(per_sample <= bound))
        largest = float(per_sample.max(initial=0))
        found.append(InputRange(name, bound, largest, int(beyond), len(values)))
    return tuple(found)


def merged(a: Sequence[InputRange], b: Sequence[InputRange]) -> tuple[InputRange, ...]:
    """Of two parts of the data, together; one of them may be empty."""
    if not (a and b):
        return (*a, *b)
    return tuple(
        InputRange(
            one.name,
            one.bound,
            float(np.maximum(one.largest, two.largest)),
            one.beyond + two.beyond,
            one.samples + two.samples,
        )
        for one, two in zip(a, b, strict=True)
    )


def beyond_the_proof(network: Snn, ranges: Sequence[InputRange], timesteps: int) -> tuple[str, ...]:
    """A line for each input, and for T, that leaves what ``network`` is proven for."""
    found = exactness_of(network)
    if found is None:
        return ()
    ends = "there engines may count differently"
    notes = [
        f"{WARNING}{each.beyond} of {each.samples} samples are beyond the input range that exact "
        f"sums are proven for: {each.name!r} reaches {each.largest:.4g}, proven up to "
        f"{each.bound:.4g}; {ends}. Convert with --data that holds such values"
        for each in ranges
        if each.beyond
    ]
    if timesteps > found.timesteps:
        notes.append(
            f"{WARNING}T = {timesteps} is beyond the {found.timesteps} time steps that exact sums "
            f"are proven for; {ends}. Convert with -T {timesteps}"
        )
    return tuple(notes)
