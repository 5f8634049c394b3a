"""Sinabs: ``sinabs.nir.from_nir``; time and batch lie in one axis, all steps in one call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import nir
import numpy as np
import torch
from numpy.typing import NDArray

from ..nir_file.read_back import Neurons
from ..nir_file.simulate import Recording
from .torch_modules import execution_order, membrane, module_name, quietly, recording, watch

Array: TypeAlias = NDArray[Any]

ADJUSTMENTS = (
    "layer.spike_fn = sinabs.activation.SingleSpike",
    "layer.min_v_mem = None",
    "net.execution_order.sort(key=lambda node: order.index(node.name))",
)


def run(path: Path, inputs: Array, neurons: Mapping[str, Neurons]) -> Recording:
    """The file as it is read; see `readers.Reader`."""
    return _run(path, inputs, neurons, adjusted=False)


def run_adjusted(path: Path, inputs: Array, neurons: Mapping[str, Neurons]) -> Recording:
    """The same with one spike per step, no lower bound of the membrane, and each node run after
    all that it depends on (``order``)."""
    return _run(path, inputs, neurons, adjusted=True)


def _run(path: Path, inputs: Array, neurons: Mapping[str, Neurons], *, adjusted: bool) -> Recording:
    from sinabs.activation import SingleSpike
    from sinabs.nir import from_nir

    steps, batch = inputs.shape[:2]
    with quietly():
        graph = nir.read(path, type_check=False)
        net = from_nir(graph, num_timesteps=steps)
        if adjusted:
            order = execution_order(graph.nodes, graph.edges)
            net.execution_order.sort(key=lambda node: order.index(node.name))
        for name, op in neurons.items():
            layer: Any = net.get_submodule(module_name(name))
            if adjusted:
                layer.spike_fn, layer.min_v_mem = SingleSpike, None
            if op.initial.any():
                layer.v_mem = membrane(op, batch)
        seen = watch(net, neurons)
        samples_first = np.ascontiguousarray(inputs.swapaxes(0, 1))
        output, _ = net(torch.from_numpy(samples_first).flatten(0, 1))
        found = recording(seen, [output.detach()])
    return Recording(
        {name: _steps_first(each, steps) for name, each in found.currents.items()},
        {name: _steps_first(each, steps) for name, each in found.spikes.items()},
        _steps_first(found.output, steps),
    )


def _steps_first(values: Array, steps: int) -> Array:
    """[1, N * T, ...] as [T, N, ...]."""
    return values.reshape(-1, steps, *values.shape[2:]).swapaxes(0, 1)
