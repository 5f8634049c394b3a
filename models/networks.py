"""Networks to convert: every activation is an ``nn.ReLU`` that ``quantize`` replaces.

All of them take images ``[N, C, H, W]`` (an MLP any ``[N, ...]``), give logits ``[N, classes]``,
and average over the image before a linear head. A max-pool stands either in front of the first
activation or directly behind one: there the conversion is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

STEMS = ("cifar", "patch", "imagenet")

_THREE_STAGES = (16, 32, 64)
_FOUR_STAGES = (64, 128, 256, 512)
_VGG = {
    "vgg11": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "vgg16": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}
# Expansion, output channels, blocks and first stride: MobileNetV2's table for 32x32 images.
_MOBILE = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
)


def build(
    name: str,
    classes: int = 10,
    *,
    shape: tuple[int, ...] = (3, 32, 32),
    stem: str | None = None,
    widths: Sequence[int] = (),
) -> nn.Module:
    """The network called ``name``, for inputs of ``shape`` (without the batch).

    Args:
        stem: of a ResNet; "cifar" is a 3x3 convolution, "patch" a 4x4 one of stride 2, "imagenet"
            a 7x7 one of stride 2 with a max-pool. By default "cifar" up to 64 pixels.
        widths: channels of each stage of a ResNet, or of each hidden layer of an MLP, in place of
            the usual ones.

    Raises ValueError for an unknown name or stem, or widths that do not fit the network.
    """
    if name == "mlp":
        return Mlp(shape, tuple(widths) or (256, 256), classes)
    if name in RESNETS:
        block, counts, usual = RESNETS[name]
        own = tuple(widths) or usual
        if len(own) != len(counts):
            raise ValueError(f"{name} has {len(counts)} stages, got {len(own)} widths")
        chosen = stem or ("cifar" if shape[-1] <= 64 else "imagenet")
        return ResNet(block, counts, own, chosen, classes, shape[0])
    if stem or widths:
        raise ValueError(f"{name} takes neither stem nor widths")
    if name in _VGG:
        return Vgg(_VGG[name], classes, shape[0])
    if name == "mobilenet":
        return MobileNet(classes, shape[0])
    raise ValueError(f"no network called {name!r}: one of {', '.join(names())} is needed")


def names() -> list[str]:
    """The names that `build` knows."""
    return [*RESNETS, *_VGG, "mobilenet", "mlp"]


class BasicBlock(nn.Module):
    """conv-bn-act-conv-bn, plus the input (by a 1x1 conv where the shape changes), then act."""

    expansion = 1

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act1 = nn.ReLU()
        self.conv2 = _conv(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act2 = nn.ReLU()
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.act2(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each with bn, and the input added before the last act."""

    expansion = 4

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = outputs // self.expansion
        self.conv1 = _conv(inputs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.act1 = nn.ReLU()
        self.conv2 = _conv(inner, inner, 3, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.act2 = nn.ReLU()
        self.conv3 = _conv(inner, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.act3 = nn.ReLU()
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.act2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.act3(y + self.downsample(x))


class ResNet(nn.Module):
    """Residual network (He et al., arXiv 1512.03385): stem, stages of blocks, mean, linear head.

    Args:
        block: of which each stage has as many as ``counts`` says; a stage halves the image, except
            the first.
        widths: channels of each stage, times the block's expansion.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        counts: Sequence[int],
        widths: Sequence[int],
        stem: str = "cifar",
        classes: int = 10,
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.stem = _stem(stem, channels, widths[0])
        layers: list[nn.Module] = []
        inputs = widths[0]
        for stage, (count, width) in enumerate(zip(counts, widths, strict=True)):
            outputs = width * block.expansion
            for index in range(count):
                layers.append(block(inputs, outputs, 2 if stage and not index else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(self.blocks(self.stem(x)))))


class CifarResNet(ResNet):
    """ResNet for 32x32 images: ``6 * blocks + 2`` layers (section 4.2); 1 block is ResNet-8."""

    def __init__(
        self, blocks: int = 1, widths: tuple[int, int, int] = _THREE_STAGES, classes: int = 10
    ) -> None:
        super().__init__(BasicBlock, [blocks] * 3, widths, "cifar", classes)


class Vgg(nn.Sequential):
    """VGG with BatchNorm (arXiv 1409.1556): stages of 3x3 convolutions, a max-pool behind each."""

    def __init__(self, stages: Sequence[Sequence[int]], classes: int, channels: int = 3) -> None:
        layers: list[nn.Module] = []
        inputs = channels
        for stage in stages:
            for width in stage:
                layers += _conv_bn_act(inputs, width)
                inputs = width
            layers.append(nn.MaxPool2d(2))
        layers[-1] = nn.AdaptiveAvgPool2d(1)
        super().__init__(*layers, nn.Flatten(), nn.Linear(inputs, classes))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection without activation; the input added if it fits.

    From MobileNetV2 (Sandler et al., arXiv 1801.04381).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = _conv_bn_act(inputs, inner, size=1) if expansion > 1 else []
        depthwise = _conv_bn_act(inner, inner, stride=stride, groups=inner)
        project = [_conv(inner, outputs, 1), nn.BatchNorm2d(outputs)]
        self.layers = nn.Sequential(*expand, *depthwise, *project)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


class MobileNet(nn.Sequential):
    """A small MobileNetV2 for 32x32 images."""

    def __init__(self, classes: int, channels: int = 3) -> None:
        layers: list[nn.Module] = _conv_bn_act(channels, 32)
        inputs = 32
        for expansion, outputs, count, first_stride in _MOBILE:
            for index in range(count):
                stride = 1 if index else first_stride
                layers.append(InvertedResidual(inputs, outputs, stride, expansion))
                inputs = outputs
        layers += _conv_bn_act(inputs, 640, size=1)
        head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(640, classes)
        super().__init__(*layers, *head)


class Mlp(nn.Sequential):
    """Fully connected layers with an activation behind each but the last; no BatchNorm."""

    def __init__(self, shape: Sequence[int], widths: Sequence[int], classes: int) -> None:
        inputs = int(torch.Size(shape).numel())
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise((inputs, *widths)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*layers, nn.Linear(widths[-1], classes))


_Resnet = tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...], tuple[int, ...]]
RESNETS: dict[str, _Resnet] = {
    **{f"resnet{6 * n + 2}": (BasicBlock, (n, n, n), _THREE_STAGES) for n in (1, 2, 3, 5, 7, 9)},
    "resnet18": (BasicBlock, (2, 2, 2, 2), _FOUR_STAGES),
    "resnet34": (BasicBlock, (3, 4, 6, 3), _FOUR_STAGES),
    "resnet50": (Bottleneck, (3, 4, 6, 3), _FOUR_STAGES),
    "resnet101": (Bottleneck, (3, 4, 23, 3), _FOUR_STAGES),
    "resnet152": (Bottleneck, (3, 8, 36, 3), _FOUR_STAGES),
}


def _stem(kind: str, channels: int, width: int) -> nn.Sequential:
    kinds: dict[str, Callable[[], list[nn.Module]]] = {
        "cifar": lambda: _conv_bn_act(channels, width),
        "patch": lambda: _conv_bn_act(channels, width, size=4, stride=2),
        "imagenet": lambda: _imagenet_stem(channels, width),
    }
    if kind not in kinds:
        raise ValueError(f"no stem called {kind!r}: one of {', '.join(STEMS)} is needed")
    return nn.Sequential(*kinds[kind]())


def _imagenet_stem(channels: int, width: int) -> list[nn.Module]:
    conv, norm, act = _conv_bn_act(channels, width, size=7, stride=2)
    return [conv, norm, nn.MaxPool2d(3, 2, padding=1), act]


def _conv_bn_act(
    inputs: int, outputs: int, *, size: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    return [_conv(inputs, outputs, size, stride, groups), nn.BatchNorm2d(outputs), nn.ReLU()]


def _conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    padding = (size - 1) // 2
    return nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
