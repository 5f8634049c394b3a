"""The folded file in onnxruntime against the equations in numpy, layer by layer.

Both get the spikes that onnxruntime had, so that one spike that rounding decides otherwise cannot
cascade; and the books must balance: what flowed in is what is left plus what was fired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .evaluate import evaluate
from .graph import is_ours
from .layers import Layer
from .neurons import IFState
from .replay import relative_error
from .simulate import Simulation, layers_with_state
from .snn import Snn

Array: TypeAlias = NDArray[Any]

FLOAT_NOISE = 16.0  # in units of the float type's eps: what two orders of summation may differ by


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


def compare_engines(
    network: Snn,
    layers: Sequence[Layer],
    feeds: Mapping[str, Array],
    run: Simulation,
    timesteps: int,
) -> tuple[tuple[LayerEngines, ...], float]:
    """Each layer of ``run`` (onnxruntime's) against numpy, and the outputs' relative error.

    ``run`` must hold the currents and spikes of every layer for at least ``timesteps`` steps.
    """
    currents, outputs = _numpy_currents(network, layers, feeds, run, timesteps)
    found = tuple(
        _compare_layer(
            layer,
            run.currents[layer.name][:timesteps],
            run.spikes[layer.name][:timesteps],
            currents[layer.name],
        )
        for layer in layers
    )
    errors = [relative_error(outputs[n], v) for n, v in run.outputs[timesteps].items()]
    return found, max(errors, default=0.0)


def _numpy_currents(
    network: Snn,
    layers: Sequence[Layer],
    feeds: Mapping[str, Array],
    run: Simulation,
    timesteps: int,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Currents [T, N, ...] and outputs in float64, under onnxruntime's spikes."""
    graph = network.graph
    encoded = [n.outputs[0].name for n in graph.nodes if is_ours(n, "Encode")]
    decoded = {n.outputs[0].name: n.inputs[0].name for n in graph.nodes if is_ours(n, "Decode")}
    tensors = [*(layer.current for layer in layers), *decoded.values()]
    constant = {**feeds, **evaluate(graph, feeds, encoded)}
    advance = layers_with_state()  # for max-pools only: the neurons are cut off
    steps = []
    for t in range(timesteps):
        spikes = {layer.spikes: run.spikes[layer.name][t] for layer in layers}
        steps.append(evaluate(graph, {**constant, **spikes}, tensors, stateful=advance))
    means = {m: np.mean([s[name] for s in steps], axis=0) for m, name in decoded.items()}
    outputs = evaluate(graph, {**feeds, **means}, [t.name for t in graph.outputs])
    currents = {layer.name: np.stack([s[layer.current] for s in steps]) for layer in layers}
    return currents, outputs


def _compare_layer(layer: Layer, current: Array, spikes: Array, expected: Array) -> LayerEngines:
    theta = np.asarray(layer.fired.threshold, np.float64)
    fired = spikes != 0
    timesteps = len(current)
    state = IFState.start(expected[0], theta, np.ones(()), layer.fired.initial)
    scale = float(np.max(np.abs(expected) / theta, initial=0)) + 1
    eps = float(np.finfo(current.dtype).eps)
    tolerance = FLOAT_NOISE * eps * scale * timesteps
    agreed = np.ones(expected.shape[1:], bool)
    far = np.zeros(expected.shape[1:], bool)
    count = np.zeros(expected.shape[1:], np.int64)
    for z, spike in zip(expected, fired, strict=True):
        distance = np.abs(state.membrane + z - theta) / theta
        own = state.step(z) != 0
        far |= agreed & (own != spike) & (distance > tolerance)
        agreed &= own == spike
        count += own
    differs = count != fired.sum(axis=0)
    return LayerEngines(
        layer,
        int(np.count_nonzero(differs)),
        int(np.count_nonzero(far)),
        float(np.max(np.abs(expected - current) / theta, initial=0)),
        tolerance,
        _charge_error(layer, current, fired.sum(axis=0)),
    )


def _charge_error(layer: Layer, current: Array, count: Array) -> float:
    """The neurons of the file, in its own float type; ``u(T)`` is not in the file, so it is run."""
    theta = np.asarray(layer.fired.threshold, np.float64)
    state = IFState.start(current[0], layer.fired.threshold, np.ones(()), layer.fired.initial)
    for z in current:
        state.step(z)
    total = current.sum(axis=0, dtype=np.float64)
    left = total + theta * layer.fired.initial - state.membrane - theta * count
    return float(np.max(np.abs(left) / theta, initial=0))
