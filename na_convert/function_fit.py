"""Fits of the functions in a graph, and questions about what they found."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from . import pointwise, qonnx
from .activation import Ramp, Staircase
from .elementwise import Function
from .fit_checks import most_hints
from .fit_reasons import Fit
from .graph import is_standard
from .sample import Sampler, hints
from .staircase_fit import MAX_LEVELS, fit

REGULAR = 2  # the highest `regularity`
_CURVED = ("Exp", "LeakyRelu", "Log", "PRelu", "Sigmoid", "Softplus", "Softsign", "Tanh")
_ROUNDING = (
    *("ArgMax", "ArgMin", "Cast", "Ceil", "Floor", "Quant", "IntQuant", "QuantizeLinear"),
    *("Round", "Trunc"),
)


_TO_LEVELS = ("Ceil", "Floor", "Quant", "IntQuant", "QuantizeLinear", "Round", "Trunc")


def measure(function: Function) -> Fit:
    """The kind of ``function``; "typed" if its values are no floats of the root's type."""
    for node in function.nodes:
        if node.op in pointwise.RANDOM:
            return Fit(
                "unknown", None, f"draws random numbers ({node.op})",
                "export the model in evaluation mode, without the training noise",
            )  # fmt: skip
    smooth = [n.op for n in function.nodes if n.op in pointwise.SMOOTH]
    if smooth:
        return Fit(
            "unknown", None, f"{smooth[0]} is smooth: neither a staircase nor a clip",
            "train with a quantised activation or ReLU in its place, or keep it behind the last "
            "neuron",
        )  # fmt: skip
    native = Sampler(function, function.dtype)
    if native(np.zeros((1, 1))).dtype != function.dtype:
        return Fit(
            "typed", None, "changes the element type",
            "cast the result back to the type of its input, in front of whatever reads it",
        )  # fmt: skip
    exact = Sampler(function, np.dtype(np.float64))
    numbers = hints(function, most_hints(function.channels))
    found = fit(exact, native, function.channels, function.dtype, numbers, rounding_of(function))
    rounds = [n.op for n in function.nodes if n.op in _TO_LEVELS]
    if rounds and isinstance(found.activation, Ramp):
        return Fit(
            "unknown", None, f"{rounds[0]} makes levels so fine that they look like a clip",
            f"a quantiser with at most {MAX_LEVELS} levels can be converted",
        )  # fmt: skip
    return found


def regularity(activation: Staircase | Ramp | None) -> int:
    """How alike an activation's channels are: 2 in gain and position, 1 in gain, 0 not even that.

    A quantiser with a step per channel has one gain. A BatchNorm before or behind it has not.
    """
    if activation is None:
        return -1
    gain: NDArray[Any]
    if isinstance(activation, Staircase):
        gain = activation.output_step / activation.input_step
        position = [activation.lowest_level, activation.phase]
    else:
        gain, position = activation.gain, [activation.low, activation.output_low]
    if not _uniform(gain):
        return 0
    return REGULAR if all(_uniform(p) for p in position) else 1


def _uniform(values: NDArray[Any]) -> bool:
    flat = np.ravel(values).astype(np.float64)
    return bool(np.all(np.abs(flat - flat[0]) <= 1e-5 * np.abs(flat[0])))


def culprit(function: Function, fitted: Fit) -> gs.Node:
    """The node to name in a refusal: the first one that is typical of what is wrong."""
    typical: tuple[str, ...] = (*pointwise.SMOOTH, *pointwise.RANDOM, *_CURVED)
    if fitted.kind == "uneven":
        typical = _ROUNDING
    return next((n for n in function.nodes if n.op in typical), function.nodes[-1])


def is_random(node: gs.Node) -> bool:
    """Whether ``node`` draws random numbers."""
    return node.op in pointwise.RANDOM


def rounding_of(function: Function) -> str:
    """How the last rounding operator of ``function`` treats halves; "" if it has none."""
    rule = ""
    for node in function.nodes:
        if is_standard(node, "Round") or node.op == "QuantizeLinear":
            rule = "half_even"
        elif qonnx.is_qonnx(node.domain, node.op):
            mode = str(node.attrs.get("rounding_mode", "ROUND")).upper()
            rule = {"ROUND": "half_even", "HALF_EVEN": "half_even", "HALF_UP": "half_away"}.get(
                mode, ""
            )
        elif is_standard(node, "Floor", "Ceil", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
            rule = ""
    return rule


def keeps_levels(source: Function, stairs: Staircase | Ramp, function: Function) -> bool:
    """Whether ``function`` maps each level of ``source``, which is ``stairs``, to itself."""
    if not isinstance(stairs, Staircase):
        return False
    channels = source.channels
    if channels > 1 and function.channels not in (1, channels):
        return False
    levels = np.arange(stairs.levels + 1, dtype=np.float64)[:, None]
    values = stairs.output_step * (stairs.lowest_level + levels)
    if channels > 1 and function.channels == 1:
        after = np.concatenate(
            [_values(function, values[:, c : c + 1]) for c in range(channels)], 1
        )
    else:
        after = _values(function, values)
    return bool(np.all(np.abs(after - values) <= 1e-4 * np.abs(stairs.output_step)))


def swallows(stairs: Staircase | Ramp, ramp: Ramp) -> bool:
    """Whether ``stairs`` gives the same for x and for ``ramp(x)``: all its jumps lie inside."""
    if not isinstance(stairs, Staircase):
        return False
    first, last = np.array([1, stairs.levels])[:, None] + np.ravel(
        stairs.lowest_level - stairs.phase
    )
    jumps = np.concatenate([first, last]) * np.tile(np.ravel(stairs.input_step), 2)
    same = np.all(ramp.gain == 1) and np.all(ramp.output_low == ramp.low)
    return bool(same and np.all(ramp.low < jumps) and np.all(jumps < ramp.high))


def _values(function: Function, x: NDArray[Any]) -> NDArray[Any]:
    try:
        return Sampler(function, function.dtype)(x).astype(np.float64)
    except NotImplementedError:
        return np.full(x.shape, np.nan)
