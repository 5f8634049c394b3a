"""A simulation of any length to one ``.npz``, with bounded memory; accuracy on the way.

Arrays of the file, N samples and T time steps (layers for which a network makes rows of a sample's
parts, as of tokens or frames, have these rows in place of samples):

====================  ==============================================================================
``outputs/NAME``      [T, N, ...]: the network's output after 1, 2, ... T steps
``labels``            int64 [N], where the data has them
``spikes/LAYER``      uint8 [T, N, ...]: 1 where a neuron of a recorded layer fired
``counts/LAYER``      uint32 [N, ...]: its spikes after T steps
``membranes/LAYER``   [T, N, ...]: its membrane after each step
``threshold/LAYER``   what its membrane has to reach; one number, or one per channel [C, 1, ...]
``amplitude/LAYER``   what one spike is worth, likewise
====================  ==============================================================================
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray

from .data import Samples
from .errors import DataError
from .results import ArrayInfo, SimulatedLayer, SimulatedTimestep
from .saturation import is_probability
from .simulation import Simulation, fixed_batch, membranes
from .simulator import Simulator
from .statistics import predictions
from .whole_files import atomic_file

Array: TypeAlias = NDArray[Any]

_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file inside: same input, same bytes


def record(
    simulator: Simulator,
    samples: Samples,
    timesteps: int,
    *,
    output: Path | None = None,
    batch: int | None = None,
    watch: Callable[[Mapping[str, Array]], None] = lambda feeds: None,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[tuple[SimulatedTimestep, ...], tuple[SimulatedLayer, ...], tuple[ArrayInfo, ...]]:
    """Run ``samples`` batch by batch; accuracy at each T, spike rates, and what was written.

    ``output`` appears whole or not at all. One batch is in memory at a time, and ``watch`` is shown
    it.

    Raises DataError where the samples do not fill the batches that the model fixes.
    """
    size, count = simulator.batch_size(timesteps, batch), len(samples)
    if fixed_batch(simulator.model) and count % size:
        raise DataError(f"{count} samples do not fill batches of {size}, which the model fixes")
    correct = np.zeros(timesteps, np.int64)
    fits = samples.labels is not None
    spikes = dict.fromkeys(simulator.recorded, 0)
    with _writer(output, count) as arrays:
        if arrays is not None and samples.labels is not None:
            arrays.put("labels", samples.labels, 0, count, axis=0)
        neuron_steps = dict.fromkeys(simulator.recorded, 0)
        for start in range(0, count, size):
            rows = {name: np.asarray(v[start : start + size]) for name, v in samples.feeds.items()}
            watch(rows)
            run = simulator.run(rows, timesteps, batch=size)
            if fits and samples.labels is not None:
                hits = _correct(run, simulator, samples.labels[start : start + size])
                fits = hits is not None
                correct += 0 if hits is None else hits
            for name in simulator.recorded:
                spikes[name] += int(np.count_nonzero(run.spikes[name]))
                neuron_steps[name] += run.spikes[name].size
            if arrays is not None:
                _put(arrays, simulator, run, start, min(size, count - start))
            progress(min(1.0, (start + size) / count))
        written = arrays.infos if arrays is not None else ()
    accuracy = [float(hits / count) if fits else None for hits in correct]
    return (
        tuple(SimulatedTimestep(t + 1, share) for t, share in enumerate(accuracy)),
        tuple(_layer(simulator, name, spikes[name] / neuron_steps[name]) for name in spikes),
        written,
    )


def _correct(run: Simulation, simulator: Simulator, labels: Array) -> Array | None:
    """Hits at each T; None where the first output holds no class per sample."""
    output, sigmoid = simulator.outputs[0], is_probability(simulator.network.graph)
    found = [
        predictions(outputs[output], sigmoid=sigmoid) for _, outputs in sorted(run.outputs.items())
    ]
    if any(classes.shape != labels.shape for classes in found):
        return None
    return np.asarray([np.count_nonzero(classes == labels) for classes in found])


def _layer(simulator: Simulator, name: str, rate: float) -> SimulatedLayer:
    (neuron,) = (n for n in simulator.network.neurons if n.name == name)
    return SimulatedLayer(name, neuron.shape, rate)


def _put(arrays: _Arrays, simulator: Simulator, run: Simulation, first: int, count: int) -> None:
    """``count`` samples, from the one number ``first`` on."""
    for name in simulator.outputs:
        steps = [outputs[name] for _, outputs in sorted(run.outputs.items())]
        arrays.put(f"outputs/{name}", np.stack(steps), first, count)
    for name in simulator.recorded:
        fired, neuron = run.spikes[name] != 0, simulator.parameters(name)
        arrays.put(f"spikes/{name}", fired.astype(np.uint8), first, count)
        arrays.put(f"counts/{name}", fired.sum(axis=0, dtype=np.uint32), first, count, axis=0)
        held = membranes(run.currents[name], run.spikes[name], neuron)
        arrays.put(f"membranes/{name}", held, first, count)
        if not first:
            arrays.whole(f"threshold/{name}", neuron.threshold)
            arrays.whole(f"amplitude/{name}", neuron.amplitude)


class _Arrays:
    """Arrays that grow along one axis, in files of ``folder`` until they are packed."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count
        self._open: dict[str, Any] = {}

    def put(self, name: str, values: Array, first: int, count: int, axis: int = 1) -> None:
        """Of ``count`` samples, from the one number ``first`` on, which lie along ``axis``."""
        each = values.shape[axis] // count
        if name not in self._open:
            shape = (*values.shape[:axis], self._count * each, *values.shape[axis + 1 :])
            self._open[name] = self._create(name, shape, values.dtype)
        rows = slice(first * each, (first + count) * each)
        self._open[name][(*[slice(None)] * axis, rows)] = values

    def whole(self, name: str, values: Array) -> None:
        self._open[name] = self._create(name, values.shape, values.dtype)
        self._open[name][...] = values

    @property
    def infos(self) -> tuple[ArrayInfo, ...]:
        return tuple(ArrayInfo(n, str(a.dtype), a.shape) for n, a in sorted(self._open.items()))

    def pack(self, target: Path) -> None:
        """Everything into one compressed ``.npz``."""
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in sorted(self._open.items()):
                array.flush()
                info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                with (
                    Path(array.filename).open("rb") as file,
                    archive.open(info, "w", force_zip64=True) as packed,
                ):
                    shutil.copyfileobj(file, packed, 1 << 20)

    def _create(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        return open_memmap(self._folder / f"{len(self._open)}.npy", "w+", dtype, shape)


@contextmanager
def _writer(output: Path | None, count: int) -> Iterator[_Arrays | None]:
    """Arrays that become the file ``output`` when the block ends without error; None without."""
    if output is None:
        yield None
        return
    with atomic_file(output) as part:
        arrays = _Arrays(part.parent, count)
        yield arrays
        arrays.pack(part)
