"""The two activations that become neurons, and the neuron that each becomes.

`find_activations` writes them into the ANN as nodes ``na_convert::Staircase`` and
``na_convert::Ramp`` (see `neurons`), whatever their spelling was; `to_spiking` turns those nodes
into integrate-and-fire neurons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Staircase:
    """``y = s * (lo + clip(floor(x / d + phi - lo), 0, p))``.

    Arrays are scalars (shape ``()``) or broadcast against one sample, for instance ``[C, 1, 1]``.

    Attributes:
        input_step: d, the width of a stair in the units of x; negative for a falling staircase.
        output_step: s, the height of a stair; differs from d where a gain was folded in.
        lowest_level: lo, in output steps; 0 for an unsigned quantiser.
        phase: phi; 0 floor, 1/2 rounding, 1 ceil.
        levels: p, the number of stairs above the lowest.
        tie_rule: how the ANN rounds a value that lies on an edge ("half_even", "half_up",
            "half_away", "half_down", "middle" (half a stair, as sign(0)), "floor", "ceil"); the
            neuron's own is "half_up".
    """

    input_step: Array
    output_step: Array
    lowest_level: Array
    phase: Array
    levels: int
    tie_rule: str

    def level(self, x: Array) -> Array:
        """Number of stairs above the lowest, 0..p, for ``x`` [N, ...]."""
        position = x / self.input_step + self.phase - self.lowest_level
        return np.clip(np.floor(position), 0, self.levels)

    def __call__(self, x: Array) -> Array:
        return self.output_step * (self.lowest_level + self.level(x))

    def distance_to_edge(self, x: Array) -> Array:
        """How far ``x`` is from the nearest edge between two levels, in stairs."""
        position = x / self.input_step + self.phase - self.lowest_level
        edge = np.clip(np.round(position), 1, self.levels)
        return np.abs(position - edge)

    def neuron(self) -> NeuronParameters:
        """The IF neuron: threshold ``p |d|``, amplitude ``p s``, current ``+-x + (phi-1/2-lo)|d|``.

        With constant current and T = p it fires exactly ``level(x)`` times (the general
        staircase; docs/architecture.md); the initial membrane is half the threshold.
        """
        width = np.abs(self.input_step)
        return NeuronParameters(
            threshold=self.levels * width,
            amplitude=self.levels * self.output_step,
            current_gain=np.sign(self.input_step),
            current_offset=(self.phase - 0.5 - self.lowest_level) * width,
            output_offset=self.output_step * self.lowest_level,
        )


@dataclass(frozen=True)
class Ramp:
    """``y = output_low + gain * (clip(x, low, high) - low)``: clip, ReLU6, and ReLU (high = inf).

    Arrays are scalars (shape ``()``) or broadcast against one sample.
    """

    low: Array
    high: Array
    output_low: Array
    gain: Array

    def __call__(self, x: Array) -> Array:
        return self.output_low + self.gain * (np.clip(x, self.low, self.high) - self.low)

    @property
    def bounded(self) -> bool:
        return bool(np.all(np.isfinite(self.high)))

    def neuron(self) -> NeuronParameters:
        """The IF neuron with threshold ``high - low``; its mean output tends to the ramp with T.

        Raises ValueError where ``high`` is not finite: the threshold has to be calibrated first.
        """
        if not self.bounded:
            raise ValueError("a ReLU without upper bound has no threshold until it is calibrated")
        width = self.high - self.low
        return NeuronParameters(
            threshold=width,
            amplitude=self.gain * width,
            current_gain=np.ones(()),
            current_offset=-self.low,
            output_offset=self.output_low,
        )


@dataclass(frozen=True)
class NeuronParameters:
    """Of an IF neuron whose current is ``current_gain * x + current_offset`` and whose output is
    ``amplitude * spike + output_offset``; scalars or arrays that broadcast against one sample."""

    threshold: Array
    amplitude: Array
    current_gain: Array
    current_offset: Array
    output_offset: Array


def read_activation(node: gs.Node) -> Staircase | Ramp:
    """The activation of a ``Staircase`` or ``Ramp`` node, in float64."""
    values = [np.asarray(t.values, np.float64) for t in node.inputs[1:]]
    if node.op == "Ramp":
        return Ramp(*values)
    step, height, lowest, phase = values
    levels, tie_rule = int(node.attrs["levels"]), str(node.attrs["tie_rule"])
    return Staircase(step, height, lowest, phase, levels, tie_rule)
