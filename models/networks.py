"""Networks to convert: every activation is an ``nn.ReLU`` that ``quantize`` replaces."""

from __future__ import annotations

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """conv-bn-act-conv-bn, plus the input (through a 1x1 conv where the shape changes), then act."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act1 = nn.ReLU()
        self.conv2 = _conv3x3(outputs, outputs, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act2 = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.act2(y + self.downsample(x))


class CifarResNet(nn.Module):
    """ResNet for 32x32 images: ``6 * blocks + 2`` layers (He et al., arXiv 1512.03385, section 4.2).

    Shapes: images ``[N, 3, 32, 32]`` in, logits ``[N, classes]`` out. ``blocks=1`` is ResNet-8.
    """

    def __init__(
        self, blocks: int = 1, widths: tuple[int, int, int] = (16, 32, 64), classes: int = 10
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv3x3(3, widths[0], 1), nn.BatchNorm2d(widths[0]), nn.ReLU())
        layers: list[nn.Module] = []
        channels = widths[0]
        for stage, width in enumerate(widths):
            for index in range(blocks):
                layers.append(BasicBlock(channels, width, 2 if stage and not index else 1))
                channels = width
        self.blocks = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(self.blocks(self.stem(x)))))


def _conv3x3(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
