"""What the readers share: all of them make a torch module of a NIR graph, one module per node."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ..nir_file.read_back import Neurons
from ..nir_file.simulate import Recording

Array: TypeAlias = NDArray[Any]


Seen: TypeAlias = dict[str, list[tuple[torch.Tensor, torch.Tensor]]]


def watch(module: torch.nn.Module, names: Iterable[str]) -> Seen:
    """What goes into and comes out of the modules of ``names``, written down at each call."""
    seen: Seen = {name: [] for name in names}
    for name, calls in seen.items():
        layer = module.get_submodule(module_name(name))
        layer.register_forward_hook(_recorder(calls))
    return seen


def recording(seen: Seen, outputs: list[torch.Tensor]) -> Recording:
    """The same as arrays [T, N, ...], after T calls that gave ``outputs``."""
    currents = {name: _stack([current for current, _ in calls]) for name, calls in seen.items()}
    spikes = {name: _stack([fired for _, fired in calls]) for name, calls in seen.items()}
    return Recording(currents, spikes, _stack(outputs))


def module_name(node: str) -> str:
    """The name that nirtorch gives the module of a node."""
    return node.replace(".", "_")


def execution_order(nodes: Iterable[str], edges: Iterable[tuple[str, str]]) -> list[str]:
    """Names of modules, each behind those that it reads."""
    arriving: dict[str, list[str]] = {module_name(node): [] for node in nodes}
    for source, node in edges:
        arriving[module_name(node)].append(module_name(source))
    return list(TopologicalSorter(arriving).static_order())


def membrane(op: Neurons, samples: int) -> torch.Tensor:
    """The membranes [samples, ...] of a layer before the first step."""
    start = torch.as_tensor(op.initial, dtype=torch.float32)
    return start.expand(samples, *op.threshold.shape).clone()


def step_by_step(module: torch.nn.Module, inputs: Array, state: Any = None) -> list[torch.Tensor]:
    """The outputs of ``module`` for each of ``inputs`` [T, N, ...], its state handed on."""
    outputs = []
    for now in torch.from_numpy(np.ascontiguousarray(inputs)):
        found = module(now, state)
        output, state = found if isinstance(found, tuple) else (found, None)
        outputs.append(output.detach())
    return outputs


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """No gradients, and none of the readers' own messages: they are not about the file."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _recorder(calls: list[tuple[torch.Tensor, torch.Tensor]]) -> Any:
    def record(module: Any, arguments: Any, found: Any) -> None:
        spikes = found[0] if isinstance(found, tuple) else found
        calls.append((arguments[0].detach().clone(), spikes.detach().clone()))

    return record


def _stack(steps: list[torch.Tensor]) -> Array:
    found: Array = torch.stack(steps).numpy()
    return found
