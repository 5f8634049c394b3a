"""Samples for verification: an ``.npz`` of the network's inputs, or seeded random numbers."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

Array = NDArray[Any]

LABEL_NAMES = ("labels", "y")


@dataclass(frozen=True)
class InputSpec:
    """A network input: ``shape`` with the batch first and None for every free dimension."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Preprocessing:
    """Pixels to floats: ``(pixel * scale - mean) / std``, per channel of axis 1; None: left out."""

    scale: tuple[float, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Samples:
    """What a network is fed: ``feeds`` [N, ...] by input name, and class ``labels`` int64 [N].

    ``description`` says where they come from, ``notes`` what was assumed about them.
    """

    feeds: dict[str, Array]
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
) -> Samples:
    """Samples from an ``.npz`` file or a mapping of arrays, checked against ``inputs``.

    Arrays carry the inputs' own names (``x`` also serves a network with a single input), and
    optionally class labels, ``labels`` or ``y``. uint8 images for a float input become floats by
    ``preprocessing``, and where that says nothing by the model's ``metadata``
    (``na_convert.scale``, ``.mean``, ``.std``: JSON numbers or lists). Floats are taken as they
    are unless ``preprocessing`` is given.

    Raises DataError, one line, for whatever does not fit.
    """
    if isinstance(source, Mapping):
        where, arrays = "data", {name: np.asarray(array) for name, array in source.items()}
    else:
        where, arrays = str(source), _read_npz(Path(source))
    names = _array_names(where, arrays, inputs)
    notes: list[str] = []
    feeds = {}
    for spec in inputs:
        place = f"{where}: {names[spec.name]}"
        array = _to_dtype(
            place, arrays[names[spec.name]], spec, metadata or {}, preprocessing, notes
        )
        feeds[spec.name] = array
    count = _common_length(where, feeds)
    labels = _labels(where, arrays, set(names.values()), count, notes)
    ignored = sorted(set(arrays) - set(names.values()) - set(LABEL_NAMES))
    if ignored:
        notes.append(f"{where}: not used: {', '.join(ignored)}")
    return Samples(feeds, labels, where, tuple(notes))


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


# --- reading --------------------------------------------------------------------------------------


def _read_npz(path: Path) -> dict[str, Array]:
    if path.is_dir():
        raise DataError(f"{path}: is a folder", remedy="give an .npz file")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise DataError(f"{path}: a single array", remedy="save it with numpy.savez(path, x=x)")
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        pickled = "allow_pickle" in str(error) or "Object arrays" in str(error)
        reason = "not an .npz file of plain numbers" if pickled else "not a readable .npz file"
        raise DataError(f"{path}: {reason}", remedy="write it with numpy.savez") from error


def _array_names(
    where: str, arrays: Mapping[str, Array], inputs: Sequence[InputSpec]
) -> dict[str, str]:
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
    array: Array,
    spec: InputSpec,
    metadata: Mapping[str, str],
    preprocessing: Preprocessing | None,
    notes: list[str],
) -> Array:
    """``array`` checked and in the input's own dtype."""
    _check_shape(place, array, spec)
    if spec.dtype.kind == "f" and (array.dtype == np.uint8 or array.dtype.kind == "f"):
        working = np.promote_types(spec.dtype, np.float32)
        array = _to_floats(place, array, metadata, preprocessing, working, notes)
        with np.errstate(over="ignore"):
            array = array.astype(spec.dtype)
        bad = array.size - int(np.isfinite(array).sum())
        if bad:
            raise DataError(f"{place}: {bad} of {array.size} values are not finite as {spec.dtype}")
        return array
    if preprocessing is not None and preprocessing != Preprocessing():
        raise DataError(f"{place}: --scale, --mean and --std do not apply to a {spec.dtype} input")
    if array.dtype.kind in "iu" and spec.dtype.kind in "iu" and _fits(array, spec.dtype):
        return array.astype(spec.dtype)
    if array.dtype == spec.dtype:
        return array
    raise DataError(f"{place}: holds {array.dtype}, the model wants {spec.dtype}", node=spec.name)


def _fits(array: Array, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return bool(array.min() >= limits.min and array.max() <= limits.max)


def _check_shape(place: str, array: Array, spec: InputSpec) -> None:
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


def _common_length(where: str, feeds: Mapping[str, Array]) -> int:
    lengths = {name: len(array) for name, array in feeds.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise DataError(f"{where}: the inputs differ in their number of samples ({listed})")
    return next(iter(lengths.values()))


def _labels(
    where: str, arrays: Mapping[str, Array], inputs: set[str], count: int, notes: list[str]
) -> NDArray[np.int64] | None:
    for name in LABEL_NAMES:
        if name not in arrays or name in inputs:
            continue
        labels = arrays[name]
        if name == "y" and labels.dtype.kind == "f":
            notes.append(f"{where}: y holds {labels.dtype} {_shape(labels.shape)}, no class labels")
            continue
        if labels.ndim != 1:
            raise DataError(
                f"{where}: {name} has shape {_shape(labels.shape)}, not [{count}]",
                remedy="give one class number per sample (one-hot: labels.argmax(1))",
            )
        if labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
            raise DataError(f"{where}: {name} are not class numbers from 0 ({labels.dtype})")
        if len(labels) != count:
            raise DataError(f"{where}: {len(labels)} {name} for {count} samples")
        return labels.astype(np.int64)
    return None


# --- pixels to floats -----------------------------------------------------------------------------


def _to_floats(
    place: str,
    array: Array,
    metadata: Mapping[str, str],
    given: Preprocessing | None,
    working: np.dtype[Any],
    notes: list[str],
) -> Array:
    given = given or Preprocessing()
    if array.dtype != np.uint8:
        if given == Preprocessing():
            return array
        notes.append(f"{place}: {array.dtype} made {_formula(given)} (by the options)")
        return _apply(place, array, given, working)
    stored = _stored(metadata)
    chosen = Preprocessing(
        *(
            getattr(stored, f.name) if getattr(given, f.name) is None else getattr(given, f.name)
            for f in fields(Preprocessing)
        )
    )
    if chosen == Preprocessing():
        raise DataError(
            f"{place}: holds uint8 pixels, and the model does not say how they become floats",
            remedy="give --scale (for instance 1/255), --mean and --std as in training",
        )
    origin = "the options" if chosen == given else "the model's metadata"
    if origin != "the options" and given != Preprocessing():
        origin = "the options and the model's metadata"
    notes.append(f"{place}: uint8 pixels made {_formula(chosen)} (by {origin})")
    return _apply(place, array, chosen, working)


def _stored(metadata: Mapping[str, str]) -> Preprocessing:
    values: dict[str, tuple[float, ...] | None] = {}
    for name in ("scale", "mean", "std"):
        text = metadata.get(f"na_convert.{name}")
        if text is None:
            continue
        try:
            value = json.loads(text)
            numbers = value if isinstance(value, list) else [value]
            values[name] = tuple(float(number) for number in numbers)
        except (ValueError, TypeError) as error:
            raise DataError(
                f"the model's metadata na_convert.{name} is no number or list of numbers: {text!r}",
                remedy=f"give --{name}",
            ) from error
    return Preprocessing(**values)


def _apply(place: str, array: Array, how: Preprocessing, working: np.dtype[Any]) -> Array:
    result = array.astype(working)
    if how.scale is not None:
        result *= _per_channel(place, "scale", how.scale, array)
    if how.mean is not None:
        result -= _per_channel(place, "mean", how.mean, array)
    if how.std is not None:
        if 0 in how.std:
            raise DataError(f"{place}: --std holds a zero")
        result /= _per_channel(place, "std", how.std, array)
    return result


def _per_channel(place: str, name: str, values: tuple[float, ...], array: Array) -> Array:
    if len(values) == 1:
        return np.asarray(values[0])
    channels = array.shape[1] if array.ndim > 1 else 1
    if len(values) != channels:
        raise DataError(f"{place}: --{name} has {len(values)} values for {channels} channels")
    return np.asarray(values).reshape(-1, *[1] * (array.ndim - 2))


def _formula(how: Preprocessing) -> str:
    def text(values: tuple[float, ...]) -> str:
        inside = ", ".join(f"{value:.4g}" for value in values)
        return inside if len(values) == 1 else f"[{inside}]"

    formula = "x" if how.scale is None else f"x * {text(how.scale)}"
    if how.mean is not None:
        formula = f"{formula} - {text(how.mean)}"
    if how.std is not None:
        formula = f"({formula}) / {text(how.std)}"
    return formula
