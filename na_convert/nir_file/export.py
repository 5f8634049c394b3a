"""An SNN file as a NIR file: lowered, written, read back and checked; no file if a check fails."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, forms, model_io, whole_files
from ..arguments import at_least, one_of
from ..batches import samples_at_once
from ..choices import MEMBRANES, NIR_SUFFIX, NIR_TARGETS, is_nir
from ..data import Preprocessing, Samples
from ..errors import NotConvertible, UsageError
from ..exactness import EXACT
from ..passes import unit_spikes
from ..reading import Data, Progress, model_info, samples_for, silent
from ..results import ModelInfo, NirExport, NirLayer, OutputInfo, PassReport
from ..rungs import failure
from ..simulation import fixed_batch
from ..snn import SOURCE_SHA256, Snn
from . import file, outside, targets, verification
from .encoding import Encoded, encode, on_grid
from .lowering import lower
from .maxima import MAXIMA
from .network import Array, Network, Node
from .pulse import LONGEST, with_pulses
from .read_back import from_graph

SAMPLES = 8  # that the file is checked on, at most
_COPIES = 6  # float32 values per neuron and step: the spikes of three networks in float64
_NEURON = "soft reset: v += current; spike = v >= v_threshold; v -= v_threshold * spike"
_OUTPUT = "the mean of the Output over the time steps is what the ANN gives"


def export(
    snn: str | Path,
    *,
    output: str | Path | None = None,
    target: str = "generic",
    timesteps: int | None = None,
    initial_membrane: str | None = None,
    data: Data | None = None,
    preprocessing: Preprocessing | None = None,
    progress: Progress | None = None,
) -> NirExport:
    """Write the SNN file ``snn`` as a NIR file, and check that file against it.

    Args:
        output: where to write; the SNN's name with ``.nir`` by default.
        target: the reader it is for, one of `choices.NIR_TARGETS`.
        timesteps: T that the file is checked at and says it was made for; by default the SNN's own.
            Max-pools in it count up to T, and with the membrane "bias" the charge is spread over T
            steps; "pulse" lasts for up to 1,023. Its nodes depend on T in nothing else.
        initial_membrane: how the file holds it, one of `choices.MEMBRANES`; by default the first.
        data: samples to check on; seeded random input by default.

    Raises:
        UsageError, ModelError, DataError: something given cannot be used (exit code 2).
        NotConvertible: nodes that NIR, or the target, cannot hold, in ``refused`` (exit code 1).
        CheckFailed: the file does not do what the SNN does; nothing was written (exit code 1).
    """
    path = Path(snn)
    chosen = check_options(target, initial_membrane, timesteps)
    to = Path(output) if output is not None else _default(path)
    if not is_nir(to):
        raise UsageError(f"-o {to}: a NIR file's name ends in .nir", remedy="rename it")
    loaded = model_io.load(path)
    info, samples = model_info(loaded), samples_for(loaded, data, preprocessing)
    form = forms.form_of(loaded.model)
    if isinstance(form, forms.Int8Form):
        raise NotConvertible(
            f"{path}: an int8 file computes on counts of spikes, and NIR on spikes",
            remedy="-o NAME.npz writes its integers; for NIR convert without --weights int8",
        )
    network = form.read(loaded.model)
    return write_network(
        network, info, samples, to, target=target, membrane=chosen, timesteps=timesteps,
        progress=progress,
    )  # fmt: skip


def check_options(target: str, initial_membrane: str | None, timesteps: int | None) -> str:
    """How the initial membrane is written; raises UsageError where an option is none of its
    choices, or the package ``nir`` is missing."""
    one_of(target, "--target", NIR_TARGETS)
    chosen = one_of(initial_membrane or MEMBRANES[0], "--initial-membrane", MEMBRANES)
    at_least(timesteps, 1, "-T")
    file.require()
    return chosen


def write_network(
    network: Snn,
    info: ModelInfo,
    samples: Samples,
    to: Path,
    *,
    target: str,
    membrane: str,
    timesteps: int | None = None,
    progress: Progress | None = None,
) -> NirExport:
    """As `export`, for a network in memory; ``info`` says what it comes from."""
    start, tell = time.perf_counter(), progress or silent
    tell("exporting", 0.1)
    _require_free_batch(network)
    rows = _rows(network, timesteps or network.timesteps)
    few = {name: np.asarray(values[:rows]) for name, values in samples.feeds.items()}
    two = {name: np.resize(values, (2, *values.shape[1:])) for name, values in few.items()}
    network, scaled = _unit(network, two, info.path)
    original = replace(network, timesteps=timesteps or network.timesteps)
    encoded = encode(original, membrane)
    lowered = lower(encoded.snn, two)
    pools = _pools(lowered)
    if pools and membrane == "bias":
        raise NotConvertible(
            f"{pools[0].onnx!r} are neurons that fire once, which a bias would make fire again",
            node=pools[0].onnx,
            remedy="--initial-membrane metadata or pulse",
        )
    if membrane == "pulse":
        _require_short(original.timesteps)
        lowered = with_pulses(lowered)
    targets.refuse_unreadable(lowered, target)
    feeds = {name: on_grid(each, encoded.grids.get(name, 0)) for name, each in few.items()}
    with whole_files.atomic_file(to) as part:
        statements = _statements(lowered, encoded, membrane, target, original.timesteps)
        metadata = _metadata(lowered, encoded, membrane, target, statements)
        file.write(lowered, metadata, part)
        tell("verifying", 0.5)
        read = from_graph(file.read(part), str(to))
        x = outside.input_values(read.metadata, few, str(to))
        exact = EXACT in network.carried.metadata and membrane != "bias" and not scaled.changed
        spikes = verification.spikes_of(encoded.snn, feeds)
        found = verification.compare(read, lowered, encoded.snn, spikes, x, feeds, exact=exact)
        error = failure(found.figures)
        if error is not None:
            raise error
        own = verification.spikes_of(original, few) if encoded.changed else spikes
        differs = verification.deviation(found, original, own, few, encoded.pooled)
        data = part.read_bytes()
    tell("done", 1.0)
    return NirExport(
        snn=info,
        target=target,
        timesteps=original.timesteps,
        initial_membrane=membrane,
        layers=tuple(
            NirLayer(name, node, lowered.nodes[node].shape) for name, node in lowered.layers.items()
        ),
        statements=statements,
        figures=found.figures,
        other_counts=differs.counts,
        agreement=differs.agreement,
        data=samples.description,
        samples=len(x),
        output=OutputInfo(
            str(to), len(data), hashlib.sha256(data).hexdigest(),
            dict(sorted(Counter(node.kind for node in lowered.nodes.values()).items())),
        ),
        notes=samples.notes,
        seconds=time.perf_counter() - start,
    )  # fmt: skip


def _unit(network: Snn, few: dict[str, Array], path: str) -> tuple[Snn, PassReport]:
    """``network`` with thresholds and spikes of 1."""
    try:
        return unit_spikes.run(network, few)
    except NotConvertible as found:
        if EXACT not in network.carried.metadata:
            raise
        raise NotConvertible(
            f"{path}: is on grids that were not made for spikes of 1 ({found.message})",
            node=found.node,
            remedy="convert the ANN with --unit-spikes, or with -o NAME.nir at once",
        ) from found


def _default(path: Path) -> Path:
    return path.with_name(f"{path.name.removesuffix('.onnx').removesuffix('.snn')}{NIR_SUFFIX}")


def _rows(network: Snn, timesteps: int) -> int:
    """As many samples as fit into memory with the spikes of all layers, a few times over."""
    neurons = sum(prod(neuron.shape) for neuron in network.neurons)
    return min(SAMPLES, samples_at_once(neurons, _COPIES * timesteps))


def _pools(network: Network) -> list[Node]:
    """The neurons of max-pools."""
    return [node for node in network.nodes.values() if node.onnx.startswith(MAXIMA)]


def _require_short(timesteps: int) -> None:
    if timesteps > LONGEST:
        raise UsageError(
            f"-T {timesteps}: a pulse at the first step lasts for up to {LONGEST} steps",
            remedy="--initial-membrane metadata",
        )


def _require_free_batch(network: Snn) -> None:
    size = fixed_batch(network)
    if size is not None:
        raise NotConvertible(
            f"the SNN takes batches of {size} alone, and a NIR graph one sample",
            remedy="export the ANN with a free batch size",
        )


def _statements(
    network: Network, encoded: Encoded, membrane: str, target: str, timesteps: int
) -> tuple[str, ...]:
    """What is left to whoever runs the file, and what the target does differently."""
    where = targets.TARGETS[target].start
    start = {
        "metadata": (
            "set each IF node's membrane before the first step to half its threshold "
            f"({where or 'metadata initial_membrane'}); at 0 the network is not the one that was "
            "trained"
        ),
        "pulse": (
            "membranes start at 0 and get half a threshold at the first step, from two neurons per "
            "pixel that fire at every step (nodes 'start...'); this needs reset by subtraction "
            f"and lasts for up to {LONGEST:,} time steps"
        ),
        "bias": (
            f"made for exactly {timesteps} time steps: half a threshold is added to each membrane "
            f"in {timesteps} equal parts, not before the first step; counts of a layer whose "
            "current changes over time differ from the SNN's"
        ),
    }[membrane]
    if _pools(network):
        start += (
            f"; made for up to {timesteps} time steps: max-pools are neurons that fire once for "
            "each count, and whose membranes start elsewhere"
        )
    differences = targets.statements(network, target)
    return (
        start,
        *_on_grid(network, encoded),
        *encoded.statements,
        *network.statements,
        *differences,
    )


def _on_grid(network: Network, encoded: Encoded) -> Iterator[str]:
    """What the Input has to be, where that is the network's own input."""
    if network.input in encoded.grids:
        exponent = int(np.log2(encoded.grids[network.input]))
        yield (
            f"give multiples of 2^{exponent} as input {network.input!r}: the SNN rounds its input "
            "to that, NIR cannot"
        )


def _metadata(
    network: Network,
    encoded: Encoded,
    membrane: str,
    target: str,
    statements: tuple[str, ...],
) -> Mapping[str, Any]:
    """Of the graph; strings and numbers, as HDF5 holds them."""
    return {
        "tool": f"na-convert {__version__}",
        "ann_sha256": encoded.snn.carried.metadata.get(SOURCE_SHA256, ""),
        "timesteps": encoded.snn.timesteps,
        "target": target,
        "neuron": _NEURON,
        "initial_membrane": membrane,
        "output": _OUTPUT,
        "statements": "\n".join(statements),
        **outside.described(encoded, network),
    }
