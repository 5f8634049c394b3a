"""SpikingJelly: ``nir_exchange.import_from_nir``, ``dt=1`` as r = 1 asks for."""

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
from .torch_modules import membrane, module_name, quietly, recording, step_by_step, watch

Array: TypeAlias = NDArray[Any]

ADJUSTMENTS = (
    "net = import_from_nir(graph, dt=1.0, dtype=torch.float64)",
    "layer.module.v_reset = None",
)


def run(path: Path, inputs: Array, neurons: Mapping[str, Neurons]) -> Recording:
    """The file as it is read; see `readers.Reader`."""
    return _run(path, inputs, neurons, adjusted=False)


def run_adjusted(path: Path, inputs: Array, neurons: Mapping[str, Neurons]) -> Recording:
    """The same with soft reset, which SpikingJelly has and NIR does not ask for, and in float64, so
    that the first layer's sums, which no grid makes exact, round as in our reference."""
    return _run(path, inputs, neurons, adjusted=True)


def _run(path: Path, inputs: Array, neurons: Mapping[str, Neurons], *, adjusted: bool) -> Recording:
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    dtype = torch.float64 if adjusted else torch.float32
    with quietly():
        net = import_from_nir(nir.read(path, type_check=False), dt=1.0, dtype=dtype)
        for name, op in neurons.items():
            layer: Any = net.get_submodule(module_name(name))
            if adjusted:
                layer.module.v_reset = None
            if op.initial.any():
                layer.module.v = membrane(op, inputs.shape[1])
        seen = watch(net, neurons)
        return recording(
            seen, step_by_step(net, inputs.astype(np.float64 if adjusted else np.float32))
        )
