"""The same float network in other simulators, for benchmarks/speed.py: ReLUs become their neurons.

Each takes the network with BatchNorm folded, soft reset and threshold 1, and is run as its authors
advise on a CPU: SpikingJelly's and Sinabs' stateless layers see time in the batch, snnTorch and
SpikingJelly's single-step mode run step after step. `contenders` leaves out, with a line that says
so, what is not installed (extra ``bench``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], Any]
SIMULATORS = ("SpikingJelly", "snnTorch", "Sinabs")


def contenders(net: Any, steps: int, threads: int) -> dict[str, Run]:
    """Runs of ``net`` for images [N, ...], ``steps`` time steps each, by simulator."""
    import torch

    torch.set_num_threads(threads)
    runs: dict[str, Run] = {}
    for name, made in zip(SIMULATORS, (_spikingjelly, _snntorch, _sinabs), strict=True):
        try:
            runs |= made(net, steps)
        except ImportError as error:
            print(f"  {name} left out: {error}")
    return {name: torch.inference_mode()(run) for name, run in runs.items()}


def _spikingjelly(net: Any, steps: int) -> dict[str, Run]:
    from spikingjelly.activation_based import functional, neuron

    def neurons(mode: str) -> Any:
        return neuron.IFNode(v_threshold=1.0, v_reset=None, step_mode=mode)

    multi = _with_neurons(net, lambda: _time_in_batch(neurons("m"), steps))
    single = _with_neurons(net, lambda: neurons("s"))

    def run_multi(x: np.ndarray) -> Any:
        functional.reset_net(multi)
        return _mean_of_all(multi, x, steps)

    def run_single(x: np.ndarray) -> Any:
        functional.reset_net(single)
        return _mean_of_steps(single, x, steps)

    return {"SpikingJelly multi-step": run_multi, "SpikingJelly single-step": run_single}


def _snntorch(net: Any, steps: int) -> dict[str, Run]:
    import snntorch
    from snntorch import utils

    made = _with_neurons(
        net,
        lambda: snntorch.Leaky(
            beta=1.0, threshold=1.0, reset_mechanism="subtract", init_hidden=True
        ),
    )

    def run(x: np.ndarray) -> Any:
        utils.reset(made)
        return _mean_of_steps(made, x, steps)

    return {"snnTorch": run}


def _sinabs(net: Any, steps: int) -> dict[str, Run]:
    import sinabs
    from sinabs import layers

    made = _with_neurons(
        net,
        lambda: _batch_first(
            layers.IAF(spike_threshold=1.0, reset_fn=sinabs.activation.MembraneSubtract()), steps
        ),
    )

    def run(x: np.ndarray) -> Any:
        sinabs.reset_states(made)
        return _mean_of_all(made, x, steps)

    return {"Sinabs": run}


def _with_neurons(net: Any, neuron: Callable[[], Any]) -> Any:
    """``net`` with BatchNorm folded and every ReLU a neuron of its own."""
    import torch
    from torch.fx.experimental.optimization import fuse

    made = fuse(net)
    for name, module in list(made.named_modules()):
        if isinstance(module, torch.nn.ReLU):
            parent = made.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], neuron())
    return made.eval()


def _time_in_batch(neuron: Any, steps: int) -> Any:
    """``neuron``, which takes [T, N, ...], on [T * N, ...]."""
    return _reshaped(neuron, lambda x: x.unflatten(0, (steps, -1)), lambda y: y.flatten(0, 1))


def _batch_first(neuron: Any, steps: int) -> Any:
    """``neuron``, which takes [N, T, ...], on [T * N, ...]."""
    return _reshaped(
        neuron,
        lambda x: x.unflatten(0, (steps, -1)).transpose(0, 1),
        lambda y: y.transpose(0, 1).flatten(0, 1),
    )


def _reshaped(neuron: Any, before: Callable[[Any], Any], after: Callable[[Any], Any]) -> Any:
    import torch

    class Reshaped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron = neuron

        def forward(self, x: Any) -> Any:
            return after(self.neuron(before(x)))

    return Reshaped()


def _mean_of_all(net: Any, x: np.ndarray, steps: int) -> Any:
    import torch

    given = torch.from_numpy(x)
    return net(given.repeat(steps, *[1] * (given.ndim - 1))).unflatten(0, (steps, -1)).mean(0)


def _mean_of_steps(net: Any, x: np.ndarray, steps: int) -> Any:
    import torch

    given = torch.from_numpy(x)
    return sum(net(given) for _ in range(steps)) / steps
