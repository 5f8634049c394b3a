"""Image trees ``train/CLASS/FILE`` and ``val/CLASS/FILE`` (ImageNet), decoded by Pillow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from na_convert.errors import DataError

from .data import IMAGENET_MEAN, IMAGENET_STD, Augmentation, Dataset

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
_CROP, _SHORT_SIDE = 224, 256


@dataclass(frozen=True)
class FolderSet:
    """Image files and their labels; decoded when a batch is asked for, best in worker processes."""

    files: tuple[Path, ...]
    labels: Tensor
    size: int = _CROP

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The middle ``size`` pixels of each image, its short side scaled to 8/7 of that."""
        images = [_centre(_decoded(self.files[i]), self.size) for i in indices.tolist()]
        return torch.stack(images), self.labels[indices]

    def training_batch(
        self, indices: Tensor, seed: int, augmentation: Augmentation, part: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """A random part (8 to 100 % of the area) of each image, scaled to ``size``; random flip."""
        draws = torch.rand(len(indices), 5, generator=torch.Generator().manual_seed(seed))[part]
        chosen = indices[part]
        images = [
            _random_part(_decoded(self.files[i]), self.size, row, augmentation.flip)
            for i, row in zip(chosen.tolist(), draws.tolist(), strict=True)
        ]
        return torch.stack(images), self.labels[chosen]


def load_image_folder(path: Path, size: int = _CROP) -> Dataset:
    """The data set in ``path/train`` and ``path/val``, one folder for each class.

    Raises DataError where a part is missing or empty, or ``val`` has a class that ``train`` lacks.
    """
    classes = _class_folders(path / "train")
    unknown = sorted(set(_class_folders(path / "val")) - set(classes))
    if unknown:
        raise DataError(f"{path / 'val'}: class {unknown[0]!r} is not in train")
    training, test = (_scan(path / part, classes, size) for part in ("train", "val"))
    return Dataset(training, test, len(classes), (3, size, size), IMAGENET_MEAN, IMAGENET_STD)


def _class_folders(folder: Path) -> list[str]:
    found = sorted(f.name for f in folder.iterdir() if f.is_dir()) if folder.is_dir() else []
    if not found:
        raise DataError(f"{folder}: no class folders", remedy="expected PART/CLASS/IMAGE files")
    return found


def _scan(folder: Path, classes: list[str], size: int) -> FolderSet:
    found = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((folder / name).glob("**/*"))
        if file.suffix.lower() in _SUFFIXES
    ]
    if not found:
        raise DataError(f"{folder}: no images ({', '.join(sorted(_SUFFIXES))})")
    return FolderSet(tuple(f for f, _ in found), torch.tensor([c for _, c in found]), size)


def _decoded(file: Path) -> PillowImage:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{file}: not a readable image ({error})") from error


def _centre(image: PillowImage, size: int) -> Tensor:
    scale = size * _SHORT_SIDE / _CROP / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height))
    return _tensor(resized.crop((left, top, left + size, top + size)))


def _random_part(image: PillowImage, size: int, draws: list[float], flip: bool) -> Tensor:
    """``draws``: five numbers from 0 to 1, for area, aspect ratio (3:4 to 4:3), place and flip."""
    width, height = image.size
    area = (0.08 + 0.92 * draws[0]) * width * height
    ratio = math.exp((2 * draws[1] - 1) * math.log(4 / 3))
    part_width = min(width, max(1, round(math.sqrt(area * ratio))))
    part_height = min(height, max(1, round(math.sqrt(area / ratio))))
    left = int(draws[2] * (width - part_width + 1))
    top = int(draws[3] * (height - part_height + 1))
    box = (left, top, left + part_width, top + part_height)
    tensor = _tensor(image.resize((size, size), box=box))
    return tensor.flip(-1) if flip and draws[4] < 0.5 else tensor


def _tensor(image: PillowImage) -> Tensor:
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())
