"""An SNN to play with: one time step at a time with its state, or many steps in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from . import forms, model_io, snn
from .batches import samples_at_once
from .errors import UsageError
from .forms.folded import to_folded
from .integer_stepping import Int8Stepper
from .running import Stepper, file_runner, stepper_for
from .simulation import Feeds, Simulation, fixed_batch
from .snn import Snn
from .snn_guard import described_as_it_is

Array: TypeAlias = NDArray[Any]


class Simulator:
    """Runs an SNN; sessions are made once and used again.

        simulator = Simulator("model.snn.onnx")
        simulator.run(images, timesteps=8).outputs[8]      # T steps at once, in onnxruntime
        for frame in frames:                               # or step by step, with state
            logits = simulator.step(frame)["logits"]
        simulator.reset()

    `run` takes the file as it is to onnxruntime; `step` its step form, which is made of it.

    Args:
        source: an SNN file, its model, or the network inside.
        record: neuron layers whose spikes and membranes are kept; names, or patterns as ``*``.
        threads: of onnxruntime; 0 leaves the choice to it.

    Attributes:
        timesteps: the file's default T.
        inputs, outputs: their names.
        layers: the neuron layers' names, in order.
        recorded: those of ``record``.
        t: steps made since the start or the last `reset`.

    Raises ModelError for a file that is no SNN, UsageError where ``record`` fits no layer.
    """

    def __init__(
        self,
        source: str | Path | onnx.ModelProto | Snn,
        *,
        record: Sequence[str] = (),
        threads: int = 0,
    ) -> None:
        if isinstance(source, str | Path):
            source = model_io.load(Path(source)).model
        self.network = source if isinstance(source, Snn) else forms.read(source)
        self.model = to_folded(source) if isinstance(source, Snn) else source
        graph = self.network.graph
        self.timesteps = self.network.timesteps
        self.inputs = tuple(t.name for t in graph.inputs)
        self.outputs = tuple(t.name for t in graph.outputs)
        self.layers = tuple(n.name for n in self.network.neurons)
        self.recorded = matching_layers(self.layers, record)
        self._nodes = {n.name: n for n in snn.neuron_nodes(graph)}
        self._run = file_runner(self.model, self.recorded, threads)
        self._threads = threads
        self._stepper: Stepper | Int8Stepper | None = None
        self._feeds_before: Feeds = {}

    @property
    def t(self) -> int:
        return self._stepper.t if self._stepper else 0

    def reset(self) -> None:
        """Back to the first time step: membranes and sums as at the start."""
        if self._stepper is not None:
            self._stepper.reset()

    def step(self, x: Array | Feeds | None = None) -> dict[str, Array]:
        """One time step on ``x`` [N, ...]; the outputs by name, on the mean over the steps so far.

        Args:
            x: the input, or several by name; None repeats that of the step before. N stays the
                same until `reset`.

        Raises UsageError where the first step has no input, N changes, or an int8 file is not
        proved for one step more.
        """
        if x is None and not self.t:
            raise UsageError("the first step needs an input", remedy="step(x)")
        feeds = self._feeds_before if x is None else self._feeds(x)
        before, now = _count(self._feeds_before), _count(feeds)
        if self.t and before != now:
            raise UsageError(
                f"the batch was {before} at the first step, and is {now} now",
                remedy="reset() first",
            )
        with described_as_it_is():
            if self._stepper is None:
                self._stepper = stepper_for(self.model, self.network, self.recorded, self._threads)
            self._feeds_before = feeds
            return self._stepper.step(feeds)

    @property
    def spikes(self) -> dict[str, Array]:
        """Who fired in the last step: bool [N, ...] by recorded layer."""
        found = self._stepper.spikes if self._stepper else {}
        return {name: values != 0 for name, values in found.items()}

    @property
    def membranes(self) -> dict[str, Array]:
        """Membranes after the last step, [N, ...] by recorded layer."""
        return dict(self._stepper.membranes) if self._stepper else {}

    def run(
        self, x: Array | Feeds, timesteps: int | None = None, *, batch: int | None = None
    ) -> Simulation:
        """``timesteps`` steps (the file's T) from the start on ``x`` [N, ...]; leaves `step` alone.

        Args:
            batch: samples that run together; by default as many as fit into 256 MB, at most 64.
        """
        feeds = self._feeds(x)
        steps = self.timesteps if timesteps is None else timesteps
        if steps < 1:
            raise UsageError(f"T = {steps}: at least one time step is needed")
        size = self.batch_size(steps, batch)
        count = len(next(iter(feeds.values())))
        with described_as_it_is():
            parts = [
                self._run({name: values[at : at + size] for name, values in feeds.items()}, steps)
                for at in range(0, count, size)
            ]
        return Simulation.joined(parts)

    def batch_size(self, timesteps: int, wanted: int | None = None) -> int:
        """Samples that run together: what the model fixes, or is wanted, or fits into memory."""
        if wanted is not None and wanted < 1:
            raise UsageError(f"--batch {wanted}: at least one sample is needed")
        fixed = fixed_batch(self.model)
        if fixed or wanted:
            return fixed or wanted or 1
        neurons = sum(int(np.prod(n.shape)) for n in self.network.neurons)
        return samples_at_once(neurons, copies=4 * timesteps)

    def parameters(self, layer: str) -> snn.IFParameters:
        """Threshold, amplitude and initial membrane of ``layer``."""
        return snn.parameters(self._nodes[layer])

    def _feeds(self, x: Array | Feeds) -> Feeds:
        if isinstance(x, Mapping):
            return x
        if len(self.inputs) != 1:
            raise UsageError(
                f"the network has {len(self.inputs)} inputs", remedy="give a dict of arrays by name"
            )
        return {self.inputs[0]: x}


def _count(feeds: Feeds) -> int:
    return len(next(iter(feeds.values()), ()))


def matching_layers(layers: Sequence[str], record: Sequence[str]) -> tuple[str, ...]:
    """Those of ``layers`` that ``record`` names, by name or pattern (``*``, ``?``), in order.

    Raises UsageError where a pattern fits none.
    """
    chosen = set()
    for pattern in record:
        found = {n for n in layers if n == pattern} or {
            n for n in layers if fnmatchcase(n, pattern)
        }
        if not found:
            raise UsageError(
                f"--record {pattern}: no such neuron layer", remedy=f"there are {', '.join(layers)}"
            )
        chosen |= found
    return tuple(name for name in layers if name in chosen)
