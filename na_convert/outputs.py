"""The first output of an ANN, and of its SNN after each time step, over any number of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .batches import batch_size, batches
from .counting import Counter, file_counter, folded_counter, numpy_counter
from .cut import runs_in_onnxruntime
from .forms.folded import folded_parts
from .layers import Layer
from .snn import Snn
from .teacher_forcing import runner

Array: TypeAlias = NDArray[Any]
Feeds: TypeAlias = Mapping[str, Array]


def ann_output(ann: gs.Graph, network: Snn, layers: Sequence[Layer], feeds: Feeds) -> Array:
    """The first output of ``ann`` on ``feeds``, [N, ...]; ``network`` is the SNN made of it."""
    name = ann.outputs[0].name
    run = runner(ann, network.carried, (), [name])
    return np.concatenate([run(part)[name] for part in batches(feeds, batch_size(layers, 4))])


def snn_output(
    network: Snn, layers: Sequence[Layer], feeds: Feeds, timesteps: int | None = None
) -> dict[int, Array]:
    """The first output of ``network`` after 1, 2, ... ``timesteps`` (its own T): each [N, ...]."""
    name = network.graph.outputs[0].name
    steps = network.timesteps if timesteps is None else timesteps
    run = _counter(network, steps)
    parts = [run(part).outputs for part in batches(feeds, batch_size(layers, copies=3 * steps))]
    return {t: np.concatenate([part[t][name] for part in parts]) for t in range(1, steps + 1)}


def file_output(
    file: onnx.ModelProto, network: Snn, layers: Sequence[Layer], feeds: Feeds
) -> Array:
    """The first output of ``file``, made of ``network``, after the network's T steps: [N, ...]."""
    name, steps = network.graph.outputs[0].name, network.timesteps
    run = file_counter(file, steps, steps, [])
    sizes = batch_size(layers, copies=3 * steps)
    return np.concatenate([run(part).outputs[steps][name] for part in batches(feeds, sizes)])


def _counter(network: Snn, timesteps: int) -> Counter:
    file = folded_parts(network)
    if runs_in_onnxruntime(file):
        return folded_counter(file, timesteps, timesteps, [])
    return numpy_counter(network, timesteps, timesteps, [])
