"""Activation quantisers as training libraries write them; each knows its step and its levels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Staircase(nn.Module):
    """Base: `levels` stairs above the lowest, each `step` wide."""

    def __init__(self, step: float = 0.3, levels: int = 3) -> None:
        super().__init__()
        self.levels = levels
        self.step = nn.Parameter(torch.tensor(step))

    def steps(self) -> list[float]:
        return self.step.detach().flatten().tolist()


class QCFS(Staircase):
    def forward(self, x: Tensor) -> Tensor:
        threshold = self.step * self.levels
        scaled = torch.clamp(x / threshold, 0, 1)
        return torch.floor(scaled * self.levels + 0.5) / self.levels * threshold


class LSQ(Staircase):
    def forward(self, x: Tensor) -> Tensor:
        return torch.round(torch.clamp(x / self.step, 0, self.levels)) * self.step


class PactClamp(Staircase):
    """clamp(x, 0, alpha) with alpha a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.step * self.levels
        clipped = torch.minimum(torch.relu(x), alpha)
        return torch.round(clipped * (self.levels / alpha)) * (alpha / self.levels)


class PactAbs(Staircase):
    """0.5 * (|x| - |x - alpha| + alpha), as in the paper."""

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.step * self.levels
        clipped = 0.5 * (x.abs() - (x - alpha).abs() + alpha)
        return torch.round(clipped * (self.levels / alpha)) * (alpha / self.levels)


class PactWhere(Staircase):
    """relu(x) where below alpha, else alpha."""

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.step * self.levels
        clipped = torch.where(x < alpha, torch.relu(x), alpha)
        return torch.round(clipped * (self.levels / alpha)) * (alpha / self.levels)


class DoReFa(Staircase):
    """Levels from 0 to 1."""

    def __init__(self, step: float = 0.3, levels: int = 3) -> None:
        super().__init__(1 / levels, levels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(torch.clamp(x, 0, 1) * self.levels) / self.levels


class FakeQuantize(Staircase):
    """Eight bits, behind a ReLU; the step is a plain number, which torch.export needs."""

    def __init__(self, step: float = 0.02) -> None:
        super().__init__(step, 255)
        self.scale = step

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(torch.relu(x), self.scale, 0, 0, 255)


class FakeQuantizePerChannel(Staircase):
    def __init__(self, step: float = 0.02, channels: int = 8) -> None:
        super().__init__(step, 255)
        steps = torch.linspace(0.5, 1.5, channels) * step
        self.step = nn.Parameter(steps, requires_grad=False)
        self.register_buffer("zero_point", torch.zeros(channels, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_channel_affine(
            torch.relu(x), self.step, self.zero_point, 1, 0, 255
        )
