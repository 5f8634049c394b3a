"""snnTorch: ``snntorch.import_nir.import_from_nir``; its layers keep their membranes themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import nir
from numpy.typing import NDArray

from ..nir_file.read_back import Neurons
from ..nir_file.simulate import Recording
from .torch_modules import membrane, module_name, quietly, recording, step_by_step, watch

Array: TypeAlias = NDArray[Any]

ADJUSTMENTS = (
    "layer.init_hidden = True",
    "layer.beta.fill_(1.0)",
    "layer.reset_delay = True",
    "layer.spike_grad = lambda above: (above >= 0).float()",
)


def run(path: Path, inputs: Array, neurons: Mapping[str, Neurons]) -> Recording:
    """The file as it is read; see `readers.Reader`."""
    return _run(path, inputs, neurons, adjusted=False)


def run_adjusted(path: Path, inputs: Array, neurons: Mapping[str, Neurons]) -> Recording:
    """The same with layers that return their spikes alone, do not leak, subtract once, and fire at
    the threshold (``spike_grad`` is what they call to fire)."""
    return _run(path, inputs, neurons, adjusted=True)


def _run(path: Path, inputs: Array, neurons: Mapping[str, Neurons], *, adjusted: bool) -> Recording:
    from snntorch.import_nir import import_from_nir

    with quietly():
        net = import_from_nir(nir.read(path, type_check=False))
        for name, op in neurons.items():
            layer: Any = net.get_submodule(module_name(name))
            if adjusted:
                layer.init_hidden = True
                layer.beta.fill_(1.0)
                layer.reset_delay = True
                layer.spike_grad = lambda above: (above >= 0).float()
            if op.initial.any():
                layer.mem = membrane(op, inputs.shape[1])
        seen = watch(net, neurons)
        return recording(seen, step_by_step(net, inputs))
