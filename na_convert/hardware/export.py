"""An int8 SNN file as an ``.npz`` or a C header: lowered, checked against the network, written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .. import forms, integer, model_io, whole_files
from ..batches import rows
from ..choices import HARDWARE_FILES, is_for_hardware
from ..data import Preprocessing
from ..errors import CheckFailed, UsageError
from ..evaluate import evaluate
from ..forms.int8_file import KEY, restore
from ..integer import IntegerNetwork
from ..integer_check import affordable
from ..reading import Data, samples_for
from ..snn_guard import described_as_it_is
from . import npz
from .execution import run
from .header import header
from .lowering import lower
from .program import Program

Array: TypeAlias = NDArray[Any]

SAMPLES = 4  # at most, that the program is checked on


@dataclass(frozen=True)
class HardwareExport:
    """A file for hardware, and how it was checked.

    Attributes:
        snn: the file it was made from; ``timesteps`` its T, up to which nothing overflows.
        layers: neuron layers; ``neurons`` in all of them, ``weights`` int8 in all of them.
        memory: counts of spikes, in bytes; ``currents``: numbers that the analog currents are.
        data, samples: that the program and the network were run on.
        compared: counts, all of them equal: every neuron, step and sample.
    """

    snn: str
    path: str
    bytes: int
    sha256: str
    timesteps: int
    layers: int
    neurons: int
    weights: int
    memory: int
    currents: int
    data: str
    samples: int
    compared: int


def export_integers(
    snn: str | Path,
    output: str | Path,
    *,
    data: Data | None = None,
    preprocessing: Preprocessing | None = None,
) -> HardwareExport:
    """Write the int8 SNN file ``snn`` for hardware: ``output`` ends in ``.npz``, or in ``.h`` (C).

    Before anything is written, the numbers are run in numpy beside the network on a few samples of
    ``data`` (seeded random input by default); every count has to be equal.

    Raises:
        UsageError, ModelError, DataError: something given cannot be used, for instance an SNN
            whose weights are floats (exit code 2).
        NotConvertible: a layer that the layout does not hold, by name (exit code 1).
        CheckFailed: other counts; nothing is written (exit code 1).
    """
    path, to = Path(snn), Path(output)
    if not is_for_hardware(to):
        raise UsageError(f"-o {to}: {' or '.join(HARDWARE_FILES)} is needed")
    loaded = model_io.load(path)
    if KEY not in {p.key for p in loaded.model.metadata_props}:
        raise UsageError(
            f"{path}: {to.suffix} holds whole numbers, and this SNN has none",
            remedy="make it with na-convert MODEL --weights int8",
        )
    forms.read(loaded.model)  # for its checks, of which `restore` makes none
    samples = samples_for(loaded, data, preprocessing)
    with described_as_it_is():
        network = restore(loaded.model)
        program = lower(network)
        few = rows(samples.feeds, 0, min(SAMPLES, affordable(network)))
        currents = currents_of(network, program, few)
        found = run(program, currents, network.timesteps)
        compared = _compare(network, few, found)
    with whole_files.atomic_file(to) as part:
        if to.suffix.lower() == ".npz":
            counts = {f"test/counts/{name}": each for name, each in _numbered(program, found)}
            tests = {"test/currents": currents, **counts}
            npz.write(program, path.name, part, tests)
            _require_same(program, tests, part, to)
        else:
            part.write_text(header(program, path.name), encoding="ascii")
        content = part.read_bytes()
    return HardwareExport(
        snn=str(path),
        path=str(to),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        timesteps=network.timesteps,
        layers=len(program.layers),
        neurons=sum(layer.size for layer in program.layers),
        weights=program.weights,
        memory=program.memory,
        currents=program.inputs,
        data=samples.description,
        samples=len(currents),
        compared=compared,
    )


def currents_of(
    network: IntegerNetwork, program: Program, feeds: dict[str, Array]
) -> NDArray[np.int32]:
    """The analog currents of samples [N, ...] as a program takes them: int32 [N, numbers]."""
    values = evaluate(network.snn.graph, feeds, network.analogs, dtype=np.float32)
    return from_tensors(program, values)


def from_tensors(program: Program, values: dict[str, Array]) -> NDArray[np.int32]:
    """The same from the float tensors that they are made of, [N, ...] by name."""
    parts = []
    for current in program.currents:
        x = values[current.tensor]
        units = integer.in_units(x, current.gain, current.low, current.high)
        parts.append(np.broadcast_to(units, (len(x), *current.shape)).reshape(len(x), -1))
    return np.concatenate(parts, axis=1).astype(np.int32)


def _numbered(program: Program, found: dict[str, Array]) -> list[tuple[int, Array]]:
    """Counts by the number of their operation."""
    names = {op.name: i for i, op in enumerate(program.operations)}
    return [(names[layer.name], found[layer.name]) for layer in program.layers]


def _compare(network: IntegerNetwork, feeds: dict[str, Array], found: dict[str, Array]) -> int:
    wanted = integer.run(network, feeds, network.timesteps).counts
    for layer, counts in wanted.items():
        differ = int(np.count_nonzero(counts != found[layer]))
        if differ:
            raise CheckFailed(
                f"layer {layer!r}: {differ} of {counts.size} counts are not the network's",
                node=layer,
                remedy="this is a defect of na-convert; please report it",
            )
    return sum(counts.size for counts in wanted.values())


def _require_same(program: Program, tests: dict[str, Array], part: Path, to: Path) -> None:
    """What was written to ``part`` says what was meant, in every number."""
    with np.load(part, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files if name.startswith("test/")}
    if not (_same(program, npz.read(part)) and _same(tests, found)):
        raise CheckFailed(f"{to}: reads back as another network")


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if is_dataclass(one):
        return all(_same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return bool(one == other)
