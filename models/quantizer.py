"""The quantised activation that networks are trained with, and its noise (Noise Adaptor).

The activation of a low-bit network is the staircase

    y = s * clip(floor(v / s + 1/2), 0, p),        p = 2**bits - 1,        clip threshold = s * p

with a learned step ``s`` (LSQ, Esser et al., arXiv 1902.08153). Noise Adaptor (Li & Rajendran,
arXiv 2411.17431) adds noise before the rounding while training, so that the network is used to an
activation that is one level off, which is what spikes do to it after conversion.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Quantizer(nn.Module):
    """Staircase activation with learned step and noise in training; a drop-in for ``nn.ReLU``.

    Shapes: any ``[N, ...]`` in, the same out. ``step`` is a scalar in the units of the input.

    Args:
        bits: the activation has ``2**bits - 1`` levels above zero.
        noise: amplitude ``a`` of the noise ``U(-a, a)``, in steps, drawn per element while
            training; 0.5 makes the rounding stochastic and unbiased; 0 turns it off.
        step: initial step; usually replaced by :func:`initialise_steps`.
    """

    def __init__(self, bits: int = 2, noise: float = 0.5, step: float = 1.0) -> None:
        super().__init__()
        if bits < 1:
            raise ValueError(f"bits must be at least 1, got {bits}")
        if noise < 0:
            raise ValueError(f"noise must not be negative, got {noise}")
        self.levels = 2**bits - 1
        self.noise = noise
        self.step = nn.Parameter(torch.tensor(float(step)))
        self._initialising = False

    def forward(self, v: Tensor) -> Tensor:
        if self._initialising:
            with torch.no_grad():
                self.step.fill_(best_step(v, self.levels))
        if not self.training:
            return torch.clamp(torch.floor(v / self.step + 0.5), 0, self.levels) * self.step
        return _NoisyStaircase.apply(v, self.step, self.levels, self.noise)

    def extra_repr(self) -> str:
        return f"levels={self.levels}, noise={self.noise}"


class _NoisyStaircase(torch.autograd.Function):
    """Straight-through staircase; the step's gradient is LSQ's, scaled by 1/sqrt(p * elements)."""

    @staticmethod
    def forward(ctx, v: Tensor, step: Tensor, levels: int, noise: float) -> Tensor:  # type: ignore[no-untyped-def]
        x = v / step
        shifted = x + 0.5
        if noise:
            shifted = shifted.add_(torch.empty_like(x).uniform_(-noise, noise))
        level = shifted.floor_().clamp_(0, levels)
        ctx.save_for_backward(x, level)
        ctx.levels = levels
        return level * step

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        x, level = ctx.saved_tensors
        inside = (x > 0) & (x < ctx.levels)
        grad_v = grad * inside
        scale = (ctx.levels * x.numel() / x.shape[0]) ** -0.5
        grad_step = ((grad * level).sum() - (grad_v * x).sum()) * scale
        return grad_v, grad_step, None, None


def best_step(v: Tensor, levels: int) -> float:
    """The step in ``max(v) / levels * (0.05 .. 1]`` with the least squared error against ReLU(v)."""
    target = v.detach().float().clamp(min=0).flatten()
    target = target[:: max(1, target.numel() // 200_000)]
    largest = float(target.max())
    if not largest > 0:
        return 1.0
    candidates = largest / levels * torch.linspace(0.05, 1.0, 96)

    def error(step: Tensor) -> float:
        level = torch.clamp(torch.floor(target / step + 0.5), 0, levels)
        return float(((level * step - target) ** 2).mean())

    return float(min(candidates, key=error))


def initialise_steps(module: nn.Module, images: Tensor) -> None:
    """Set every quantiser's step by least squared error, layer by layer, on ``images`` [N, ...].

    Each layer sees inputs that the layers before it have already quantised.
    """
    module.eval()
    with _initialising(module), torch.no_grad():
        module(images)


def quantize(module: nn.Module, bits: int = 2, noise: float = 0.5) -> nn.Module:
    """Replace every ``nn.ReLU`` inside ``module``, in place, by a :class:`Quantizer`.

    A ReLU that is used at several places of the network keeps one shared quantiser. Returns the
    module. Raises ValueError where there is no ReLU to replace.
    """
    replaced: dict[int, Quantizer] = {}
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.ReLU, nn.ReLU6)):
                new = replaced.setdefault(id(child), Quantizer(bits, noise))
                setattr(parent, name, new)
    if not replaced:
        raise ValueError(f"{type(module).__name__} holds no nn.ReLU to quantise")
    return module


@contextmanager
def _initialising(module: nn.Module) -> Iterator[None]:
    quantizers = [m for m in module.modules() if isinstance(m, Quantizer)]
    for quantizer in quantizers:
        quantizer._initialising = True
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer._initialising = False
