"""The current of one neuron layer over T time steps, from the spikes of the layers before it.

The network is cut at its neurons, so that a layer costs what lies between it and those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .cut import cut_model, runs_in_onnxruntime
from .evaluate import evaluate
from .forms.folded import folded_parts
from .graph import Parts, is_ours, tensors_by_name
from .layers import Layer
from .simulation import layers_with_state
from .snn import TIMESTEPS, Snn

Array: TypeAlias = NDArray[Any]
Currents: TypeAlias = Callable[[Mapping[str, Array], Mapping[str, Array]], Array]


def layer_currents(network: Snn, layers: Sequence[Layer], timesteps: int) -> list[Currents]:
    """For each of ``layers`` a function from inputs [N, ...] and spikes [T, N, ...] to its current.

    Spikes are given by tensor name, amplitudes included; the current is ``[T, N, ...]``. It runs in
    onnxruntime; in numpy, in float64, where that lacks an operator in double.
    """
    model = folded_parts(network)
    if not runs_in_onnxruntime(model):
        return [_in_numpy(network, layer.current, timesteps) for layer in layers]
    cuts = [layer.spikes for layer in layers]
    return [_in_onnxruntime(model, cuts, layer.current, timesteps) for layer in layers]


def spikes_behind(network: Snn, layer: Layer, layers: Sequence[Layer]) -> frozenset[str]:
    """Which layers' spikes the current of ``layer`` is made of, the nearest on each path."""
    ends = {each.spikes for each in layers}
    found: set[str] = set()
    seen: set[int] = set()
    stack: list[gs.Tensor] = [tensors_by_name(network.graph)[layer.current]]
    while stack:
        tensor = stack.pop()
        if tensor.name in ends:
            found.add(tensor.name)
        elif id(tensor) not in seen:
            seen.add(id(tensor))
            stack.extend(t for node in tensor.inputs for t in node.inputs)
    return frozenset(found)


def _in_onnxruntime(model: Parts, cuts: Collection[str], tensor: str, timesteps: int) -> Currents:
    run = cut_model(model, cuts, [tensor])
    steps = np.asarray(timesteps, np.int64)

    def current(feeds: Mapping[str, Array], spikes: Mapping[str, Array]) -> Array:
        folded = {name: value.reshape(-1, *value.shape[2:]) for name, value in spikes.items()}
        found = run({**feeds, **folded, TIMESTEPS: steps})[tensor]
        return found.reshape(timesteps, -1, *found.shape[1:])

    return current


def _in_numpy(network: Snn, tensor: str, timesteps: int) -> Currents:
    graph = network.graph
    encoded = [n.outputs[0].name for n in graph.nodes if is_ours(n, "Encode")]

    def current(feeds: Mapping[str, Array], spikes: Mapping[str, Array]) -> Array:
        constant = {**feeds, **evaluate(graph, feeds, encoded)}
        advance = layers_with_state()  # for max-pools only: the neurons are cut off
        steps = []
        for t in range(timesteps):
            now = {**constant, **{name: value[t] for name, value in spikes.items()}}
            steps.append(evaluate(graph, now, [tensor], stateful=advance)[tensor])
        return np.stack(steps)

    return current
