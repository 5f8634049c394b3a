"""The folded file in onnxruntime against the equations in numpy, layer by layer.

Both get the spikes that onnxruntime had, so that one spike that rounding decides otherwise cannot
cascade; and the books must balance: what flowed in is what is left plus what was fired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .evaluate import evaluate
from .exactness import exactness_of
from .graph import is_ours, is_standard
from .input_quantisers import as_in_file
from .layers import Layer
from .neurons import IFState
from .regions import AVERAGING_OPS, descendants
from .replay import relative_error
from .saturation import saturation_error
from .simulation import Simulation, layers_with_state
from .snn import Snn

Array: TypeAlias = NDArray[Any]

FLOAT_NOISE = 16.0  # in units of the float type's eps: what two orders of summation may differ by
LONG_SUM = 0.125  # for each term of an average: half an eps, in four lanes beside each other


@dataclass(frozen=True)
class LayerEngines:
    """One layer, onnxruntime against numpy; currents and membranes in thresholds.

    Attributes:
        differences: neurons whose counts differ.
        unexplained: those whose membrane was not within ``tolerance`` of the threshold where the
            two first disagreed.
        current_error: largest difference of the currents.
        charge_error: largest imbalance of ``sum of current + u(0) - u(T) - threshold * count``.
    """

    layer: Layer
    differences: int
    unexplained: int
    current_error: float
    tolerance: float
    charge_error: float

    def merged(self, other: LayerEngines) -> LayerEngines:
        """Of two sets of samples, together."""
        return LayerEngines(
            self.layer,
            self.differences + other.differences,
            self.unexplained + other.unexplained,
            max(self.current_error, other.current_error),
            max(self.tolerance, other.tolerance),
            max(self.charge_error, other.charge_error),
        )


@dataclass(frozen=True)
class OutputsError:
    """Of the outputs under the same spikes: the relative ``error``, and what sums over many pixels
    explain of it."""

    error: float = 0.0
    tolerance: float = 0.0

    def merged(self, other: OutputsError) -> OutputsError:
        return OutputsError(max(self.error, other.error), max(self.tolerance, other.tolerance))


def compare_engines(
    network: Snn,
    layers: Sequence[Layer],
    before: Sequence[Layer],
    feeds: Mapping[str, Array],
    run: Simulation,
    timesteps: int,
    *,
    outputs: bool = True,
) -> tuple[tuple[LayerEngines, ...], OutputsError]:
    """Each of ``layers`` in ``run`` (onnxruntime's) against numpy, and, with ``outputs``, the
    outputs' error.

    ``run`` must hold the currents and spikes of these layers, and of the layers ``before`` from
    which their currents and the outputs come, for at least ``timesteps`` steps. The input's
    quantisers, at whose edges a rounding moves every current behind, are the file's in numpy, too;
    so is all of the analog part on grids, which rounds to them.
    """
    graph = network.graph
    encoded = [n.outputs[0].name for n in graph.nodes if is_ours(n, "Encode")]
    ends = [n for n in graph.nodes if is_ours(n, "Decode")] if outputs else []
    decoded = {n.outputs[0].name: n.inputs[0].name for n in ends}
    tensors = [*(layer.current for layer in layers), *decoded.values()]
    dtype = run.currents[layers[0].name].dtype
    constant = {**feeds, **as_in_file(network, feeds, dtype)}
    constant |= evaluate(
        graph, constant, encoded, dtype=np.float64 if exactness_of(network) is None else dtype
    )
    advance = layers_with_state()  # for max-pools only: the neurons are cut off
    watched = [_Watched(layer, run.currents[layer.name][0]) for layer in layers]
    total: dict[str, Array] = {}
    for t in range(timesteps):
        spikes = {layer.spikes: run.spikes[layer.name][t] for layer in before}
        now = evaluate(graph, {**constant, **spikes}, tensors, stateful=advance)
        for each in watched:
            name = each.layer.name
            each.step(now[each.layer.current], run.currents[name][t], run.spikes[name][t])
        total = {mean: total.get(mean, 0) + now[name] for mean, name in decoded.items()}
    found = tuple(each.result(timesteps) for each in watched)
    if not outputs:
        return found, OutputsError()
    means = {mean: value / timesteps for mean, value in total.items()}
    return found, _outputs_error(graph, {**feeds, **means}, ends, run.outputs[timesteps])


def _outputs_error(
    graph: gs.Graph,
    given: Mapping[str, Array],
    ends: Sequence[gs.Node],
    outputs: Mapping[str, Array],
) -> OutputsError:
    """Of onnxruntime's ``outputs``, beside numpy's from what the nodes ``ends`` made."""
    readout = descendants(graph, ends)
    averages = [n for n in graph.nodes if id(n) in readout and is_standard(n, *AVERAGING_OPS)]
    around = [t.name for n in averages for t in (n.inputs[0], n.outputs[0])]
    read = evaluate(graph, given, list(dict.fromkeys([*outputs, *around])))
    terms = [read[n.inputs[0].name].size / read[n.outputs[0].name].size for n in averages]
    eps = max((float(np.finfo(v.dtype).eps) for v in outputs.values()), default=0.0)
    saturated = {t.name: saturation_error(t) for t in graph.outputs}
    errors = [relative_error(read[name], v, saturated[name]) for name, v in outputs.items()]
    return OutputsError(
        max(errors, default=0.0),
        LONG_SUM * eps * max(terms, default=0.0),
    )


class _Watched:
    """One layer, step by step: numpy's neurons under numpy's currents beside onnxruntime's spikes;
    and neurons in the file's float type under onnxruntime's currents, for the charge."""

    def __init__(self, layer: Layer, current: Array) -> None:
        self.layer = layer
        self._theta = np.asarray(layer.fired.threshold, np.float64)
        self._eps = float(np.finfo(current.dtype).eps)
        one, initial = np.ones(()), layer.fired.initial
        self._numpy = IFState.start(current.astype(np.float64), self._theta, one, initial)
        self._file = IFState.start(current, layer.fired.threshold, one, initial)
        self._charge = self._file.membrane.astype(np.float64)  # what flowed in and was not fired
        self._agreed = np.ones(current.shape, bool)
        self._surplus = np.zeros(current.shape, np.int32)
        self._distances: list[Array] = []  # from the threshold, where the two first disagree
        self._error = self._largest = 0.0
        self._steps = 0

    def step(self, expected: Array, current: Array, spikes: Array) -> None:
        """``expected`` is numpy's current, ``current`` and ``spikes`` are onnxruntime's."""
        fired = spikes != 0
        membrane = self._numpy.membrane + expected
        own = self._numpy.step(expected) != 0
        first = self._agreed & (own != fired)
        self._distances.append((np.abs(membrane - self._theta) / self._theta)[first])
        self._agreed &= own == fired
        self._surplus += own.astype(np.int32) - fired
        self._error = max(self._error, _largest(expected - current, self._theta))
        self._largest = max(self._largest, _largest(expected, self._theta))
        self._steps += 1
        self._step_file(current, fired)
        self._charge += current - self._theta * fired

    def _step_file(self, current: Array, fired: Array) -> None:
        """Where the membrane is at the threshold up to rounding, onnxruntime says who fires."""
        theta = self._file.threshold
        reached = self._file.membrane + current
        own = self._file.step(current) != 0
        tie = np.abs(reached - theta) <= self._tolerance(self._steps) * theta
        moved = (fired.astype(theta.dtype) - own) * tie * theta
        self._file.membrane = (self._file.membrane - moved).astype(theta.dtype)

    def _tolerance(self, timesteps: int) -> float:
        """In thresholds: what rounding may make of the membrane after ``timesteps`` steps."""
        return FLOAT_NOISE * self._eps * (self._largest + 1) * timesteps

    def result(self, timesteps: int) -> LayerEngines:
        tolerance = self._tolerance(timesteps)
        far = sum(int(np.count_nonzero(d > tolerance)) for d in self._distances)
        return LayerEngines(
            self.layer,
            int(np.count_nonzero(self._surplus)),
            far,
            self._error,
            tolerance,
            _largest(self._charge - self._file.membrane, self._theta),
        )


def _largest(values: Array, unit: Array) -> float:
    return float(np.max(np.abs(values) / unit, initial=0))
