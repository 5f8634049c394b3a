"""End to end: the SNN beside its ANN over all samples, at every T, in one pass.

The data stream by in batches, and what is kept are sums (`statistics`), so that memory does not
grow with the number of samples, and parts of the data can be measured apart and merged. The layers'
figures cost more than running the networks; they are taken on some of the batches, spread evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from . import kernels
from .batches import batch_size, rows
from .connectivity import pool_sources
from .counting import Counted, Counter, file_counter, numpy_counter
from .cut import Runner, runs_in_onnxruntime
from .data import Samples
from .input_range import merged, proven_inputs, ranges_of
from .layers import Layer, reference_values, split_by_owner
from .results import ClassResult, InputRange, TimestepResult
from .runtime import Model
from .saturation import is_probability
from .snn import Snn
from .statistics import (
    LayerCounts,
    OutputCounts,
    count_layer,
    count_outputs,
    merge_outputs,
    over_samples,
)
from .teacher_forcing import runner

Array: TypeAlias = NDArray[Any]
Progress: TypeAlias = Callable[[float], None]

ALL_SAMPLES = 1024  # up to so many, the layers' figures are taken on all samples
LAYER_SAMPLES = 256  # beyond, on about so many


@dataclass(frozen=True)
class Stages:
    """What is compared: the network at every stage of its conversion.

    Attributes:
        ann: as exported, BatchNorm and activations as they were.
        staircase_ann: after the passes, each activation one node.
        network: the SNN; ``file`` is its file, in any form.
    """

    ann: gs.Graph
    staircase_ann: gs.Graph
    network: Snn
    file: Model
    layers: tuple[Layer, ...]

    @property
    def output(self) -> str:
        """The network's first output, which is compared end to end."""
        return str(self.ann.outputs[0].name)

    def runs_in_onnxruntime(self) -> bool:
        return runs_in_onnxruntime(self.file)


@dataclass(frozen=True)
class Behaviour:
    """Sums over samples: for each T in order, and for each layer at the SNN's own T.

    ``pooled``: spikes behind each of `connectivity.pool_sources`, in order, of each element.
    ``inputs``: the samples beside the inputs that the SNN is proven for.
    """

    by_timestep: tuple[OutputCounts, ...]
    layers: tuple[LayerCounts, ...] = ()
    pooled: tuple[NDArray[np.int64], ...] = ()
    inputs: tuple[InputRange, ...] = ()

    def merged(self, other: Behaviour) -> Behaviour:
        """Of two parts of the data, together."""
        outputs = merge_outputs(self.by_timestep, other.by_timestep)
        inputs = merged(self.inputs, other.inputs)
        if not (self.layers and other.layers):
            layers, pooled = self.layers or other.layers, self.pooled or other.pooled
            return Behaviour(outputs, layers, pooled, inputs)
        layers = tuple(a.merged(b) for a, b in zip(self.layers, other.layers, strict=True))
        pooled = tuple(a + b for a, b in zip(self.pooled, other.pooled, strict=True))
        return Behaviour(outputs, layers, pooled, inputs)

    def results(self) -> tuple[TimestepResult, ...]:
        return tuple(counts.result() for counts in self.by_timestep)

    def classes(self, timesteps: int) -> tuple[ClassResult, ...]:
        """Class by class, after ``timesteps``."""
        return next(c.classes() for c in self.by_timestep if c.steps == timesteps)


@dataclass(frozen=True)
class Part:
    """One batch of the samples, ``start`` to ``stop``; on some the ``layers`` are measured too."""

    start: int
    stop: int
    layers: bool


Elsewhere: TypeAlias = Callable[[Sequence[Part], Progress], Behaviour]


def observe(
    stages: Stages,
    samples: Samples,
    steps: Sequence[int],
    progress: Progress = lambda share: None,
    elsewhere: Elsewhere | None = None,
) -> Behaviour:
    """Run both networks on all ``samples``, the SNN once for the largest of ``steps``.

    ``elsewhere`` does it in place of this process (`cluster.Cluster`): the same batches.
    """
    size = batch_size(stages.layers, copies=3 * max(steps))
    chosen = _measured(len(samples), size)
    starts = range(0, len(samples), size)
    parts = [
        Part(start, min(start + size, len(samples)), index in chosen)
        for index, start in enumerate(starts)
    ]
    if elsewhere is not None:
        return elsewhere(parts, progress)
    observer = Observer(stages, steps)
    found: list[Behaviour] = []
    for part in parts:
        found.append(observer.part(samples, part))
        found = [reduce(Behaviour.merged, found)]
        progress(part.stop / len(samples))
    return found[0]


def _measured(samples: int, size: int) -> set[int]:
    """The batches, by index, on which layers are measured: evenly spread, the first among them."""
    batches, wanted = -(-samples // size), max(1, LAYER_SAMPLES // size)
    if samples <= ALL_SAMPLES or batches <= wanted:
        return set(range(batches))
    return {index * batches // wanted for index in range(wanted)}


class Observer:
    """Both networks, ready to run on one batch after another."""

    def __init__(self, stages: Stages, steps: Sequence[int]) -> None:
        self._stages, self._steps = stages, steps
        self._counters = {layers: _counter(stages, max(steps), layers) for layers in (False, True)}
        self._plain = runner(stages.ann, stages.network.carried, (), [stages.output])
        self._whole = _reference(stages)
        self._pools = pool_sources(stages.network)
        self._proven = proven_inputs(stages.network)
        self._sigmoid = is_probability(stages.ann)

    def part(self, samples: Samples, part: Part) -> Behaviour:
        """Of one batch of ``samples``."""
        labels = None if samples.labels is None else samples.labels[part.start : part.stop]
        feeds = rows(samples.feeds, part.start, part.stop - part.start)
        return self(feeds, labels, layers=part.layers)

    def __call__(
        self, feeds: Mapping[str, Array], labels: NDArray[np.int64] | None, *, layers: bool
    ) -> Behaviour:
        """Of one batch; with the figures of the ``layers`` or without."""
        output, samples = self._stages.output, len(next(iter(feeds.values())))
        values = self._whole(feeds) if layers else self._plain(feeds)
        counted = self._counters[layers](feeds)
        return Behaviour(
            tuple(
                count_outputs(
                    t,
                    values[output],
                    counted.outputs[t][output],
                    labels,
                    sigmoid=self._sigmoid,
                )
                for t in self._steps
            ),
            self._layers(counted, values, samples) if layers else (),
            self._pooled(counted, samples) if layers else (),
            ranges_of(self._proven, feeds),
        )

    def _layers(
        self, counted: Counted, values: Mapping[str, Array], samples: int
    ) -> tuple[LayerCounts, ...]:
        return tuple(
            count_layer(
                layer,
                counted.counts[layer.name],
                counted.totals[layer.name],
                values[layer.neuron.output],
                values[layer.root],
                self._stages.network.timesteps,
                samples,
            )
            for layer in self._stages.layers
        )

    def _pooled(self, counted: Counted, samples: int) -> tuple[NDArray[np.int64], ...]:
        """The total behind a max-pool of spikes is the maximum of the totals (`neurons`)."""
        counts = dict(counted.counts)
        for name, (node, source) in self._pools.items():
            x = np.asarray(counts[source], np.float64)
            counts[name] = kernels.max_pool(node, [x], x.dtype)
        totals = (over_samples(counts[name], samples) for name in self._pools)
        return tuple(np.round(total).astype(np.int64) for total in totals)


def _counter(stages: Stages, timesteps: int, layers: bool) -> Counter:
    first = stages.network.timesteps
    names = [layer.name for layer in stages.layers] if layers else []
    if stages.runs_in_onnxruntime():
        return file_counter(stages.file, timesteps, first, names)
    return numpy_counter(stages.network, timesteps, first, names)


def _reference(stages: Stages) -> Runner:
    """The ANN's activations, what they are functions of, and its output, by tensor name."""
    tensors = [name for layer in stages.layers for name in (layer.neuron.output, layer.root)]
    own, others = split_by_owner(stages.ann, tensors)
    carried = stages.network.carried
    run_ann = runner(stages.ann, carried, (), list(dict.fromkeys([*own, stages.output])))
    run_staircase_ann = runner(stages.staircase_ann, carried, own, others)
    return lambda feeds: reference_values(run_ann, run_staircase_ann, feeds)
