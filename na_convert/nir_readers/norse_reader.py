"""Norse: ``norse.torch.from_nir``; its graph is run by nirtorch's older executor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import nir
from numpy.typing import NDArray

from ..nir_file.read_back import Neurons
from ..nir_file.simulate import Recording
from .torch_modules import (
    execution_order,
    membrane,
    module_name,
    quietly,
    recording,
    step_by_step,
    watch,
)

Array: TypeAlias = NDArray[Any]

ADJUSTMENTS = (
    "layer.activation = soft_reset",
    "net.execution_order.sort(key=lambda node: order.index(node.name))",
)


def run(path: Path, inputs: Array, neurons: Mapping[str, Neurons]) -> Recording:
    """The file as it is read; see `readers.Reader`."""
    return _run(path, inputs, neurons, adjusted=False)


def run_adjusted(path: Path, inputs: Array, neurons: Mapping[str, Neurons]) -> Recording:
    """The same with another neuron in the place of Norse's own, which has no soft reset, and each
    node run after all that it depends on (``order``)."""
    return _run(path, inputs, neurons, adjusted=True)


def soft_reset(current: Any, state: Any, p: Any, dt: float) -> tuple[Any, Any]:
    """One step of our neuron, as Norse's layers call it: spikes and the next state."""
    from norse.torch.functional.iaf import IAFFeedForwardState

    reached = state.v + current
    spikes = (reached >= p.v_th).float()
    return spikes, IAFFeedForwardState(reached - spikes * p.v_th)


def _run(path: Path, inputs: Array, neurons: Mapping[str, Neurons], *, adjusted: bool) -> Recording:
    import norse.torch

    with quietly():
        graph = nir.read(path, type_check=False)
        net = norse.torch.from_nir(graph)
        if adjusted:
            order = execution_order(graph.nodes, graph.edges)
            net.execution_order.sort(key=lambda node: order.index(node.name))
            for name in neurons:
                layer: Any = net.get_submodule(module_name(name))
                layer.activation = soft_reset
        seen = watch(net, neurons)
        return recording(seen, step_by_step(net, inputs, _state(neurons, inputs.shape[1])))


def _state(neurons: Mapping[str, Neurons], samples: int) -> Any:
    """A state with the membranes before the first step; None if they are all 0."""
    from nirtorch.graph_executor import GraphExecutorState
    from norse.torch.functional.iaf import IAFFeedForwardState

    state = {
        module_name(name): (IAFFeedForwardState(membrane(op, samples)),)
        for name, op in neurons.items()
        if op.initial.any()
    }
    return GraphExecutorState(state=state) if state else None
