"""The JSON of an int8 file's description (`int8_file`), and whether some JSON is of that shape."""

from __future__ import annotations

from typing import Any

from ..integer import UINT8

_INTS = [int]
_SIZES = [range(1 << 16)]
_STEPS = [range(1, 1 << 16)]
_NAMES = [str]
_PRODUCT = {
    "source": str,
    "weight": str,
    "window": (
        None,
        {"strides": _STEPS, "pads": _SIZES, "dilations": _STEPS, "group": range(1, 1 << 16)},
    ),
}
_ANALOG = {"tensor": str, "gain": str, "low": str, "high": str}
_SHORTCUT = {"source": str, "weight": (int, _INTS)}
_LAYER = {
    "layer": str,
    "output": str,
    "shape": _INTS,
    "products": [_PRODUCT],
    "analogs": [_ANALOG],
    "shortcuts": [_SHORTCUT],
    "threshold": str,
    "resolution": range(1, UINT8 + 1),
    "zero_point": range(UINT8 + 1),
    "wide": bool,
    "pool": (None, dict),
    "bias?": str,
}
_MOVE = {"move": str, "output": str, "sources": _NAMES, "attributes": dict, "constants": list}
_MEAN = {"output": str, "source": str, "scale": str, "offset": str}
DESCRIPTION = {
    "inputs": _NAMES,
    "outputs": _NAMES,
    "operations": [(_LAYER, _MOVE)],
    "means": [_MEAN],
    "timesteps": range(1, UINT8 + 1),
}
_LARGEST = 2**31


def conforms(value: Any, shape: Any) -> bool:
    """Whether ``value`` is of ``shape``: a type, None, a range of numbers, a list of one shape, an
    object with these keys (those that end in "?" may be missing), or a tuple of alternatives."""
    if isinstance(shape, tuple):
        return any(conforms(value, each) for each in shape)
    if isinstance(shape, list):
        return isinstance(value, list) and all(conforms(each, shape[0]) for each in value)
    if isinstance(shape, dict):
        return isinstance(value, dict) and _has_keys(value, shape)
    if isinstance(shape, range):
        return type(value) is int and value in shape
    if shape is None:
        return value is None
    if shape is int:
        return type(value) is int and abs(value) < _LARGEST
    if shape is dict:
        return isinstance(value, dict) and all(map(_is_attribute, value.values()))
    return isinstance(value, shape)


def _has_keys(value: dict[str, Any], shape: dict[str, Any]) -> bool:
    known = {key.removesuffix("?") for key in shape}
    needed = {key for key in shape if not key.endswith("?")}
    return needed <= set(value) <= known and all(
        conforms(value[key.removesuffix("?")], inner)
        for key, inner in shape.items()
        if key.removesuffix("?") in value
    )


def _is_attribute(value: Any) -> bool:
    return conforms(value, (int, _INTS, float, str))
