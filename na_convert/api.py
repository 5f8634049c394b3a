"""The Python API: `convert`, `inspect`, `check`, `simulate`, `record`, `export` and
`export_integers`; the command line uses it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from . import model_io, pipeline, recording
from .conversion import convert
from .data import Preprocessing
from .early_exit import run_until_decided
from .equivalence import check
from .errors import UsageError
from .forms import folded
from .hardware.export import export_integers
from .input_range import beyond_the_proof, merged, proven_inputs, ranges_of
from .nir_file.export import export
from .reading import Data, Labels, Progress, model_info, samples_for, silent
from .results import ArrayInfo, EarlyExit, InputRange, Result, SimulatedLayer, SimulationResult
from .simulator import Simulator

if TYPE_CHECKING:
    from .explanation import Explanation
    from .simulation import Simulation

__all__ = [
    "check", "convert", "explain", "export", "export_integers", "inspect", "record", "simulate",
]  # fmt: skip


def inspect(
    model: str | Path,
    *,
    timesteps: int | None = None,
    data: Data | None = None,
    preprocessing: Preprocessing | None = None,
    readout_from: str | None = None,
) -> Result:
    """What `convert` would do with ``model``: neurons, passes and refusals; writes nothing.

    ``data`` is needed only where the model leaves the size of its inputs open.

    Raises UsageError, ModelError (exit code 2); NotConvertible if there is no activation at all.
    """
    start = time.perf_counter()
    loaded = model_io.load(Path(model))
    info, samples = model_info(loaded), samples_for(loaded, data, preprocessing)
    options = pipeline.Options(timesteps=timesteps, readout_from=readout_from)
    converted = pipeline.convert(loaded, samples.feeds, options, check=False)
    snn = converted.snn
    return Result(
        model=info,
        timesteps=snn.timesteps if snn else 0,
        form=folded.FORM,
        neurons=snn.neurons if snn else (),
        refused=converted.refused,
        passes=converted.reports,
        equivalence=None,
        output=None,
        passed=snn is not None,
        notes=converted.notes,
        seconds=time.perf_counter() - start,
    )


def explain(model: str | Path, node: str) -> Explanation:
    """Why ``node`` (a node's or tensor's name) of ``model`` was or was not read as an activation.

    Raises UsageError if there is no such node once BatchNorm and constants are folded, ModelError.
    """
    loaded = model_io.load(Path(model))
    return pipeline.explain(loaded, node)


def simulate(
    snn: str | Path,
    *,
    data: Data,
    timesteps: int | None = None,
    labels: Labels | None = None,
    preprocessing: Preprocessing | None = None,
    record: Sequence[str] = (),
    batch: int | None = None,
    threads: int = 0,
) -> Simulation:
    """Run the SNN file ``snn`` on ``data`` for every T from 1 to ``timesteps`` (its default T).

    Everything is returned in memory; `record` writes to a file instead.

    Args:
        record: neuron layers whose currents and spikes are kept, by name or pattern (``*``).
        batch: samples that run together; by default as many as fit into 256 MB, at most 64.
        threads: of onnxruntime; 0 leaves the choice to it.
    """
    loaded = model_io.load(Path(snn))
    simulator = Simulator(loaded.model, record=record, threads=threads)
    samples = samples_for(loaded, data, preprocessing, labels)
    return simulator.run(samples.feeds, timesteps, batch=batch)


def record(
    snn: str | Path,
    *,
    data: Data,
    timesteps: int | None = None,
    output: str | Path | None = None,
    layers: Sequence[str] = (),
    labels: Labels | None = None,
    preprocessing: Preprocessing | None = None,
    batch: int | None = None,
    threads: int = 0,
    early_exit: float | None = None,
    progress: Progress | None = None,
) -> SimulationResult:
    """Run the SNN file ``snn`` on ``data``, batch by batch, and write what it did to ``output``.

    Args:
        timesteps: T; the file's default T by default.
        output: an ``.npz`` (`recording` has its layout); without it only accuracy is measured.
        layers: neuron layers whose spikes, counts and membranes are kept, by name or pattern.
        batch: samples that run together, which bounds the memory; by default as many as fit into
            256 MB, at most 64.
        threads: of onnxruntime; 0 leaves the choice to it.
        early_exit: a sample stops when the margin between the two largest entries of the output
            reaches this; nothing can be written then.

    Raises UsageError, ModelError, DataError: something given cannot be used (exit code 2).
    """
    start = time.perf_counter()
    if early_exit is not None and (output is not None or layers):
        raise UsageError(
            "--early-exit writes nothing: samples stop at different T", remedy="leave out -o"
        )
    loaded = model_io.load(Path(snn))
    info = model_info(loaded)
    simulator = Simulator(loaded.model, record=layers, threads=threads)
    samples = samples_for(loaded, data, preprocessing, labels)
    steps = simulator.timesteps if timesteps is None else timesteps
    tell = progress or silent
    recorded: tuple[SimulatedLayer, ...] = ()
    arrays: tuple[ArrayInfo, ...] = ()
    decided: EarlyExit | None = None
    proven, ranges = proven_inputs(simulator.network), list[InputRange]()

    def watch(feeds: Mapping[str, NDArray[np.generic]]) -> None:
        ranges[:] = merged(ranges, ranges_of(proven, feeds))

    if early_exit is None:
        by_timestep, recorded, arrays = recording.record(
            simulator,
            samples,
            steps,
            output=None if output is None else Path(output),
            batch=batch,
            watch=watch,
            progress=lambda share: tell("simulating", share),
        )
    else:
        decided, by_timestep = run_until_decided(
            simulator,
            samples,
            early_exit,
            steps,
            batch=batch,
            threads=threads,
            watch=watch,
            progress=lambda share: tell("simulating", share),
        )
    return SimulationResult(
        model=info,
        data=samples.description,
        samples=len(samples),
        timesteps=steps,
        by_timestep=by_timestep,
        recorded=recorded,
        path=None if output is None else str(output),
        arrays=arrays,
        notes=(*samples.notes, *beyond_the_proof(simulator.network, ranges, steps)),
        seconds=time.perf_counter() - start,
        early_exit=decided,
        input_ranges=tuple(ranges),
    )
