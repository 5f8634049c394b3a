"""Norse: ``norse.torch.from_nir``; its graph is run by nirtorch's older executor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import nir
from numpy.typing import NDArray

from .network import Neurons
from .simulate import Recording
from .torch_modules import membrane, module_name, quietly, recording, step_by_step, watch

Array: TypeAlias = NDArray[Any]

ADJUSTMENTS: tuple[str, ...] = ()  # its integrate-and-fire neuron has no soft reset


def run(path: Path, inputs: Array, neurons: Mapping[str, Neurons]) -> Recording:
    """The file as it is read; see `readers.Reader`."""
    import norse.torch

    with quietly():
        net = norse.torch.from_nir(nir.read(path, type_check=False))
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
