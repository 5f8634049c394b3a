"""The neurons: as ONNX functions, and as numpy. The only definition of either.

The functions live in the domain ``na_convert`` and their bodies are standard ONNX, so that stock
onnxruntime runs them and Netron shows one node per layer, which opens on a click. In the folded
form a spiking tensor is ``[T * N, ...]``, time-major; ``timesteps`` is an int64 scalar.

===================  =============================================================================
``Encode``           ``(x, timesteps)``: repeats ``x`` over T time steps (direct coding)
``Decode``           ``(x, timesteps)``: the mean over the T time steps
``IF``               ``(current, timesteps)``: integrate and fire, soft reset; one threshold
``IFPerChannel``     ``(current, timesteps, threshold, amplitude)``: the same, parameters as inputs
``MaxPoolCounts``    ``(x, timesteps)``: max-pool of cumulative sums, as differences in time
``IFStep`` ...       one time step of the operators above, state in and out (the step form):
                     ``(current, membrane)``, ``(x, sum, steps)``, ``(x, total, pooled)``
``Staircase``        ``(x, d, s, lo, phi)``: the quantised activation, before conversion
``Ramp``             ``(x, low, high, output_low, gain)``: clip or ReLU, before conversion
===================  =============================================================================

The neuron (Li & Rajendran, arXiv 2411.17431, with soft reset and ``u(0) = initial * threshold``)::

    u += current;  fired = u >= threshold;  u -= threshold * fired;  output = amplitude * fired
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray

from . import integer_neurons

DOMAIN = "na_convert"
DOMAIN_VERSION = 1
INITIAL_MEMBRANE = 0.5  # in thresholds; at 0 a low-bit network is at chance level

NEURON_OPS = ("IF", "IFPerChannel")
ACTIVATION_OPS = ("Staircase", "Ramp")

Array = NDArray[np.floating]

# Every attribute is written on every node: onnx.reference does not apply a function's defaults.


# --- numpy: the reference ------------------------------------------------------------------------


@dataclass
class IFState:
    """A layer of integrate-and-fire neurons between two time steps.

    ``membrane`` has the shape of one time step's current ``[N, ...]``; ``threshold`` and
    ``amplitude`` broadcast against it.
    """

    membrane: Array
    threshold: Array
    amplitude: Array

    @classmethod
    def start(
        cls, current: Array, threshold: Array, amplitude: Array, initial: float = INITIAL_MEMBRANE
    ) -> IFState:
        theta = np.asarray(threshold, current.dtype)
        membrane = np.broadcast_to(theta * current.dtype.type(initial), current.shape).copy()
        return cls(membrane, theta, np.asarray(amplitude, current.dtype))

    def step(self, current: Array) -> Array:
        """One time step: current in, ``amplitude`` where the neuron fired (else 0) out."""
        v = self.membrane + current
        fired = (v >= self.threshold).astype(v.dtype)
        self.membrane = v - fired * self.threshold
        return fired * self.amplitude


@dataclass
class MaxPoolCountsState:
    """Max-pooling of a spike train: pool the sums up to now, give out what the maximum grew by.

    Sums of spikes never fall and rise by at most one, so that the output is again a spike train,
    and its total is the maximum of the totals.
    """

    total: Array
    pooled: Array

    @classmethod
    def start(cls, x: Array, pooled_shape: tuple[int, ...]) -> MaxPoolCountsState:
        return cls(np.zeros_like(x), np.zeros(pooled_shape, x.dtype))


def spike_counts(current: Array, threshold: Array, timesteps: int) -> NDArray[np.int64]:
    """Counts of neurons under constant ``current`` [N, ...], membrane form, after ``timesteps``."""
    state = IFState.start(current, threshold, np.ones((), current.dtype))
    counts = np.zeros(current.shape, np.int64)
    for _ in range(timesteps):
        counts += state.step(current).astype(np.int64)
    return counts


def next_count(
    total_current: Array, threshold: Array, count: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The cumulative form: ``N_t = clip(floor(C_t / theta + 1/2), N_(t-1), N_(t-1) + 1)``."""
    target = np.floor(total_current / threshold + 0.5).astype(np.int64)
    return np.clip(target, count, count + 1)


def even_counts(mean_current: Array, threshold: Array, timesteps: int) -> NDArray[np.int64]:
    """Counts if the current were spread evenly: ``clip(floor(T z / theta + 1/2), 0, T)``."""
    target = np.floor(timesteps * mean_current / threshold + 0.5)
    return np.clip(target, 0, timesteps).astype(np.int64)


# --- ONNX: the functions -------------------------------------------------------------------------

_TIME_FIRST = """
    minus1 = Constant <value_ints: ints = [-1]> ()
    t1 = Reshape (timesteps, minus1)
    whole = Shape ({x})
    rest = Shape <start: int = 1> ({x})
    wide = Concat <axis: int = 0> (t1, minus1, rest)
    z = Reshape ({x}, wide)
"""

_ENCODE = """
Encode (x, timesteps) => (y) {
    minus1 = Constant <value_ints: ints = [-1]> ()
    zero = Constant <value_ints: ints = [0]> ()
    t1 = Reshape (timesteps, minus1)
    whole = Shape (x)
    rest = Shape <start: int = 1> (x)
    wide = Concat <axis: int = 0> (t1, whole)
    x1 = Unsqueeze (x, zero)
    xt = Expand (x1, wide)
    folded = Concat <axis: int = 0> (minus1, rest)
    y = Reshape (xt, folded)
}
"""

_DECODE = f"""
Decode (x, timesteps) => (y) {{
    {_TIME_FIRST.format(x="x")}
    zero = Constant <value_ints: ints = [0]> ()
    total = ReduceSum <keepdims: int = 0> (z, zero)
    t = CastLike (timesteps, total)
    y = Div (total, t)
}}
"""

_FIRE = """
    one_sample = Shape <start: int = 1> (z)
    initial_v = Constant <value_float: float = @initial> ()
    initial_as = CastLike (initial_v, theta)
    start = Mul (theta, initial_as)
    u0 = Expand (start, one_sample)
    u_end, fired = Scan <num_scan_inputs: int = 1, body: graph = fire (u, zt) => (u_next, f) {
        v = Add (u, zt)
        reached = GreaterOrEqual (v, theta)
        f = CastLike (reached, v)
        reset = Mul (f, theta)
        u_next = Sub (v, reset)
    }> (u0, z)
    scaled = Mul (fired, amplitude_as)
    spikes = Reshape (scaled, whole)
"""

_IF = f"""
IF <threshold, amplitude, initial> (current, timesteps) => (spikes) {{
    {_TIME_FIRST.format(x="current")}
    theta_v = Constant <value_float: float = @threshold> ()
    theta = CastLike (theta_v, current)
    amplitude_v = Constant <value_float: float = @amplitude> ()
    amplitude_as = CastLike (amplitude_v, current)
    {_FIRE}
}}
"""

_IF_PER_CHANNEL = f"""
IFPerChannel <initial>
(current, timesteps, threshold, amplitude) => (spikes) {{
    {_TIME_FIRST.format(x="current")}
    theta = Identity (threshold)
    amplitude_as = Identity (amplitude)
    {_FIRE}
}}
"""

_MAX_POOL_COUNTS = f"""
MaxPoolCounts <kernel_shape, strides, pads, dilations, ceil_mode, unit>
(x, timesteps) => (y) {{
    {_TIME_FIRST.format(x="x")}
    unit_v = Constant <value_float: float = @unit> ()
    unit_as = CastLike (unit_v, x)
    counts = Div (z, unit_as)
    zero = Constant <value_ints: ints = [0]> ()
    one = Constant <value_ints: ints = [1]> ()
    end = Constant <value_ints: ints = [9223372036854775807]> ()
    axis0 = Constant <value_int: int = 0> ()
    totals = CumSum (counts, axis0)
    flat = Reshape (totals, whole)
    pooled = MaxPool <kernel_shape: ints = @kernel_shape, strides: ints = @strides,
                      pads: ints = @pads, dilations: ints = @dilations,
                      ceil_mode: int = @ceil_mode> (flat)
    pooled_shape = Shape (pooled)
    pooled_rest = Shape <start: int = 1> (pooled)
    pooled_wide = Concat <axis: int = 0> (t1, minus1, pooled_rest)
    now = Reshape (pooled, pooled_wide)
    first = Slice (now, zero, one, zero)
    nothing = Sub (first, first)
    before_last = Slice (now, zero, minus1, zero)
    before = Concat <axis: int = 0> (nothing, before_last)
    grown = Sub (now, before)
    scaled = Mul (grown, unit_as)
    y = Reshape (scaled, pooled_shape)
}}
"""

# One time step, the state as inputs and outputs: what `forms.step` writes.

_ENCODE_STEP = """
EncodeStep (x) => (y) {
    y = Identity (x)
}
"""

_DECODE_STEP = """
DecodeStep (x, sum, steps) => (y, sum_next) {
    sum_next = Add (sum, x)
    one = Constant <value_int: int = 1> ()
    now = Add (steps, one)
    t = CastLike (now, x)
    y = Div (sum_next, t)
}
"""

_FIRE_ONCE = """
    v = Add (membrane, current)
    reached = GreaterOrEqual (v, theta)
    fired = CastLike (reached, v)
    reset = Mul (fired, theta)
    membrane_next = Sub (v, reset)
    spikes = Mul (fired, amplitude_as)
"""

_IF_STEP = f"""
IFStep <threshold, amplitude, initial> (current, membrane) => (spikes, membrane_next) {{
    theta_v = Constant <value_float: float = @threshold> ()
    theta = CastLike (theta_v, current)
    amplitude_v = Constant <value_float: float = @amplitude> ()
    amplitude_as = CastLike (amplitude_v, current)
    {_FIRE_ONCE}
}}
"""

_IF_PER_CHANNEL_STEP = f"""
IFPerChannelStep <initial>
(current, membrane, threshold, amplitude) => (spikes, membrane_next) {{
    theta = Identity (threshold)
    amplitude_as = Identity (amplitude)
    {_FIRE_ONCE}
}}
"""

_MAX_POOL_COUNTS_STEP = """
MaxPoolCountsStep <kernel_shape, strides, pads, dilations, ceil_mode, unit>
(x, total, pooled) => (y, total_next, pooled_next) {
    unit_v = Constant <value_float: float = @unit> ()
    unit_as = CastLike (unit_v, x)
    counts = Div (x, unit_as)
    total_next = Add (total, counts)
    pooled_next = MaxPool <kernel_shape: ints = @kernel_shape, strides: ints = @strides,
                           pads: ints = @pads, dilations: ints = @dilations,
                           ceil_mode: int = @ceil_mode> (total_next)
    grown = Sub (pooled_next, pooled)
    y = Mul (grown, unit_as)
}
"""

_STAIRCASE = """
Staircase <levels, tie_rule> (x, d, s, lo, phi) => (y) {
    zero_v = Constant <value_float: float = 0.0> ()
    zero = CastLike (zero_v, x)
    levels_v = Constant <value_int: int = @levels> ()
    p = CastLike (levels_v, x)
    ratio = Div (x, d)
    shift = Sub (phi, lo)
    position = Add (ratio, shift)
    stair = Floor (position)
    level = Clip (stair, zero, p)
    above = Add (lo, level)
    y = Mul (s, above)
}
"""

_RAMP = """
Ramp <kind> (x, low, high, output_low, gain) => (y) {
    above = Max (x, low)
    within = Min (above, high)
    rise = Sub (within, low)
    scaled = Mul (gain, rise)
    y = Add (output_low, scaled)
}
"""

_BODIES = {
    "Encode": _ENCODE,
    "Decode": _DECODE,
    "IF": _IF,
    "IFPerChannel": _IF_PER_CHANNEL,
    "MaxPoolCounts": _MAX_POOL_COUNTS,
    "EncodeStep": _ENCODE_STEP,
    "DecodeStep": _DECODE_STEP,
    "IFStep": _IF_STEP,
    "IFPerChannelStep": _IF_PER_CHANNEL_STEP,
    "MaxPoolCountsStep": _MAX_POOL_COUNTS_STEP,
    "Staircase": _STAIRCASE,
    "Ramp": _RAMP,
}

_DOCS = {
    "Encode": "Direct coding: the same values at each of the T time steps; [N, ...] to [T*N, ...].",
    "Decode": "Mean over the T time steps; [T*N, ...] to [N, ...].",
    "IF": "Integrate-and-fire neurons, soft reset: u starts at initial * threshold; each time step "
    "u += current, the neuron fires where u >= threshold, u -= threshold; a spike is worth "
    "amplitude. Time-major [T*N, ...].",
    "MaxPoolCounts": "Max-pool of the sums up to each time step, given out as differences: the "
    "total after T steps is the maximum of the totals. Time-major [T*N, ...].",
    "Staircase": "s * (lo + clip(floor(x / d + phi - lo), 0, levels))",
    "Ramp": "output_low + gain * (clip(x, low, high) - low)",
}
_DOCS.update(
    EncodeStep="One time step of direct coding: the same values.",
    DecodeStep="Mean over the time steps up to this one: (sum + x) / (steps + 1).",
    IFStep="One time step of integrate-and-fire neurons, soft reset: v = membrane + current; the "
    "neuron fires where v >= threshold, which is then taken off; a spike is worth amplitude.",
    MaxPoolCountsStep="One time step: max-pool of the sums up to now, less that of those before.",
)
_DOCS["IFPerChannelStep"] = _DOCS["IFStep"] + " Threshold and amplitude per channel, [C, 1, 1]."
_DOCS["IFPerChannel"] = _DOCS["IF"] + " Threshold and amplitude per channel, [C, 1, 1]."


def function(op: str, opset: int) -> onnx.FunctionProto:
    """The ONNX function ``na_convert::op``; ``opset`` (at least 17) must equal the model's."""
    text = f'<domain: "{DOMAIN}", opset_import: ["": {opset}]>\n{_BODIES[op]}'
    proto = onnx.parser.parse_function(text)
    proto.doc_string = _DOCS[op]
    return proto


def functions_used(ops: Iterable[str], opset: int) -> list[onnx.FunctionProto]:
    """The functions for those of ``ops`` that are ours, sorted by name."""
    used = sorted(op for op in set(ops) if op in _BODIES or integer_neurons.is_integer(op))
    return [
        function(op, opset) if op in _BODIES else integer_neurons.function(op, opset) for op in used
    ]
