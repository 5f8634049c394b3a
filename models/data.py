"""Image data sets, and how their training batches are drawn and augmented.

A data set gives batches by index. The shift and flip of each image come from the batch's seed, for
the whole batch even where only a ``part`` of it is wanted, so that training is the same on any
number of processes and worker processes, and can be resumed at any batch.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from na_convert.errors import DataError

from . import archives

# Mean and standard deviation of the training images, per channel, for pixels scaled to 0..1.
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN = (0.5071, 0.4866, 0.4409)
CIFAR100_STD = (0.2673, 0.2564, 0.2762)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DIGITS_MEAN = (0.3053,)
DIGITS_STD = (0.3760,)


@dataclass(frozen=True)
class Augmentation:
    """Random shift by up to ``padding`` pixels (zeros come in), random horizontal ``flip``."""

    padding: int = 4
    flip: bool = True


class Images(Protocol):
    """A data set: uint8 images ``[n, C, H, W]`` and int64 labels ``[n]`` by index."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """As they are evaluated."""

    def training_batch(
        self, indices: Tensor, seed: int, augmentation: Augmentation, part: slice
    ) -> tuple[Tensor, Tensor]:
        """``part`` of the augmented batch of ``indices``."""


@dataclass(frozen=True)
class ImageSet:
    """Images in memory: ``images`` uint8 [N, C, H, W] and ``labels`` int64 [N]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def shuffled(self, seed: int) -> ImageSet:
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return ImageSet(self.images[order], self.labels[order])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.images[indices], self.labels[indices]

    def training_batch(
        self, indices: Tensor, seed: int, augmentation: Augmentation, part: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        images = augment(self.images[indices], seed, augmentation, part)
        return images, self.labels[indices[part]]


@dataclass(frozen=True)
class Dataset:
    """Training and test images, and the mean and deviation of pixels scaled to 0..1."""

    training: Images
    test: Images
    classes: int
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def augment(
    images: Tensor, seed: int, augmentation: Augmentation, part: slice = slice(None)
) -> Tensor:
    """``part`` of uint8 ``images`` [N, C, H, W], each image shifted and flipped at random."""
    count, channels, height, width = images.shape
    padding = augmentation.padding
    generator = torch.Generator().manual_seed(seed)
    shift = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)[:, part]
    flip = torch.rand(count, generator=generator)[part] < 0.5
    padded = torch.nn.functional.pad(images[part], [padding] * 4)
    rows = shift[0].view(-1, 1) + torch.arange(height)
    columns = shift[1].view(-1, 1) + torch.arange(width)
    if augmentation.flip:
        columns = torch.where(flip.view(-1, 1), columns.flip(1), columns)
    batch = torch.arange(len(padded)).view(-1, 1, 1, 1)
    channel = torch.arange(channels).view(1, -1, 1, 1)
    return padded[batch, channel, rows[:, None, :, None], columns[:, None, None, :]]


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [N, C, H, W] -> float32 ``(pixel / 255 - mean) / std``, channels last in memory."""
    m = torch.tensor(mean, device=images.device).view(-1, 1, 1)
    s = torch.tensor(std, device=images.device).view(-1, 1, 1)
    scaled = (images.float() / 255 - m) / s
    return scaled.contiguous(memory_format=torch.channels_last)


def load(kind: str, path: Path | None) -> Dataset:
    """The data set ``kind``: "cifar10", "cifar100", "image_folder" or "digits".

    ``path``: for CIFAR the official archive (binary or python version), the folder that holds or
    came out of it, or a JPEG pack (``.npz``); for "image_folder" a folder with ``train`` and
    ``val``; "digits" comes with scikit-learn and takes none.

    Raises DataError where the data is missing or not what it should be.
    """
    if kind == "digits":
        return _digits()
    if path is None:
        raise DataError(f"the data set {kind!r} needs --data", remedy="give its file or folder")
    if not path.exists():
        raise DataError(f"{path}: no such file or folder", remedy="give --data the data set's path")
    if kind in ("cifar10", "cifar100"):
        return _cifar(kind, path)
    if kind == "image_folder":
        from .image_folder import load_image_folder

        return load_image_folder(path)
    raise DataError(
        f"no data set called {kind!r}", remedy="use cifar10, cifar100, image_folder or digits"
    )


def load_jpeg_pack(path: Path) -> tuple[ImageSet, ImageSet]:
    """Training and test images of an ``.npz`` that holds JPEG files back to back.

    Arrays: ``jpeg`` uint8, ``offsets`` [N + 1] (image i is ``jpeg[offsets[i]:offsets[i + 1]]``),
    ``labels`` [N], ``split`` [N] (0 train, 1 test). The pack is not shuffled.
    """
    from PIL import Image

    try:
        with np.load(path, allow_pickle=False) as pack:
            jpeg, offsets = pack["jpeg"], pack["offsets"]
            labels, split = pack["labels"].astype(np.int64), pack["split"]
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{path}: not a JPEG pack ({error})") from error
    decoded = [
        np.asarray(Image.open(io.BytesIO(jpeg[start:stop].tobytes())).convert("RGB"))
        for start, stop in zip(offsets[:-1], offsets[1:], strict=True)
    ]
    images = np.stack(decoded).transpose(0, 3, 1, 2)
    train, test = (_image_set(images[split == part], labels[split == part]) for part in (0, 1))
    return train, test


def seeds(*entropy: int) -> Iterator[int]:
    """An endless stream of well-mixed 63-bit seeds from a few small numbers."""
    source = np.random.SeedSequence(entropy)
    while True:
        (child,) = source.spawn(1)
        yield int(child.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _cifar(kind: str, path: Path) -> Dataset:
    if path.suffix.lower() == ".npz":
        training, test = load_jpeg_pack(path)
    else:
        training, test = (_image_set(*part) for part in archives.load_cifar(kind, path))
    mean, std = (CIFAR10_MEAN, CIFAR10_STD) if kind == "cifar10" else (CIFAR100_MEAN, CIFAR100_STD)
    # The JPEG pack is sorted by class.
    return Dataset(
        training, test.shuffled(0), 10 if kind == "cifar10" else 100, (3, 32, 32), mean, std
    )


def _digits() -> Dataset:
    """1797 images 8x8 of handwritten digits; every fifth is a test image."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    is_test = np.arange(len(labels)) % 5 == 0
    training, test = (_image_set(images[chosen], labels[chosen]) for chosen in (~is_test, is_test))
    return Dataset(training, test, 10, (1, 8, 8), DIGITS_MEAN, DIGITS_STD)


def _image_set(images: NDArray[np.uint8], labels: NDArray[np.integer]) -> ImageSet:
    return ImageSet(
        torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64))
    )
