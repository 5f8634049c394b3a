"""The network as integrate-and-fire neurons inside the training loop (SNN in the loop).

A time step is a pass through the network in which every quantiser is a layer of neurons::

    u(0) = threshold / 2;   u += v(t);   fired = u >= threshold;   u -= threshold * fired

with threshold ``step * levels`` and output ``threshold * fired``: what conversion makes of it.
Noise in training moves the start of the membrane, in thresholds: ``U(-0.5, 0.5)`` rounds the count
stochastically. A max-pool pools sums over time, as it does after conversion.

What lies between the quantisers has to be affine, with BatchNorm in evaluation mode. The mean
current of a layer is then its input when every layer before it gives out its mean over the T steps,
so that an ordinary forward pass on the substituted means is the spiking network at T, and the
gradient goes through it once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from na_convert.neurons import INITIAL_MEMBRANE

from .noise import Noise
from .quantizer import Quantizer, instead

_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


def in_loop(net: nn.Module, inputs: Tensor, timesteps: int, wrapped: nn.Module) -> Tensor:
    """Outputs of the spiking ``net`` after ``timesteps``, with the quantised network's gradient.

    The neurons run without gradient; then each quantiser's value is its neurons' mean output, and
    its gradient that of the staircase at the mean current (straight through).

    Args:
        inputs: ``[N, ...]``, the same at every time step.
        wrapped: ``net`` itself or what shares gradients between processes around it.
    """
    remaining = iter(mean_outputs(net, inputs, timesteps))

    def substitute(quantizer: Quantizer, v: Tensor) -> Tensor:
        return quantizer.with_value(v, next(remaining))

    with instead(net, substitute):
        return wrapped(inputs)


@torch.no_grad()
def mean_outputs(net: nn.Module, inputs: Tensor, timesteps: int) -> list[Tensor]:
    """Mean output over ``timesteps`` of each layer of neurons, in the order of the calls.

    A quantiser that is called at several places has neurons of its own at each.
    """
    layers: list[_Neurons] = []
    calls = 0

    def fire(quantizer: Quantizer, v: Tensor) -> Tensor:
        nonlocal calls
        if calls == len(layers):
            layers.append(_Neurons(quantizer, v))
        calls += 1
        return layers[calls - 1].step(v)

    with instead(net, fire), _pooling_sums(net):
        for _ in range(timesteps):
            calls = 0
            net(inputs)
    return [layer.total.mul_(layer.threshold / timesteps) for layer in layers]


class _Neurons:
    """A layer between two time steps; membrane, in the units of the current, and spike counts."""

    def __init__(self, quantizer: Quantizer, current: Tensor) -> None:
        start = torch.zeros_like(current, dtype=torch.promote_types(current.dtype, torch.float32))
        self.threshold = quantizer.step.detach() * quantizer.levels
        noise = quantizer.noise if quantizer.training else Noise(0.0)
        self.membrane = noise.add_to(start, INITIAL_MEMBRANE).mul_(self.threshold)
        self.total = torch.zeros_like(start)

    def step(self, current: Tensor) -> Tensor:
        self.membrane += current
        fired = (self.membrane >= self.threshold).to(self.membrane.dtype)
        self.total += fired
        out = fired.mul_(self.threshold)
        self.membrane -= out
        return out.to(current.dtype)


@contextmanager
def _pooling_sums(net: nn.Module) -> Iterator[None]:
    """Within it each max-pool pools its sums over time and gives out what the maximum grew by."""
    sums: dict[nn.Module, Tensor] = {}
    pooled: dict[nn.Module, Tensor] = {}

    def add(pool: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
        sums[pool] = sums[pool] + args[0] if pool in sums else args[0]
        return sums[pool]

    def difference(pool: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        before = pooled.get(pool)
        pooled[pool] = output
        return output if before is None else output - before

    pools = [m for m in net.modules() if isinstance(m, _MAX_POOLS)]
    handles = [p.register_forward_pre_hook(add) for p in pools]
    handles += [p.register_forward_hook(difference) for p in pools]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
