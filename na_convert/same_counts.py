"""The file in every engine at hand: on grids (`passes.snap`) each must count the same spikes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .layers import Layer
from .onnx_reference import reference
from .results import Figure
from .rungs import Entry, rung
from .running import file_runner
from .runtime import Backend, Model, session
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
    network: Snn, file: Model, layers: Sequence[Layer], feeds: Mapping[str, Array]
) -> Figure:
    """Counts of all layers in numpy, onnxruntime in three settings, and onnx.reference (on one
    sample, where that is not too slow): how many differ from onnxruntime's own settings."""
    names, steps = [layer.name for layer in layers], network.timesteps
    few = {name: values[:SAMPLES] for name, values in feeds.items()}
    expected = _counts(file_runner(file, names)(few, steps))
    found = {
        name: _counts(file_runner(file, names, backend=backend)(few, steps))
        for name, backend in ENGINES.items()
    }
    found["numpy"] = _counts(numpy_engine(network, steps, names)(few))
    neurons = steps * sum(layer.size for layer in layers)
    if neurons <= REFERENCE_NEURONS:
        one = {name: values[:1] for name, values in few.items()}
        run = file_runner(file, names, backend=reference)
        found["onnx.reference"] = _counts(run(one, steps))
    entries = [
        Entry(count, 0, f"layer {layer!r}: {count} counts differ in {engine}", layer)
        for engine, counts in found.items()
        for layer, count in _differences(expected, counts).items()
    ]
    figure = rung("same counts", entries)
    if not figure.passed:
        return figure
    left_out = "" if "onnx.reference" in found else "; onnx.reference left out: it would take long"
    total = f"{len(layers)} layers, {len(next(iter(few.values())))} samples"
    listed = ", ".join(found)
    return Figure("same counts", 0.0, 0.0, True, f"{total}; {listed}{left_out}")


def _counts(run: Simulation) -> dict[str, Array]:
    """By layer, the spikes of each neuron: of all that was recorded, only that is kept."""
    return {name: np.count_nonzero(spikes, axis=0) for name, spikes in run.spikes.items()}


def _differences(expected: Mapping[str, Array], found: Mapping[str, Array]) -> dict[str, int]:
    """Neurons with another count, by layer; ``found`` may be of fewer samples."""
    return {
        name: int(np.count_nonzero(expected[name][: len(counts)] != counts))
        for name, counts in found.items()
    }
