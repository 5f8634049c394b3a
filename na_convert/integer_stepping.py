"""int8 step files in onnxruntime, with their state between two time steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from .errors import UsageError
from .forms.int8_file import restore
from .forms.int8_step import counts_state, current_state
from .forms.step import NEXT, STEPS
from .integer import IntegerNetwork, Key, Layer, whole_current, with_moves
from .integer_view import worth
from .neurons import INITIAL_MEMBRANE
from .runtime import Backend, session, values_of, with_outputs
from .snn import chosen_layers

Array: TypeAlias = NDArray[Any]
Feeds: TypeAlias = Mapping[str, Array]


class Int8Stepper:
    """An int8 step file with its state between two time steps; the session is made once.

    As `running.Stepper`; currents and membranes of recorded layers follow from the counts, in real
    units, in float64 rounded to float32.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        record: Sequence[str] = (),
        threads: int = 0,
        backend: Backend | None = None,
        *,
        inner: Sequence[str] = (),
    ) -> None:
        self.network = restore(model)
        layers = {layer.name: layer for layer in self.network.layers}
        self.recorded = tuple(record)
        self._layers = list(chosen_layers(layers, record).values())
        self._states = _states(self.network)
        self._outputs = [t.name for t in self.network.snn.graph.outputs]
        self._inner = [name for name in inner if name not in self._outputs]
        self._wanted = [*self._outputs, *(name + NEXT for name in self._states), *self._inner]
        make = backend or partial(session, threads=threads)
        self._session = make(with_outputs(model, self._inner))
        self.reset()

    def reset(self) -> None:
        """To the state before the first step."""
        self.t = 0
        self._state: dict[str, Array] = {}
        self._totals: dict[str, Array] = {}
        self.currents: dict[str, Array] = {}
        self.spikes: dict[str, Array] = {}
        self.membranes: dict[str, Array] = {}
        self.inner: dict[str, Array] = {}

    def keep(self, rows: Array) -> None:
        """Go on with these samples alone: ``rows`` is a mask [N]."""
        self._state = {n: v[rows] if v.ndim else v for n, v in self._state.items()}
        self._totals = {n: v[rows] for n, v in self._totals.items()}

    def step(self, feeds: Feeds) -> dict[str, Array]:
        """One time step; the outputs on the mean over the steps so far.

        Raises UsageError where the file is not proved for one step more.
        """
        if self.t == self.network.timesteps:
            raise UsageError(
                f"T = {self.t + 1}: this file is proved for up to {self.t} time steps",
                remedy="convert it again with a larger -T",
            )
        values = values_of(self._session, self._wanted, {**feeds, **self._state})
        found = dict(zip(self._wanted, values, strict=True))
        before = self._state
        self._state = {name: found[name + NEXT] for name in self._states}
        self.t += 1
        self.inner = {name: found[name] for name in self._inner}
        self._record(before)
        return {name: found[name] for name in self._outputs}

    def counts(self, layer: Layer) -> NDArray[np.uint8]:
        """Spikes of ``layer`` up to now, [N, ...]."""
        return self._state[counts_state(layer)]

    def _record(self, before: Mapping[str, Array]) -> None:
        if not self._layers:
            return
        counted = {layer.output: self.counts(layer) for layer in self.network.layers}
        counts = with_moves(self.network, counted)
        totals: dict[Key, Array] = {
            (layer.name, i): self._state[current_state(layer, i)].astype(np.int64)
            for layer in self._layers
            for i in range(len(layer.analogs))
        }
        self.currents, self.spikes, self.membranes = {}, {}, {}
        for layer in self._layers:
            name, unit = layer.name, worth(self.network, layer)
            count, had = counts[layer.output].astype(np.int64), before.get(counts_state(layer), 0)
            total = whole_current(layer, counts, totals, self.t)
            left = total + (INITIAL_MEMBRANE - count) * layer.threshold
            self.currents[name] = ((total - self._totals.get(name, 0)) * unit).astype(np.float32)
            self.spikes[name] = (count - had).astype(np.float32)
            self.membranes[name] = (left * unit).astype(np.float32)
            self._totals[name] = total


def counts_step_by_step(
    model: onnx.ModelProto,
    network: IntegerNetwork,
    feeds: Feeds,
    *,
    optimise: bool = True,
    threads: int = 0,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The counts [T, N, ...] of every layer by name, and the analog currents that led to them."""
    inner = [name for name in network.analogs if name not in feeds]
    backend = partial(session, threads=threads, optimise=optimise)
    stepper = Int8Stepper(model, backend=backend, inner=inner)
    counted: dict[str, list[Array]] = {layer.name: [] for layer in network.layers}
    for _ in range(network.timesteps):
        values = stepper.step(feeds)
        for layer in network.layers:
            counted[layer.name].append(stepper.counts(layer))
    known = {**feeds, **values, **stepper.inner}
    counts = {name: np.stack(each) for name, each in counted.items()}
    return counts, {name: np.asarray(known[name]) for name in network.analogs}


def _states(network: IntegerNetwork) -> list[str]:
    currents = [current_state(e, i) for e in network.layers for i in range(len(e.analogs))]
    return [*(counts_state(layer) for layer in network.layers), *currents, STEPS]
