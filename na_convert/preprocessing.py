"""Pixels to floats: by the options, and where they say nothing by the model's metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

Array = NDArray[Any]

_RULES = ("scale", "mean", "std")


@dataclass(frozen=True)
class Preprocessing:
    """What is done to images; None: left out.

    Attributes:
        scale, mean, std: ``(pixel * scale - mean) / std``, one number or one per channel (axis 1).
        resize: of image files, before ``crop``: (short side,), or (height, width).
        crop: their middle: (side,), or (height, width).
    """

    scale: tuple[float, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: tuple[int, ...] | None = None
    crop: tuple[int, ...] | None = None

    @property
    def changes_values(self) -> bool:
        return any(getattr(self, name) is not None for name in _RULES)

    @property
    def changes_size(self) -> bool:
        return self.resize is not None or self.crop is not None


def to_floats(
    place: str,
    dtype: np.dtype[Any],
    metadata: Mapping[str, str],
    given: Preprocessing,
    working: np.dtype[Any],
    notes: list[str],
) -> Callable[[Array], Array]:
    """The function from rows [N, C, ...] of ``dtype``, uint8 or floats, to floats ``working``.

    ``notes`` gets a line on the rule used. Raises DataError where there is none for uint8.
    """
    if dtype != np.uint8:
        if not given.changes_values:
            return lambda rows: rows
        notes.append(f"{place}: {dtype} made {_formula(given)} (by the options)")
        return lambda rows: _apply(place, rows, given, working)
    stored = _stored(metadata)
    options = {name: getattr(given, name) for name in _RULES}
    chosen = Preprocessing(
        scale=stored.get("scale") if given.scale is None else given.scale,
        mean=stored.get("mean") if given.mean is None else given.mean,
        std=stored.get("std") if given.std is None else given.std,
    )
    if not chosen.changes_values:
        raise DataError(
            f"{place}: holds uint8 pixels, and the model does not say how they become floats",
            remedy="give --scale (for instance 1/255), --mean and --std as in training",
        )
    by_options = all(getattr(chosen, name) == value for name, value in options.items())
    origin = "the options" if by_options else "the model's metadata"
    if not by_options and given.changes_values:
        origin = "the options and the model's metadata"
    notes.append(f"{place}: uint8 pixels made {_formula(chosen)} (by {origin})")
    return lambda rows: _apply(place, rows, chosen, working)


def _stored(metadata: Mapping[str, str]) -> dict[str, tuple[float, ...]]:
    values = {}
    for name in _RULES:
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
    return values


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
