"""The quantised activation that networks are trained with, and its noise (Noise Adaptor).

The activation of a low-bit network is the staircase

    y = s * clip(floor(v / s + 1/2), 0, p),        p = 2**bits - 1,        clip threshold = s * p

with a learned step ``s`` (LSQ, Esser et al., arXiv 1902.08153). Noise Adaptor (Li & Rajendran,
arXiv 2411.17431) adds noise before the rounding while training, so that the network is used to an
activation that is one level off, which is what spikes do to it after conversion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .noise import Noise, noise_of

_CANDIDATE_STEPS = torch.linspace(0.05, 1.0, 96)
_HALF_PRECISION_LEVELS = 15  # bfloat16 has 8 significant bits: enough to round up to 4-bit levels


class Quantizer(nn.Module):
    """Staircase activation with learned step and noise in training; a drop-in for ``nn.ReLU``.

    Shapes: any ``[N, ...]`` in, the same out. ``step``, in the units of the input, is a scalar, or
    ``[C, 1, ...]`` for inputs ``[N, C, ...]`` once :func:`initialise_steps` has seen their shape.

    Args:
        bits: the activation has ``2**bits - 1`` levels above zero.
        noise: amplitude ``a`` of the noise ``U(-a, a)``, in steps, drawn per element while
            training, or a :class:`Noise`; 0.5 makes the rounding stochastic and unbiased; 0 turns
            it off.
        step: initial step; usually replaced by :func:`initialise_steps`.
        per_channel: one step for each channel.
    """

    def __init__(
        self,
        bits: int = 2,
        noise: float | Noise = 0.5,
        step: float = 1.0,
        per_channel: bool = False,
    ) -> None:
        super().__init__()
        if bits < 1:
            raise ValueError(f"bits must be at least 1, got {bits}")
        self.levels = 2**bits - 1
        self.noise = noise_of(noise)
        self.per_channel = per_channel
        self.step = nn.Parameter(torch.tensor(float(step)))
        self._instead: Callable[[Quantizer, Tensor], Tensor] | None = None

    def forward(self, v: Tensor) -> Tensor:
        if self._instead is not None:
            return self._instead(self, v)
        if not self.training:
            return self.level(v) * self.step
        return _Staircase.apply(v, self.step, 0, self.levels, self.noise)

    def level(self, v: Tensor) -> Tensor:
        """The stair that each element of ``v`` stands on, 0 to ``levels``, without noise."""
        return torch.clamp(torch.floor(v / self.step + 0.5), 0, self.levels)

    def with_value(self, v: Tensor, value: Tensor) -> Tensor:
        """``value`` going forward; going backward the gradient of the staircase at ``v``."""
        return _Given.apply(v, self.step, self.levels, value)

    def extra_repr(self) -> str:
        return f"levels={self.levels}, noise={self.noise}, per_channel={self.per_channel}"

    def _load_from_state_dict(self, state, prefix, *args):  # type: ignore[no-untyped-def]
        saved = state.get(f"{prefix}step")
        if saved is not None and saved.shape != self.step.shape:
            self.step = nn.Parameter(torch.ones_like(saved, device=self.step.device))
        super()._load_from_state_dict(state, prefix, *args)


class WeightQuantizer(nn.Module):
    """Weights on ``2**bits`` signed levels with a learned step; a parametrisation of ``weight``.

    ``y = s * clip(floor(w / s + 1/2), -2**(bits - 1), 2**(bits - 1) - 1)``, one step per tensor.
    """

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        self.lowest, self.highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        self.step = nn.Parameter(best_weight_step(weight, self.lowest, self.highest))

    def forward(self, weight: Tensor) -> Tensor:
        return _Staircase.apply(weight, self.step, self.lowest, self.highest, Noise(0.0))


class _Staircase(torch.autograd.Function):
    """Straight-through staircase; the step's gradient is LSQ's, over sqrt(p * elements of a step).

    In half precision the noise and the rounding are computed in that precision as long as it tells
    the levels apart.
    """

    @staticmethod
    def forward(ctx, v, step, lowest, highest, noise):  # type: ignore[no-untyped-def]
        work = v if highest - lowest <= _HALF_PRECISION_LEVELS else v.float()
        step_here = step.detach().to(work.dtype)
        x = noise.add_to(work / step_here, 0.5)
        level = x.floor_().clamp_(lowest, highest)
        ctx.save_for_backward(work, step, level)
        ctx.lowest, ctx.highest = lowest, highest
        return (level * step_here).to(v.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return *_straight_through(grad, *ctx.saved_tensors, ctx.lowest, ctx.highest), *[None] * 3


class _Given(torch.autograd.Function):
    """A value from elsewhere in place of the staircase's, with the staircase's gradient."""

    @staticmethod
    def forward(ctx, v, step, highest, value):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(v, step, value)
        ctx.highest = highest
        return value.to(v.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        v, step, value = ctx.saved_tensors
        level = (value / step.detach()).to(v.dtype)
        return *_straight_through(grad, v, step, level, 0, ctx.highest), None, None


def _straight_through(
    grad: Tensor, v: Tensor, step: Tensor, level: Tensor, lowest: int, highest: int
) -> tuple[Tensor, Tensor]:
    """Gradients of ``v`` and ``step`` where the output was ``level * step``."""
    step_here = step.to(v.dtype)
    grad_v = _within(grad, v, step_here * lowest, step_here * highest)
    by_element = (grad * level).addcdiv_(grad_v * v, step_here, value=-1)
    samples = v.shape[0] if lowest == 0 else 1  # a weight's first axis is not the batch
    elements = v.numel() // samples // step.numel()
    grad_step = by_element.float().sum_to_size(step.shape) * (highest * elements) ** -0.5
    return grad_v, grad_step


def _within(grad: Tensor, v: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``grad`` where ``low < v < high``, else 0."""
    if low.ndim == 0 and v.device.type == "cpu":  # one pass over memory in place of four
        return torch.ops.aten.hardtanh_backward(grad, v, float(low), float(high))
    return grad * ((v > low) & (v < high))


def best_step(v: Tensor, levels: int, per_channel: bool = False) -> Tensor:
    """The step in ``max(v) / levels * (0.05 .. 1]`` with the least squared error against ReLU(v).

    A scalar, or with ``per_channel`` shape ``[C, 1, ...]``; 1 where no value is positive.
    """
    target = v.detach().float().clamp(min=0)
    rows = target.transpose(0, 1).flatten(1) if per_channel else target.reshape(1, -1)
    rows = rows[:, :: max(1, rows.shape[1] // 200_000)]
    step = _least_squares_step(rows, 0, levels, rows.amax(1) / levels)
    return step.view(-1, *[1] * (v.ndim - 2)) if per_channel else step.view(())


def best_weight_step(weight: Tensor, lowest: int, highest: int) -> Tensor:
    """The scalar step with the least squared error between ``weight`` and its staircase."""
    row = weight.detach().float().reshape(1, -1)
    return _least_squares_step(row, lowest, highest, row.abs().amax(1) / highest).view(())


def _least_squares_step(rows: Tensor, lowest: int, highest: int, largest: Tensor) -> Tensor:
    """The best of the candidates ``largest * (0.05 .. 1]`` for each row of ``rows`` [R, M]."""
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    best, least = largest, torch.full_like(largest, torch.inf)
    for share in _CANDIDATE_STEPS.tolist():
        step = (largest * share).view(-1, 1)
        level = torch.clamp(torch.floor(rows / step + 0.5), lowest, highest)
        error = (level * step - rows).square().mean(1)
        best = torch.where(error < least, step.view(-1), best)
        least = torch.minimum(error, least)
    return best


def initialise_steps(module: nn.Module, images: Tensor) -> None:
    """Set every quantiser's step by least squared error, layer by layer, on ``images`` [N, ...].

    Each layer sees inputs that the layers before it have already quantised. Make the optimiser
    afterwards: the steps are new parameters.
    """

    def initialise(quantizer: Quantizer, v: Tensor) -> Tensor:
        quantizer.step = nn.Parameter(best_step(v, quantizer.levels, quantizer.per_channel))
        return quantizer.level(v) * quantizer.step

    module.eval()
    with instead(module, initialise), torch.no_grad():
        module(images)


@contextmanager
def instead(module: nn.Module, function: Callable[[Quantizer, Tensor], Tensor]) -> Iterator[None]:
    """Within it every quantiser of ``module`` is computed by ``function(quantizer, v)``."""
    quantizers = [m for m in module.modules() if isinstance(m, Quantizer)]
    for quantizer in quantizers:
        quantizer._instead = function
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer._instead = None


def quantize(
    module: nn.Module,
    bits: int = 2,
    noise: float | Noise = 0.5,
    *,
    per_channel: bool = False,
    weight_bits: int = 32,
) -> nn.Module:
    """Replace every ``nn.ReLU`` inside ``module``, in place, by a :class:`Quantizer`.

    A ReLU that is used at several places of the network keeps one shared quantiser. With
    ``weight_bits`` below 32 the weights of convolutions and linear layers are quantised too, the
    first and the last layer's to 8 bits at least. Returns the module.

    Raises ValueError where there is no ReLU to replace.
    """
    replaced: dict[int, Quantizer] = {}
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.ReLU, nn.ReLU6)):
                new = Quantizer(bits, noise, per_channel=per_channel)
                setattr(parent, name, replaced.setdefault(id(child), new))
    if not replaced:
        raise ValueError(f"{type(module).__name__} holds no nn.ReLU to quantise")
    if weight_bits < 32:
        _quantize_weights(module, weight_bits)
    return module


def _quantize_weights(module: nn.Module, bits: int) -> None:
    if bits < 2:
        raise ValueError(f"weight_bits must be at least 2, got {bits}")
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    layers = [m for m in module.modules() if isinstance(m, kinds)]
    for layer in layers:
        outer = layer is layers[0] or layer is layers[-1]
        quantizer = WeightQuantizer(layer.weight, max(bits, 8) if outer else bits)
        parametrize.register_parametrization(layer, "weight", quantizer)
