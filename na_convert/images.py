"""Image files in folders, decoded by Pillow when a batch is asked for.

``FOLDER/CLASS/.../FILE``: each class folder is a class, numbered from 0 in the order of their
names; files directly in ``FOLDER`` have no labels of their own. ``resize`` and ``crop`` do what
torchvision's ``Resize`` (bilinear, with antialiasing) and ``CenterCrop`` do to the same files.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, UsageError
from .lazy import LazyArray
from .preprocessing import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

Array: TypeAlias = NDArray[Any]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp")


@dataclass(frozen=True)
class ImageFiles:
    """Image ``files`` in ``folder``; ``classes``: the folder of each, or None for flat files."""

    folder: Path
    files: tuple[Path, ...]
    classes: tuple[str, ...] | None

    def labels(self, numbers: Mapping[str, int] | None) -> NDArray[np.int64] | None:
        """A class number for each file: by ``numbers`` (of a file or class folder), else in order.

        Raises DataError for a file without a number.
        """
        if numbers is None:
            if self.classes is None:
                return None
            order = {name: index for index, name in enumerate(sorted(set(self.classes)))}
            return np.asarray([order[name] for name in self.classes], np.int64)
        found = []
        for index, file in enumerate(self.files):
            relative = file.relative_to(self.folder)
            names = [relative.as_posix(), relative.name, relative.stem]
            names += [self.classes[index]] if self.classes else []
            known = [numbers[name] for name in names if name in numbers]
            if not known:
                raise DataError(f"{file}: has no number in --labels")
            found.append(known[0])
        return np.asarray(found, np.int64)

    def pixels(self, channels: int, how: Preprocessing) -> LazyArray:
        """uint8 [N, C, H, W], C = ``channels`` (1: grey, 3: RGB), resized and cropped.

        Raises DataError where an image cannot be read, or is not of one size with the others.
        """
        first = _decoded(self.files[0], channels, how).shape

        def read(start: int, stop: int) -> Array:
            batch = np.empty((stop - start, *first), np.uint8)
            for row, file in enumerate(self.files[start:stop]):
                image = _decoded(file, channels, how)
                if image.shape != first:
                    raise DataError(
                        f"{file}: is {_size(image)}, {self.files[0].name} is "
                        f"{_size(np.empty(first, np.uint8))}",
                        remedy="bring them to one size with --resize and --crop",
                    )
                batch[row] = image
            return batch

        return LazyArray((len(self.files), *first), np.dtype(np.uint8), read)


def find_images(folder: Path) -> ImageFiles:
    """The images in ``folder`` in the order of their names, class folders first if there are any.

    Raises DataError where there is none, or files lie both beside and in class folders.
    """
    inside = [
        (file, below.name)
        for below in sorted(f for f in folder.iterdir() if f.is_dir())
        for file in sorted(below.rglob("*"))
        if file.suffix.lower() in SUFFIXES
    ]
    flat = sorted(f for f in folder.iterdir() if f.is_file() and f.suffix.lower() in SUFFIXES)
    if flat and inside:
        raise DataError(
            f"{folder}: images beside class folders ({flat[0].name})",
            remedy="put every image into a class folder, or none",
        )
    if flat:
        return ImageFiles(folder, tuple(flat), None)
    if not inside:
        raise DataError(
            f"{folder}: is a folder with neither .npz files nor images",
            remedy="give an .npz or .npy, a folder of .npz shards, or FOLDER/CLASS/IMAGE files",
        )
    return ImageFiles(folder, tuple(f for f, _ in inside), tuple(name for _, name in inside))


def _decoded(file: Path, channels: int, how: Preprocessing) -> Array:
    """One image as uint8 [C, H, W]."""
    try:
        from PIL import Image
    except ImportError as error:
        raise UsageError(
            f"{file.parent}: reading images needs Pillow", remedy="pip install 'na-convert[images]'"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                image = opened.convert("L" if channels == 1 else "RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{file}: an image of so many pixels is refused") from error
    except (OSError, SyntaxError, ValueError, struct.error, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file}: not a readable image ({reason})") from error
    if how.resize is not None:
        image = image.resize(_resized(image.size, how.resize), Image.Resampling.BILINEAR)
    if how.crop is not None:
        image = _cropped(file, image, how.crop)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _resized(size: tuple[int, int], wanted: tuple[int, ...]) -> tuple[int, int]:
    """(width, height): the short side becomes ``wanted``, or both (height, width)."""
    if len(wanted) == 2:
        return wanted[1], wanted[0]
    width, height = size
    short, long = sorted(size)
    other = int(wanted[0] * long / short)
    return (wanted[0], other) if width <= height else (other, wanted[0])


def _cropped(file: Path, image: Image, wanted: tuple[int, ...]) -> Image:
    height, width = wanted if len(wanted) == 2 else (wanted[0], wanted[0])
    if image.width < width or image.height < height:
        raise DataError(
            f"{file}: is {image.width}x{image.height}, smaller than the crop {width}x{height}",
            remedy="enlarge it with --resize",
        )
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _size(image: Array) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"
