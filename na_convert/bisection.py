"""The place where an SNN and its ANN part: the layer, and both networks cut down to it.

Written are two models and what they are fed, which anyone can run: ``ann.onnx`` from the
activations of the layers before to this layer's, ``snn.onnx`` from their spikes to the mean of this
layer's over time; ``ann.npz`` and ``snn.npz`` hold the inputs of one sample, under the inputs'
names. The two outputs should be equal, and are not.

Where the ladder broke, the SNN's part is fed what the replay feeds it: the ANN's activations, the
same at every step, for as many steps as the layer has levels. Where only the spikes' arrival is bad
(`diagnosis`), it is fed the spikes themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from . import model_writing, neurons
from .activation import Staircase
from .batches import rows
from .behaviour import Stages
from .cut import part_of
from .data import Samples
from .errors import UsageError
from .forms import folded
from .graph import Parts, export_parts
from .layers import Layer, reference_values, sources, split_by_owner
from .results import Equivalence
from .running import file_engine, form_name
from .runtime import session, values_of
from .snn import TIMESTEPS
from .teacher_forcing import runner
from .whole_files import atomic_folder

Array: TypeAlias = NDArray[Any]

SAMPLES = 16  # the one among so many on which most neurons differ is written


@dataclass(frozen=True)
class _Part:
    """A cut model and what it is fed: N samples, the ``spikes`` time-major ``[steps * N, ...]``."""

    model: Parts
    feeds: dict[str, Array]
    spikes: frozenset[str]
    steps: int

    def of_sample(self, index: int) -> dict[str, Array]:
        """What is fed for one sample."""
        feeds = {}
        for name, value in self.feeds.items():
            if name in self.spikes:
                in_time = value.reshape(self.steps, -1, *value.shape[1:])
                feeds[name] = np.ascontiguousarray(in_time[:, index])
            else:
                feeds[name] = value if name == TIMESTEPS else value[index : index + 1]
        return feeds


def check_folder(folder: Path) -> None:
    """Raises UsageError where ``folder`` cannot be made, or holds something already."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UsageError(f"--bisect {folder}: exists already", remedy="give a new folder")
    if not folder.absolute().parent.is_dir():
        raise UsageError(
            f"--bisect {folder}: no such folder {folder.parent}", remedy="create it first"
        )


def write_bisection(stages: Stages, samples: Samples, found: Equivalence, folder: Path) -> str:
    """Write the four files into ``folder``, whole or not at all; what was found, in a line.

    Raises UsageError where the folder cannot be written.
    """
    index, broken = _where(stages, found)
    if index is None:
        return "bisect: no layer differs beyond its limit, so nothing was written"
    layer = stages.layers[index]
    feeds = rows(samples.feeds, 0, SAMPLES)
    if not stages.runs_in_onnxruntime():
        return "bisect: onnxruntime does not run this file, so nothing was written"
    ann, snn, expected = _parts(stages, layer, feeds, constant=broken)
    runner = session(snn.model)
    (mean,) = values_of(runner, [o.name for o in runner.get_outputs()], snn.feeds)
    del runner
    worst, count, size = _compare(layer, expected, mean)
    _write(folder, ann, snn, worst)
    return (
        f"bisect: {layer.name!r} is the first layer that differs beyond its limit: in sample "
        f"{worst} {count} of {layer.size} neurons, by up to {size:.3g} amplitudes, at T = "
        f"{snn.steps}; {folder} holds both networks around it, and their inputs"
    )


def _where(stages: Stages, found: Equivalence) -> tuple[int | None, bool]:
    """The index of the layer, and whether the ladder broke there."""
    names = [layer.name for layer in stages.layers]
    failed = [f for f in found.figures if not f.passed and f.check != "baseline"]
    broken = [names.index(f.node) for f in failed if f.node in names]
    if broken:
        return min(broken), True
    bad = found.diagnosis.first_bad if found.diagnosis else None
    return (names.index(bad) if bad in names else None), False


# --- the two parts --------------------------------------------------------------------------------


def _parts(
    stages: Stages, layer: Layer, feeds: Mapping[str, Array], *, constant: bool
) -> tuple[_Part, _Part, Array]:
    """Both networks around ``layer``, and what the ANN says there."""
    before = sources(stages.network, stages.layers)[layer.name]
    outputs = [each.neuron.output for each in before]
    own, others = split_by_owner(stages.ann, [*outputs, layer.neuron.output])
    carried = stages.network.carried
    values = reference_values(
        runner(stages.ann, carried, (), own),
        runner(stages.staircase_ann, carried, own, others),
        feeds,
    )
    given = {**feeds, **values}
    source = stages.staircase_ann if others else stages.ann
    model = export_parts(source.copy(), carried)
    ann = _ann_part(model, outputs, layer.neuron.output, given)
    steps = stages.network.timesteps
    if constant:
        steps = layer.function.levels if isinstance(layer.function, Staircase) else steps
        spikes = {
            each.spikes: _repeated(values[each.neuron.output] - each.expected.output_offset, steps)
            for each in before
        }
    else:
        run = file_engine(stages.file, steps, [each.name for each in before])(feeds)
        spikes = {each.spikes: _folded(run.spikes[each.name]) for each in before}
    dtype = layer.dtype
    typed = {name: value.astype(dtype) for name, value in spikes.items()}
    snn = _snn_part(stages, layer, {**feeds, **typed}, frozenset(spikes), steps)
    return ann, snn, values[layer.neuron.output]


def _snn_part(
    stages: Stages, layer: Layer, values: Mapping[str, Array], spikes: frozenset[str], steps: int
) -> _Part:
    """To the mean of the layer's output over the steps, its offset added: what the ANN says."""
    whole = form_name(stages.file) == folded.FORM
    model = stages.file if whole else folded.folded_parts(stages.network)
    offset = np.asarray(layer.expected.output_offset, layer.dtype)
    mean, moved, result = (f"{layer.spikes}/{name}" for name in ("mean", "offset", "output"))
    value = onnx.numpy_helper.from_array(offset, moved)
    added = [
        onnx.helper.make_node("Constant", [], [moved], value=value),
        onnx.helper.make_node("Decode", [layer.spikes, TIMESTEPS], [mean], domain=neurons.DOMAIN),
        onnx.helper.make_node("Add", [mean, moved], [result]),
    ]
    given = {**values, TIMESTEPS: np.asarray(steps, np.int64)}
    part, names = part_of(model, set(spikes), [result], given, added)
    opset = next(i.version for i in part.light.opset_import if i.domain in ("", "ai.onnx"))
    if not any(f.name == "Decode" for f in part.light.functions):
        part.light.functions.append(neurons.function("Decode", opset))
    _typed(part.light, layer.dtype, len(layer.neuron.shape) + 1)
    return _Part(part, {name: np.asarray(given[name]) for name in names}, spikes, steps)


def _ann_part(model: Parts, cuts: list[str], output: str, values: Mapping[str, Array]) -> _Part:
    part, names = part_of(model, set(cuts), [output], values)
    _typed(part.light, values[output].dtype, values[output].ndim)
    return _Part(part, {name: np.asarray(values[name]) for name in names}, frozenset(), 1)


def _typed(part: onnx.ModelProto, dtype: np.dtype[Any], ndim: int) -> None:
    """Give the one output of ``part`` its type, as a model that is written needs."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    sizes: list[int | None] = [None] * ndim
    name = part.graph.output[0].name
    part.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(name, kind, sizes))


def _repeated(values: Array, steps: int) -> Array:
    return np.concatenate([values] * steps)


def _folded(spikes: Array) -> Array:
    return spikes.reshape(-1, *spikes.shape[2:])


# --- the sample that shows it ---------------------------------------------------------------------


def _compare(layer: Layer, expected: Array, mean: Array) -> tuple[int, int, float]:
    """The sample on which most neurons differ, how many, and by how much, in amplitudes."""
    amplitude = np.abs(np.asarray(layer.expected.amplitude, np.float64))
    gap = np.abs(np.asarray(expected, np.float64) - mean) / amplitude
    differs = (gap > max(layer.half_level, 1e-3)).reshape(len(gap), -1).sum(axis=1)
    worst = int(np.argmax(differs))
    return worst, int(differs[worst]), float(gap[worst].max())


def _write(folder: Path, ann: _Part, snn: _Part, sample: int) -> None:
    with atomic_folder(folder) as made:
        for name, part in (("ann", ann), ("snn", snn)):
            model_writing.save(part.model, made / f"{name}.onnx")
            arrays: dict[str, Any] = part.of_sample(sample)
            np.savez(made / f"{name}.npz", **arrays)
