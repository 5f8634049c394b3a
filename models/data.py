"""Image data sets as uint8 tensors, and the augmentation of training batches."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# Mean and standard deviation of CIFAR-10's training images, per channel, for pixels scaled to 0..1.
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True)
class ImageSet:
    """``images`` uint8 [N, C, H, W] and ``labels`` int64 [N]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def shuffled(self, seed: int) -> ImageSet:
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return ImageSet(self.images[order], self.labels[order])


def load_jpeg_pack(path: Path) -> tuple[ImageSet, ImageSet]:
    """Training and test images of an ``.npz`` that holds JPEG files back to back.

    Arrays: ``jpeg`` uint8, ``offsets`` [N + 1] (image i is ``jpeg[offsets[i]:offsets[i + 1]]``),
    ``labels`` [N], ``split`` [N] (0 train, 1 test). The pack is not shuffled.
    """
    from PIL import Image

    with np.load(path, allow_pickle=False) as pack:
        jpeg, offsets = pack["jpeg"], pack["offsets"]
        labels, split = pack["labels"].astype(np.int64), pack["split"]
    decoded = [
        np.asarray(Image.open(io.BytesIO(jpeg[start:stop].tobytes())).convert("RGB"))
        for start, stop in zip(offsets[:-1], offsets[1:], strict=True)
    ]
    images = np.stack(decoded).transpose(0, 3, 1, 2)
    train, test = (
        ImageSet(
            torch.from_numpy(np.ascontiguousarray(images[split == part])),
            torch.from_numpy(labels[split == part]),
        )
        for part in (0, 1)
    )
    return train, test


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [N, C, H, W] -> float32 ``(pixel / 255 - mean) / std``, channels last in memory."""
    m = torch.tensor(mean).view(-1, 1, 1)
    s = torch.tensor(std).view(-1, 1, 1)
    scaled = (images.float() / 255 - m) / s
    return scaled.contiguous(memory_format=torch.channels_last)


def training_batches(
    data: ImageSet, batch: int, generator: torch.Generator, padding: int = 4
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of shuffled uint8 batches, each image cropped at random after padding and flipped.

    The last, smaller batch is left out.
    """
    order = torch.randperm(len(data), generator=generator)
    for start in range(0, len(data) - batch + 1, batch):
        index = order[start : start + batch]
        yield augment(data.images[index], generator, padding), data.labels[index]


def augment(images: Tensor, generator: torch.Generator, padding: int) -> Tensor:
    """Random shift by up to ``padding`` pixels (zeros come in) and random horizontal flip."""
    count, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, [padding] * 4)
    shift = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)
    rows = shift[0].view(-1, 1) + torch.arange(height)
    columns = shift[1].view(-1, 1) + torch.arange(width)
    flip = torch.rand(count, generator=generator) < 0.5
    columns = torch.where(flip.view(-1, 1), columns.flip(1), columns)
    batch = torch.arange(count).view(-1, 1, 1, 1)
    channel = torch.arange(channels).view(1, -1, 1, 1)
    return padded[batch, channel, rows.view(count, 1, -1, 1), columns.view(count, 1, 1, -1)]
