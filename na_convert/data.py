"""Samples for verification: the network's inputs from files, or seeded random numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .images import ImageFiles
from .labels import read_labels
from .lazy import LazyArray
from .preprocessing import Preprocessing, to_floats
from .sources import LABEL_NAMES, Arrays, open_source

__all__ = ["InputSpec", "Preprocessing", "Samples", "load_data", "random_data"]

Array = NDArray[Any]


@dataclass(frozen=True)
class InputSpec:
    """A network input: ``shape`` with the batch first and None for every free dimension."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Samples:
    """What a network is fed: ``feeds`` [N, ...] by input name, and class ``labels`` int64 [N].

    A feed is an array, or gives one when it is sliced (`lazy.LazyArray`), so that data may be
    larger than memory: take rows, ``feed[start:stop]``, never the whole. ``description`` says
    where they come from, ``notes`` what was assumed about them.
    """

    feeds: dict[str, Any]
    labels: NDArray[np.int64] | None
    description: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.feeds.values())))


def load_data(
    source: str | Path | Mapping[str, Array],
    inputs: Sequence[InputSpec],
    metadata: Mapping[str, str] | None = None,
    preprocessing: Preprocessing | None = None,
    labels: str | Path | Array | None = None,
) -> Samples:
    """Samples from whatever `sources.open_source` takes, checked against ``inputs``.

    Arrays carry the inputs' own names (``x`` also serves a network with a single input), and
    optionally class labels, ``labels`` or ``y``; or they come apart, as ``labels`` (an array or a
    file, see `labels`). uint8 images for a float input become floats by ``preprocessing``, and
    where that says nothing by the model's ``metadata`` (``na_convert.scale``, ``.mean``, ``.std``:
    JSON numbers or lists). Floats are taken as they are unless ``preprocessing`` is given.

    Raises DataError, one line, for whatever does not fit; for what is read later, when it is read.
    """
    opened, how = open_source(source), preprocessing or Preprocessing()
    where, arrays, notes = opened.where, dict(opened.arrays), list[str]()
    apart = read_labels(Path(labels)) if isinstance(labels, str | Path) else labels
    if opened.images is not None:
        arrays, apart = _image_arrays(opened.images, inputs, how, apart, notes)
    elif how.changes_size:
        raise DataError(f"{where}: --resize and --crop are for image files")
    if isinstance(apart, dict):
        raise DataError(f"{where}: --labels has names, the samples have none", remedy=_IN_ORDER)
    names = _array_names(where, arrays, inputs)
    used = set(names.values())
    if apart is not None:
        if any(name in arrays and name not in used for name in LABEL_NAMES):
            raise DataError(f"{where}: holds labels already", remedy="leave out --labels")
        arrays["labels"] = apart
    feeds = {}
    for spec in inputs:
        array = arrays[names[spec.name]]
        place = f"{where}: {names[spec.name]}" if opened.images is None else where
        feeds[spec.name] = _to_dtype(place, array, spec, metadata or {}, how, notes)
    count = _common_length(where, feeds)
    found = _labels(where, arrays, used, count, notes)
    ignored = sorted(set(arrays) - used - set(LABEL_NAMES))
    if ignored:
        notes.append(f"{where}: not used: {', '.join(ignored)}")
    return Samples(feeds, found, where, tuple(notes))


_IN_ORDER = "give one number per sample, in their order"


def random_data(inputs: Sequence[InputSpec], seed: int = 0, count: int = 8) -> Samples:
    """``count`` samples of standard normal numbers (uint8 inputs: uniform 0..255), from ``seed``.

    Raises DataError where an input has a free dimension besides the batch, or holds other integers:
    nothing is known then about what the network expects.
    """
    generator = np.random.default_rng(seed)
    remedy = "give real samples with --data"
    feeds: dict[str, Array] = {}
    for spec in inputs:
        sample = spec.shape[1:]
        if any(size is None for size in sample):
            raise DataError(
                f"input {spec.name!r} has a free shape {_shape(spec.shape)}, "
                "so there is no random input for it",
                remedy=remedy,
            )
        shape = (count, *(size for size in sample if size is not None))
        if spec.dtype.kind == "f":
            feeds[spec.name] = generator.standard_normal(shape).astype(spec.dtype)
        elif spec.dtype == np.uint8:
            feeds[spec.name] = generator.integers(0, 256, shape, np.uint8)
        else:
            raise DataError(
                f"input {spec.name!r} holds {spec.dtype}, for which random values mean nothing",
                remedy=remedy,
            )
    notes = ("verified on random input, not on real samples: accuracy unknown (see --data)",)
    return Samples(feeds, None, f"random normal input, seed {seed}", notes)


# --- checking -------------------------------------------------------------------------------------


def _image_arrays(
    images: ImageFiles,
    inputs: Sequence[InputSpec],
    how: Preprocessing,
    labels: Array | dict[str, int] | None,
    notes: list[str],
) -> tuple[Arrays, Array | None]:
    """The pixels as ``x``, and the labels."""
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise DataError(f"{images.folder}: images are for a network with one input [N, C, H, W]")
    channels = inputs[0].shape[1]
    pixels = images.pixels(1 if channels == 1 else 3, how)
    height, width = inputs[0].shape[2:]
    if not _matches(pixels.shape[2:], (height, width)):
        raise DataError(
            f"{images.files[0]}: has {pixels.shape[2]}x{pixels.shape[3]} pixels (height x width), "
            f"the model wants {height or '?'}x{width or '?'}",
            remedy="give --resize and --crop as in evaluating the model",
        )
    if isinstance(labels, dict) or labels is None:
        if labels is None and images.classes is not None:
            classes = sorted(set(images.classes))
            notes.append(
                f"{images.folder}: {len(classes)} class folders, numbered from 0 in the order of "
                f"their names ({classes[0]} .. {classes[-1]})"
            )
        labels = images.labels(labels)
    return {"x": pixels}, labels


def _array_names(where: str, arrays: Arrays, inputs: Sequence[InputSpec]) -> dict[str, str]:
    """For each input the name of its array."""
    names = {}
    for spec in inputs:
        if spec.name in arrays:
            names[spec.name] = spec.name
        elif len(inputs) == 1 and "x" in arrays:
            names[spec.name] = "x"
        else:
            wanted = f"{spec.name!r}" + (" or 'x'" if len(inputs) == 1 else "")
            found = ", ".join(sorted(arrays)) or "nothing"
            raise DataError(
                f"{where}: no array named {wanted} (found: {found})",
                node=spec.name,
                remedy="name the arrays as the network's inputs",
            )
    return names


def _to_dtype(
    place: str,
    array: Array | LazyArray,
    spec: InputSpec,
    metadata: Mapping[str, str],
    how: Preprocessing,
    notes: list[str],
) -> Array | LazyArray:
    """``array`` checked and in the input's own dtype; pixels and lazy arrays when they are read."""
    _check_shape(place, array, spec)
    convert = _conversion(place, array.dtype, spec, metadata, how, notes)
    if isinstance(array, LazyArray):
        return array.mapped(convert, spec.dtype)
    if array.dtype == np.uint8 and spec.dtype.kind == "f":
        convert(array[:1])  # what is wrong is said now
        lazy = LazyArray(array.shape, array.dtype, lambda start, stop: array[start:stop])
        return lazy.mapped(convert, spec.dtype)
    return convert(array)


def _conversion(
    place: str,
    dtype: np.dtype[Any],
    spec: InputSpec,
    metadata: Mapping[str, str],
    how: Preprocessing,
    notes: list[str],
) -> Callable[[Array], Array]:
    """From rows of ``dtype`` to those of the input; raises DataError where there is no way."""
    if spec.dtype.kind == "f" and (dtype == np.uint8 or dtype.kind == "f"):
        working = np.promote_types(spec.dtype, np.float32)
        floats = to_floats(place, dtype, metadata, how, working, notes)
        return lambda rows: _finite(place, floats(rows), spec.dtype)
    if how.changes_values:
        raise DataError(f"{place}: --scale, --mean and --std do not apply to a {spec.dtype} input")
    mismatch = DataError(f"{place}: holds {dtype}, the model wants {spec.dtype}", node=spec.name)
    if dtype == spec.dtype:
        return lambda rows: rows
    if dtype.kind not in "iu" or spec.dtype.kind not in "iu":
        raise mismatch

    def fitted(rows: Array) -> Array:
        if not _fits(rows, spec.dtype):
            raise mismatch
        return rows.astype(spec.dtype)

    return fitted


def _finite(place: str, rows: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):
        rows = rows.astype(dtype, copy=False)
    bad = rows.size - int(np.isfinite(rows).sum())
    if bad:
        raise DataError(f"{place}: {bad} of {rows.size} values are not finite as {dtype}")
    return rows


def _fits(array: Array, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return bool(array.min() >= limits.min and array.max() <= limits.max)


def _check_shape(place: str, array: Array | LazyArray, spec: InputSpec) -> None:
    wanted, got = _shape(("N", *spec.shape[1:])), _shape(array.shape)
    mismatch = f"{place}: has shape {got}, the model wants {wanted}"
    if _matches(array.shape, spec.shape[1:]):
        raise DataError(mismatch, node=spec.name, remedy="add the batch axis: x[None]")
    if array.ndim != len(spec.shape):
        raise DataError(mismatch, node=spec.name)
    if not len(array):
        raise DataError(f"{place}: holds no samples (shape {got})", node=spec.name)
    if _matches(array.shape[1:], spec.shape[1:]):
        return
    channels_first = (array.shape[-1], *array.shape[1:-1])
    if array.ndim > 2 and _matches(channels_first, spec.shape[1:]):
        axes = ", ".join(str(axis) for axis in (0, array.ndim - 1, *range(1, array.ndim - 1)))
        raise DataError(
            f"{mismatch}; its channels come last",
            node=spec.name,
            remedy=f"store x.transpose({axes})",
        )
    raise DataError(mismatch, node=spec.name)


def _matches(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(
        size in (None, have) for have, size in zip(shape, wanted, strict=True)
    )


def _shape(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _common_length(where: str, feeds: Arrays) -> int:
    lengths = {name: len(array) for name, array in feeds.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise DataError(f"{where}: the inputs differ in their number of samples ({listed})")
    return next(iter(lengths.values()))


def _labels(
    where: str, arrays: Arrays, inputs: set[str], count: int, notes: list[str]
) -> NDArray[np.int64] | None:
    for name in LABEL_NAMES:
        if name not in arrays or name in inputs:
            continue
        labels = np.asarray(arrays[name])
        if name == "y" and labels.dtype.kind == "f":
            notes.append(f"{where}: y holds {labels.dtype} {_shape(labels.shape)}, no class labels")
            continue
        if labels.ndim != 1:
            raise DataError(
                f"{where}: {name} has shape {_shape(labels.shape)}, not [{count}]",
                remedy="give one class number per sample (one-hot: labels.argmax(1))",
            )
        if labels.dtype.kind not in "iu" or (labels.size and not _is_class(labels)):
            raise DataError(
                f"{where}: {name} are not class numbers from 0, below 2^63 ({labels.dtype})"
            )
        if len(labels) != count:
            raise DataError(f"{where}: {len(labels)} {name} for {count} samples")
        return labels.astype(np.int64)
    return None


def _is_class(labels: Array) -> bool:
    return bool(labels.min() >= 0 and labels.max() < 2**63)
