"""``na-convert check ANN net.nir``: a NIR file in every simulator at hand, beside its ANN."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .. import model_io, pipeline
from ..batches import rows, samples_at_once
from ..data import Preprocessing, Samples
from ..errors import CheckFailed, ModelError, UsageError
from ..nir_file import read_back
from ..nir_file.outside import INPUT, MODEL, input_values
from ..nir_file.read_back import Network
from ..nir_file.simulate import simulate
from ..nir_file.timesteps import timesteps_for
from ..reading import Data, Labels, Progress, samples_for, silent
from ..teacher_forcing import runner
from . import readers
from .compare import Comparison, compare, reference_for

Array: TypeAlias = NDArray[Any]

SAMPLES = 32  # enough for deviations of neurons to show; readers take seconds for each
_COPIES = 16  # float32 values per neuron and step: eight float64 arrays of two runs


@dataclass(frozen=True)
class Choices:
    """How often outputs choose the class that the ANN chooses, and the right one (None without
    labels); shares of the samples."""

    agreement: float
    accuracy: float | None


@dataclass(frozen=True)
class ReadersResult:
    """What `check_readers` found. ``missing`` are readers that are not installed, ``choices`` by
    reader (None where it gave no output of the network)."""

    ann: str
    nir: str
    data: str
    samples: int
    timesteps: int
    ann_accuracy: float | None
    reference: Choices
    comparisons: tuple[Comparison, ...]
    choices: tuple[Choices | None, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        return all(each.verdict in ("identical", "rounding") for each in self.comparisons)


def check_readers(
    ann: str | Path,
    nir_file: str | Path,
    *,
    data: Data,
    asked: str | None = None,
    timesteps: int | None = None,
    labels: Labels | None = None,
    preprocessing: Preprocessing | None = None,
    samples: int = SAMPLES,
    progress: Progress | None = None,
) -> ReadersResult:
    """Run a NIR file in other simulators, and compare each with our reference.

    Args:
        ann: the ANN, an ONNX file.
        nir_file: what ``na-convert export`` made of it.
        data: samples for the ANN; the first ``samples`` of them are run.
        asked: comma-separated names (`readers.NAMES`, or ``NAME:adjusted``); by default every
            reader that is installed, as it is.
        timesteps: how long to run; by default as long as the file says.

    Raises:
        UsageError, ModelError, DataError: something given cannot be used, the file is not right
            at that T, or a reader that was asked for is not installed (exit code 2).
    """
    start = time.perf_counter()
    tell = progress or silent
    network = read_back.read(Path(nir_file))
    _require_one_output(network, nir_file)
    chosen, missing = (readers.find(asked), []) if asked else readers.installed()
    if not chosen:
        raise UsageError(
            f"none of the readers is installed: {', '.join(missing)}",
            remedy="pip install nir and one of them",
        )
    steps = timesteps_for(network, nir_file, timesteps)
    lasting = _lasting(network, nir_file, steps)
    loaded = model_io.load(Path(ann))
    origin = _check_origin(network, loaded.sha256, nir_file, ann)
    found = samples_for(loaded, data, preprocessing, labels)
    few = rows(found.feeds, 0, samples)
    images = input_values(network.metadata, few, str(nir_file))
    expected = _ann_outputs(loaded, few, ann)
    _check_fit(network, images[:1], expected[:1], nir_file)
    tell("reference", 0.2)
    batches = _batches(network, images, steps)
    reference = reference_for(network, batches)
    compared = []
    for index, reader in enumerate(chosen):
        tell(reader.name, 0.3 + 0.7 * index / len(chosen))
        compared.append(compare(Path(nir_file), network, reader, reference))
    truth = None if found.labels is None else found.labels[: len(images)]
    ours = np.concatenate(reference.outputs)
    return ReadersResult(
        ann=str(ann),
        nir=str(nir_file),
        data=found.description,
        samples=len(images),
        timesteps=steps,
        ann_accuracy=_choices(expected, expected, truth).accuracy,
        reference=_choices(ours, expected, truth),
        comparisons=tuple(compared),
        choices=tuple(
            None if each.outputs is None else _choices(each.outputs, expected, truth)
            for each in compared
        ),
        missing=tuple(missing),
        notes=(*found.notes, *origin, *lasting, *_notes(network, found, len(images))),
        seconds=time.perf_counter() - start,
    )


def shortfall(result: ReadersResult) -> CheckFailed | None:
    """Why ``result`` did not pass, in one line; None if it did."""
    broken = [each for each in result.comparisons if each.verdict in ("deviates", "fails")]
    if not broken:
        return None
    said = [
        f"{each.reader} {each.verdict} ({each.causes[0].what if each.causes else each.error})"
        for each in broken
    ]
    return CheckFailed(
        f"{result.nir}: {'; '.join(said)}", remedy="docs/nir-readers.md says what helps"
    )


# --- what is run ----------------------------------------------------------------------------------


def _require_one_output(network: Network, path: str | Path) -> None:
    if len(network.outputs) > 1:
        raise ModelError(
            f"{path}: {len(network.outputs)} Output nodes; files with one are checked",
            remedy="export the ANN with the one output that is to be checked",
        )


def _check_origin(
    network: Network, sha256: str, path: str | Path, ann: str | Path
) -> tuple[str, ...]:
    """A note where the file does not say which ANN it is of; raises UsageError for another one."""
    said = network.metadata.get("ann_sha256")
    if not said:
        return (f"{path}: does not say which ANN it is made of; {ann} was taken on trust",)
    if said != sha256:
        raise UsageError(
            f"{path}: is made of another ANN than {ann}", remedy="export this ANN, or give its own"
        )
    return ()


def _lasting(network: Network, path: str | Path, steps: int) -> tuple[str, ...]:
    """A note where the file does not say for how long it was made."""
    if "timesteps" in network.metadata:
        return ()
    return (
        f"{path}: does not say for how many time steps it was made; T = {steps} was taken on trust",
    )


def _ann_outputs(loaded: model_io.Loaded, feeds: dict[str, Any], ann: str | Path) -> Array:
    found = pipeline.reference(loaded, feeds)
    names = [output.name for output in found.ann.outputs]
    if len(names) != 1:
        raise UsageError(
            f"{ann}: has {len(names)} outputs; NIR files of ANNs with one are checked",
            remedy="export the ANN with the one output that is to be checked",
        )
    return runner(found.ann, found.carried, (), names)(feeds)[names[0]]


def _check_fit(network: Network, image: Array, expected: Array, path: str | Path) -> None:
    """Raises ModelError where the file is not made for this ANN's inputs and outputs."""
    try:
        output = simulate(network, image[None]).output[0]
    except ValueError as found:
        raise ModelError(
            f"{path}: does not take the ANN's input {list(image.shape[1:])} ({found})",
            remedy="is it the export of this ANN?",
        ) from found
    if output.shape != expected.shape:
        raise ModelError(
            f"{path}: its output has the shape {list(output.shape[1:])}, the ANN's "
            f"{list(expected.shape[1:])}", remedy="is it the export of this ANN?",
        )  # fmt: skip


def _batches(network: Network, images: Array, steps: int) -> list[Array]:
    """The images at every time step, [T, n, ...] each, as many as the memory should hold."""
    one = simulate(network, images[None, :1])
    neurons = sum(prod(spikes.shape[2:]) for spikes in one.spikes.values())
    size = samples_at_once(neurons, _COPIES * steps)
    return [
        np.repeat(images[None, at : at + size], steps, axis=0) for at in range(0, len(images), size)
    ]


def _choices(outputs: Array, expected: Array, labels: Array | None) -> Choices:
    ours, theirs = (each.reshape(len(each), -1).argmax(axis=1) for each in (outputs, expected))
    accuracy = None if labels is None else float(np.mean(ours == labels))
    return Choices(float(np.mean(ours == theirs)), accuracy)


def _notes(network: Network, found: Samples, used: int) -> Iterator[str]:
    if MODEL in network.metadata:
        yield f"the Input takes {network.metadata[INPUT]!r}, computed by the file's own {MODEL}"
    if used < len(found):
        yield f"the first {used} of {len(found)} samples"
