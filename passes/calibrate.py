"""Give plain ReLUs an upper bound, and so a threshold, from what they put out on data.

Optional: runs after `find_activations`, and only where the user gives data to calibrate on.

Cases:

* a ReLU (Ramp without upper bound): bounded at the maximum of its output, or at a percentile of
  all its outputs (Rueckauer et al., Front. Neurosci. 2017, section 2.2.2), per layer or channel;
* a ReLU that never fires on the data: refused, there is nothing to measure;
* clips and staircases: left alone, their threshold is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert.activation import read_activation
from na_convert.cut import cut_model
from na_convert.graph import Carried, Names, constant, export_parts, is_ours, label
from na_convert.results import PassReport, Refusal
from na_convert.runtime import Feeds

_BATCH = 32
_BINS = 1 << 14  # of the histogram that a percentile is read from: 1/16384 of the maximum


@dataclass(frozen=True)
class Calibration:
    """Which threshold to take: ``percentile`` (100: the maximum), per layer or per channel."""

    percentile: float = 100.0
    per_channel: bool = False


def run(graph: gs.Graph, carried: Carried, feeds: Feeds, how: Calibration) -> PassReport:
    """Bound every unbounded Ramp of ``graph`` in place, from its outputs on ``feeds`` [N, ...]."""
    ramps = [n for n in graph.nodes if is_ours(n, "Ramp") and not read_activation(n).bounded]  # type: ignore[union-attr]
    if not ramps:
        return PassReport("calibrate", 0)
    bounds = _bounds(graph, carried, feeds, [n.inputs[0].name for n in ramps], how)
    names = Names(graph)
    refused = []
    for ramp in ramps:
        low = np.asarray(ramp.inputs[1].values)
        bound = bounds[ramp.inputs[0].name]
        if not np.all(bound > low):
            reason = "never rises above its lower bound on the calibration data"
            remedy = "calibrate on more, or on representative, data, or per layer"
            refused.append(Refusal(label(ramp), "Relu", reason, remedy))
            continue
        high = constant(names.fresh(f"{ramp.outputs[0].name}_high"), bound.astype(low.dtype))
        ramp.inputs[2] = high
    return PassReport("calibrate", len(ramps) - len(refused), refused=tuple(refused))


def _bounds(
    graph: gs.Graph, carried: Carried, feeds: Feeds, roots: list[str], how: Calibration
) -> dict[str, NDArray[np.floating]]:
    """The bound of each tensor in ``roots``: a scalar, or one per channel ``[C, 1, ...]``."""
    maximum: dict[str, NDArray[np.floating]] = {}
    for values in _observe(graph, carried, feeds, roots):
        for name, value in values.items():
            top = _reduce(value, how.per_channel)
            maximum[name] = np.maximum(maximum.get(name, top), top)
    if how.percentile >= 100:
        return maximum
    counts = {n: np.zeros((m.size, _BINS), np.int64) for n, m in maximum.items()}
    for values in _observe(graph, carried, feeds, roots):
        for name, value in values.items():
            _count(counts[name], value, maximum[name])
    return {n: _percentile(counts[n], m, how.percentile) for n, m in maximum.items()}


def _reduce(value: NDArray[np.floating], per_channel: bool) -> NDArray[np.floating]:
    if not per_channel or value.ndim < 2:
        return np.asarray(value.max())
    axes = (0, *range(2, value.ndim))
    return np.asarray(value.max(axis=axes, keepdims=True)[0])


def _count(
    counts: NDArray[np.int64], value: NDArray[np.floating], top: NDArray[np.floating]
) -> None:
    scaled = np.clip(value / np.maximum(top, np.finfo(value.dtype).tiny), 0, 1)
    bins = np.minimum((scaled * _BINS).astype(np.int64), _BINS - 1)
    if top.ndim == 0:
        counts[0] += np.bincount(bins.ravel(), minlength=_BINS)
        return
    for channel in range(value.shape[1]):
        counts[channel] += np.bincount(bins[:, channel].ravel(), minlength=_BINS)


def _percentile(
    counts: NDArray[np.int64], top: NDArray[np.floating], percentile: float
) -> NDArray[np.floating]:
    share = np.cumsum(counts, axis=1) / counts.sum(axis=1, keepdims=True)
    upper_edge = (np.argmax(share >= percentile / 100, axis=1) + 1) / _BINS
    return np.asarray(top * upper_edge.reshape(top.shape))


def _observe(
    graph: gs.Graph, carried: Carried, feeds: Feeds, tensors: list[str]
) -> Iterator[dict[str, NDArray[np.floating]]]:
    """Values of ``tensors``, a batch of samples at a time."""
    wanted = [*(o.name for o in graph.outputs), *tensors]
    run = cut_model(export_parts(graph, carried), (), list(dict.fromkeys(wanted)))
    count = len(next(iter(feeds.values())))
    for start in range(0, count, _BATCH):
        part = {name: values[start : start + _BATCH] for name, values in feeds.items()}
        values = run(part)
        yield {name: values[name] for name in tensors}
