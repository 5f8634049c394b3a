"""Small networks, one for each structure; `act` makes their activations.

`STRUCTURES` maps a name to the network's maker and the shapes of its inputs, with the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Callable[[], nn.Module]
IMAGE = (1, 3, 8, 8)


class Head(nn.Module):
    def __init__(self, body: nn.Module, features: int) -> None:
        super().__init__()
        self.body = body
        self.fc = nn.Linear(features, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).flatten(1))


class Bottleneck(nn.Module):
    def __init__(self, act: Activation) -> None:
        super().__init__()
        self.stem = _conv(3, 8, 3, act)
        self.branch = nn.Sequential(
            _conv(8, 4, 1, act), _conv(4, 4, 3, act), nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8)
        )
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return F.adaptive_avg_pool2d(self.act(y + self.branch(y)), 1)


class PreActivation(nn.Module):
    """The skip carries the analog value."""

    def __init__(self, act: Activation) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(8), act(), nn.Conv2d(8, 8, 3, padding=1)) for _ in range(2)
        )
        self.last = nn.Sequential(nn.BatchNorm2d(8), act())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return F.adaptive_avg_pool2d(self.last(x), 1)


class Dense(nn.Module):
    def __init__(self, act: Activation) -> None:
        super().__init__()
        self.stem = _conv(3, 4, 3, act)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(n), act(), nn.Conv2d(n, 4, 3, padding=1)) for n in (4, 8)
        )
        self.last = nn.Sequential(nn.BatchNorm2d(12), act())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return F.adaptive_avg_pool2d(self.last(x), 1)


class Inception(nn.Module):
    def __init__(self, act: Activation) -> None:
        super().__init__()
        self.stem = _conv(3, 8, 3, act)
        self.narrow = _conv(8, 4, 1, act)
        self.wide = _conv(8, 4, 5, act)
        self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), _conv(8, 4, 1, act))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        joined = torch.cat([self.narrow(x), self.wide(x), self.pooled(x)], 1)
        return F.adaptive_avg_pool2d(joined, 1)


class SharedActivation(nn.Module):
    def __init__(self, act: Activation) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.act(self.two(self.act(self.one(x)))), 1)


class InputsAndOutputs(nn.Module):
    def __init__(self, act: Activation) -> None:
        super().__init__()
        self.left, self.right = _conv(3, 4, 3, act), _conv(2, 4, 3, act)
        self.joint = _conv(8, 8, 3, act)
        self.one, self.two = nn.Linear(8, 5), nn.Linear(8, 2)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        joint = self.joint(torch.cat([self.left(x), self.right(y)], 1)).mean((2, 3))
        return self.one(joint), self.two(joint)


class Cut(nn.Module):
    """Slices of channels and of rows."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 2:6, 1:, :-1]


class Stacked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x, x.flip(-1)]).sum(0)


class Permute(nn.Module):
    """Channels last for a linear layer, as in mixers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _conv(inputs: int, outputs: int, size: int, act: Activation, **options: int) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), act())


def _between(middle: nn.Module, features: int) -> Callable[[Activation], nn.Module]:
    """conv, act, `middle`, conv or linear layers behind it."""
    return lambda act: Head(nn.Sequential(_conv(3, 8, 3, act), middle), features)


def _followed(middle: nn.Module, channels: int) -> Callable[[Activation], nn.Module]:
    def make(act: Activation) -> nn.Module:
        layers = (_conv(3, 8, 3, act), middle, _conv(channels, 8, 3, act), nn.AdaptiveAvgPool2d(1))
        return Head(nn.Sequential(*layers), 8)

    return make


def _mlp(act: Activation) -> nn.Module:
    first = nn.Sequential(nn.Linear(10, 16), act(), nn.Linear(16, 12), act())
    return nn.Sequential(*first, nn.Linear(12, 5))


def _mlp_bn(act: Activation) -> nn.Module:
    first = (nn.Linear(10, 16), nn.BatchNorm1d(16), act())
    return nn.Sequential(*first, nn.Linear(16, 12, bias=False), nn.BatchNorm1d(12), act(),
                         nn.Linear(12, 5))  # fmt: skip


def _conv1d(act: Activation) -> nn.Module:
    layers = (nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), act(), nn.Conv1d(8, 8, 3, 2), act())
    return Head(nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1)), 8)


def _conv3d(act: Activation) -> nn.Module:
    layers = (nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4), act(), nn.Conv3d(4, 8, 3), act())
    return Head(nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1)), 8)


def _transposed(act: Activation) -> nn.Module:
    up = nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1)
    layers = (_conv(3, 8, 3, act, stride=2), up, nn.BatchNorm2d(6), act())
    return Head(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1)), 6)


def _depthwise(act: Activation) -> nn.Module:
    layers = (_conv(3, 8, 3, act), _conv(8, 8, 3, act, groups=8), _conv(8, 8, 1, act, groups=2))
    return Head(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1)), 8)


def _softmax(act: Activation) -> nn.Module:
    return nn.Sequential(_mlp(act), nn.Softmax(-1))


def _pool_first(act: Activation) -> nn.Module:
    """A max-pool behind a neuron, and one between a convolution and its activation."""
    first = (_conv(3, 8, 3, act), nn.MaxPool2d(2))
    second = (nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2), act())
    return Head(nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1)), 8)


STRUCTURES: dict[str, tuple[Callable[[Activation], nn.Module], list[tuple[int, ...]]]] = {
    "bottleneck": (lambda act: Head(Bottleneck(act), 8), [IMAGE]),
    "preactivation": (lambda act: Head(PreActivation(act), 8), [IMAGE]),
    "dense": (lambda act: Head(Dense(act), 12), [IMAGE]),
    "inception": (lambda act: Head(Inception(act), 12), [IMAGE]),
    "depthwise": (_depthwise, [IMAGE]),
    "conv1d": (_conv1d, [(1, 3, 16)]),
    "conv3d": (_conv3d, [(1, 2, 7, 7, 7)]),
    "transposed": (_transposed, [IMAGE]),
    "mlp": (_mlp, [(1, 10)]),
    "mlp_bn": (_mlp_bn, [(1, 10)]),
    "avgpool_with_pad": (_followed(nn.AvgPool2d(3, 2, 1, count_include_pad=True), 8), [IMAGE]),
    "avgpool_without_pad": (_followed(nn.AvgPool2d(3, 2, 1, count_include_pad=False), 8), [IMAGE]),
    "avgpool_ceil": (_followed(nn.AvgPool2d(3, 2, ceil_mode=True), 8), [IMAGE]),
    "pad": (_followed(nn.ZeroPad2d((1, 0, 2, 1)), 8), [IMAGE]),
    "slice": (_followed(Cut(), 4), [IMAGE]),
    "upsample": (_followed(nn.Upsample(scale_factor=2, mode="nearest"), 8), [IMAGE]),
    "pixelshuffle": (_followed(nn.PixelShuffle(2), 2), [IMAGE]),
    "permute": (_followed(Permute(), 8), [IMAGE]),
    "stacked": (_followed(Stacked(), 8), [IMAGE]),
    "softmax": (_softmax, [(1, 10)]),
    "adaptive_pool": (_followed(nn.AdaptiveAvgPool2d((3, 5)), 8), [IMAGE]),
    "inputs_outputs": (InputsAndOutputs, [IMAGE, (1, 2, 8, 8)]),
    "shared": (lambda act: Head(SharedActivation(act), 8), [IMAGE]),
    "pool_first": (_pool_first, [IMAGE]),
    "maxpool_only": (_between(nn.MaxPool2d(2), 128), [IMAGE]),
}
