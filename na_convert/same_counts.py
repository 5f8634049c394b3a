"""The file in every engine at hand: on grids (`passes.snap`) each must count the same spikes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from .layers import Layer
from .onnx_reference import reference
from .results import Figure
from .rungs import Entry, rung
from .running import file_runner
from .runtime import Backend, session
from .simulation import Simulation, numpy_engine
from .snn import Snn

Array: TypeAlias = NDArray[Any]

SAMPLES = 8
REFERENCE_NEURONS = 1 << 21  # neuron-steps that onnx.reference gets: it is slow

ENGINES: dict[str, Backend] = {
    "onnxruntime without optimisations": partial(session, optimise=False),
    "onnxruntime with 1 thread": partial(session, threads=1),
    "onnxruntime with 2 threads": partial(session, threads=2),
}


def same_counts_figure(
    network: Snn, file: onnx.ModelProto, layers: Sequence[Layer], feeds: Mapping[str, Array]
) -> Figure:
    """Counts of all layers in numpy, onnxruntime in three settings, and onnx.reference (on one
    sample, where that is not too slow): how many differ from onnxruntime's own settings."""
    names, steps = [layer.name for layer in layers], network.timesteps
    few = {name: values[:SAMPLES] for name, values in feeds.items()}
    expected = file_runner(file, names)(few, steps)
    runs = {
        name: file_runner(file, names, backend=backend)(few, steps)
        for name, backend in ENGINES.items()
    }
    runs["numpy"] = numpy_engine(network, steps, names)(few)
    neurons = steps * sum(layer.size for layer in layers)
    if neurons <= REFERENCE_NEURONS:
        one = {name: values[:1] for name, values in few.items()}
        runs["onnx.reference"] = file_runner(file, names, backend=reference)(one, steps)
    entries = [
        Entry(count, 0, f"layer {layer!r}: {count} counts differ in {engine}", layer)
        for engine, run in runs.items()
        for layer, count in _differences(expected, run).items()
    ]
    figure = rung("same counts", entries)
    if not figure.passed:
        return figure
    left_out = "" if "onnx.reference" in runs else "; onnx.reference left out: it would take long"
    total = f"{len(layers)} layers, {len(next(iter(few.values())))} samples"
    listed = ", ".join(runs)
    return Figure("same counts", 0.0, 0.0, True, f"{total}; {listed}{left_out}")


def _differences(expected: Simulation, found: Simulation) -> dict[str, int]:
    """Neurons with another count, by layer."""
    result = {}
    for name, spikes in found.spikes.items():
        wanted = expected.spikes[name][:, : spikes.shape[1]]
        counts = [np.count_nonzero(each, axis=0) for each in (wanted, spikes)]
        result[name] = int(np.count_nonzero(counts[0] != counts[1]))
    return result
