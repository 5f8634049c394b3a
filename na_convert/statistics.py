"""How an SNN behaves beside its ANN: accuracy and agreement over T, and figures per layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .layers import Layer
from .neurons import even_counts
from .results import TimestepResult
from .simulation import Simulation

Array: TypeAlias = NDArray[Any]

FLOAT_NOISE = 64.0  # in units of eps: how close to an edge rounding may decide


@dataclass(frozen=True)
class LayerCounts:
    """Sums over the neurons of a layer and over samples; see `results.LayerResult`."""

    neurons: int
    spikes: int
    uneven: int
    occasional: int
    error: float

    def merged(self, other: LayerCounts) -> LayerCounts:
        """Of two sets of samples, together."""
        names = [f.name for f in fields(self)]
        return LayerCounts(*(getattr(self, n) + getattr(other, n) for n in names))


def count_layer(
    layer: Layer, run: Simulation, values: Mapping[str, Array], timesteps: int
) -> LayerCounts:
    """Figures of ``layer`` after ``timesteps`` of ``run``, beside the ANN's ``values``."""
    current = run.currents[layer.name][:timesteps]
    count = np.count_nonzero(run.spikes[layer.name][:timesteps], axis=0)
    theta = np.asarray(layer.fired.threshold, np.float64)
    mean = current.mean(axis=0, dtype=np.float64)
    even = even_counts(mean, theta, timesteps)
    position = timesteps * mean / theta + 0.5
    noise = FLOAT_NOISE * float(np.finfo(current.dtype).eps) * timesteps
    tie = np.abs(position - np.round(position)) <= noise * np.maximum(1, np.abs(position))
    output = layer.unit_output(np.asarray(values[layer.neuron.output], np.float64))
    return LayerCounts(
        neurons=count.size,
        spikes=int(count.sum()),
        uneven=int(np.count_nonzero((count != even) & ~tie)),
        occasional=int(np.count_nonzero((output <= layer.half_level) & (count > 0))),
        error=float(np.sum(count / timesteps - output)),
    )


def timestep_result(
    steps: int, ann: Array, snn: Array, labels: NDArray[np.int64] | None
) -> TimestepResult:
    """Agreement, accuracy and error after ``steps``, from the first output of ANN and SNN."""
    ann_class, snn_class = predictions(ann), predictions(snn)
    fits = labels is not None and labels.shape == ann_class.shape
    difference = np.asarray(ann, np.float64) - np.asarray(snn, np.float64)
    return TimestepResult(
        T=steps,
        agreement=float(np.mean(ann_class == snn_class)),
        ann_accuracy=float(np.mean(ann_class == labels)) if fits else None,
        snn_accuracy=float(np.mean(snn_class == labels)) if fits else None,
        logit_rmse=float(np.sqrt(np.mean(difference**2))),
    )


def predictions(output: Array) -> Array:
    """Classes: the largest entry along axis 1; the sign of a lone logit; integers as they are."""
    if output.dtype.kind in "iub":
        return output.reshape(len(output), -1).squeeze(1) if output[0].size == 1 else output
    if output.ndim == 1 or output.shape[1] == 1:
        return (output.reshape(len(output), -1) > 0).astype(np.int64).squeeze()
    return np.asarray(np.argmax(output, axis=1))
