"""ONNX functions of the integer form: the same arithmetic as `integer`, in uint8 on QLinearConv.

A function's name says what it holds, so that a file carries only what it uses:

``CurrentUnits``        ``(x, gain, low, high)``: a constant current in units of the weights (float)
``IFConstant``          ``(units, theta)``: counts under a constant current; the units of t steps
``IFAnalog``            ``(total, before, theta)``: counts under an analog current that may change;
                        its sum up to now
``IFInt8...``           ``(counts, [before,] weight, scale, bias, ...)``: a layer and its neurons;
                        ``Dense``: no convolution; ``Pooled``: a max-pool before the neurons;
                        ``First``: at the first step; ``Shortcut<n>``: n shortcuts at a
                        resolution, ``Tied<n>``: n shortcuts as they are
``IFWide...``           ``<p>x<s>x<a>``: p convolutions, s shortcuts, a analog currents, in float32
``SumPool``             ``(counts, ones)``: sums over windows
``CountsMean``          ``(counts, timesteps, scale, offset)``: the mean over the steps, in float
"""

from __future__ import annotations

import re

import onnx
import onnx.parser

DOMAIN = "na_convert"

_DOCS = {
    "CurrentUnits": "A current that is the same at every step, in whole units of the weights: "
    "clip(round(gain * x), low, high).",
    "IFConstant": "Spike counts under a constant current: round(t * units / theta).",
    "IFAnalog": "Integrate-and-fire neurons on the sum of an analog current, whole numbers in "
    "float32: the count grows by one where 2 total >= theta (2 count + 1).",
    "IFInt8": "Integrate-and-fire neurons on counts: QLinearConv gives round(R C / theta) of the "
    "summed currents C; the count grows by one where that reaches R (count + 1/2), less the "
    "shortcuts' counts.",
    "IFWide": "Integrate-and-fire neurons on counts, whole numbers in float32: the count grows by "
    "one where 2 C >= theta (2 count + 1).",
    "SumPool": "Sums of counts over a window.",
    "CountsMean": "Mean over the time steps: counts * scale / T + offset.",
}

_INT8 = re.compile(r"IFInt8(Dense)?(Pooled)?(First)?(?:(Shortcut|Tied)(\d+))?")
_WIDE = re.compile(r"IFWide(First)?(\d+)x(\d+)x(\d+)")
_CONV = ("strides", "pads", "dilations", "group")
_POOL = ("kernel_shape", "pool_strides", "pool_pads", "pool_dilations", "ceil_mode")


def is_integer(op: str) -> bool:
    """Whether ``op`` is one of the functions of the integer form."""
    return op in _DOCS or bool(_INT8.fullmatch(op) or _WIDE.fullmatch(op))


def function(op: str, opset: int) -> onnx.FunctionProto:
    """The ONNX function ``na_convert::op``."""
    proto = onnx.parser.parse_function(
        f'<domain: "{DOMAIN}", opset_import: ["": {opset}]>\n{_text(op)}'
    )
    proto.doc_string = _DOCS.get(op) or _DOCS["IFWide" if op.startswith("IFWide") else "IFInt8"]
    return proto


def _text(op: str) -> str:
    if op in _PLAIN:
        return _PLAIN[op]
    wide = _WIDE.fullmatch(op)
    if wide:
        first, *counts = wide.groups()
        products, shortcuts, analogs = (int(n) for n in counts)
        return _wide(op, bool(first), products, shortcuts, analogs)
    found = _INT8.fullmatch(op)
    assert found is not None, op
    dense, pooled, first, kind, number = found.groups()
    return _int8(op, bool(dense), bool(pooled), bool(first), kind or "", int(number or 0))


_PLAIN = {
    "CurrentUnits": """
CurrentUnits (x, gain, low, high) => (units) {
    scaled = Mul (x, gain)
    rounded = Round (scaled)
    above = Max (rounded, low)
    units = Min (above, high)
}
""",
    "IFConstant": """
IFConstant (units, theta) => (counts) {
    counts = QuantizeLinear <axis: int = 1> (units, theta)
}
""",
    "IFAnalog": """
IFAnalog (total, before, theta) => (n) {
    two = Constant <value_float: float = 2.0> ()
    one = Constant <value_float: float = 1.0> ()
    twice = Mul (total, two)
    had = Cast <to: int = 1> (before)
    had_twice = Mul (had, two)
    odd = Add (had_twice, one)
    needed = Mul (odd, theta)
    fired = GreaterOrEqual (twice, needed)
    spike = Cast <to: int = 2> (fired)
    n = Add (before, spike)
}
""",
    "SumPool": """
SumPool <strides, pads, group> (x, ones) => (y) {
    one = Constant <value_float: float = 1.0> ()
    none = Constant <value: tensor = uint8 {0}> ()
    no_offset = Constant <value: tensor = int8 {0}> ()
    y = QLinearConv <strides: ints = @strides, pads: ints = @pads, group: int = @group>
        (x, one, none, ones, one, no_offset, one, none)
}
""",
    "CountsMean": """
CountsMean (counts, timesteps, scale, offset) => (mean) {
    n = CastLike (counts, scale)
    t = CastLike (timesteps, scale)
    worth = Mul (n, scale)
    per_step = Div (worth, t)
    mean = Add (per_step, offset)
}
""",
}

_TO_IMAGE = """
    ends = Constant <value_ints: ints = [0, 3]> ()
    as_image = Unsqueeze (counts, ends)
    x = Transpose <perm: ints = [0, 2, 1, 3]> (as_image)
"""

_FROM_IMAGE = """
    turned = Transpose <perm: ints = [0, 2, 1, 3]> (summed)
    held = Squeeze (turned, ends)
"""

_MAX_POOL = """
    held = MaxPool <kernel_shape: ints = @kernel_shape, strides: ints = @pool_strides,
        pads: ints = @pool_pads, dilations: ints = @pool_dilations,
        ceil_mode: int = @ceil_mode> (summed)
"""


def _int8(op: str, dense: bool, pooled: bool, first: bool, kind: str, shortcuts: int) -> str:
    """A layer on QLinearConv; a dense one is a convolution over an image of N x 1 pixels."""
    inputs = ["counts", *([] if first else ["before"]), "weight", "scale", "bias"]
    if kind:
        inputs += ["zero", "offset", *(["ratio"] if kind == "Shortcut" else [])]
        inputs += [f"shortcut{i}" for i in range(shortcuts)]
        inputs += [f"times{i}" for i in range(shortcuts) if kind == "Shortcut"]
    attributes = [] if dense else [*_CONV]
    attributes += _POOL if pooled else ()
    header = f"<{', '.join(attributes)}>" if attributes else ""
    window = "" if dense else (
        "<strides: ints = @strides, pads: ints = @pads, dilations: ints = @dilations, "
        "group: int = @group>"
    )  # fmt: skip
    x, y = ("x", "summed") if dense else ("counts", "summed" if pooled else "held")
    zero = "zero" if kind else "none"
    return f"""
{op} {header} ({", ".join(inputs)}) => (n) {{
    one = Constant <value_float: float = 1.0> ()
    none = Constant <value: tensor = uint8 {{0}}> ()
    no_offset = Constant <value: tensor = int8 {{0}}> ()
    {_TO_IMAGE if dense else ""}
    {y} = QLinearConv {window} ({x}, one, none, weight, scale, no_offset, one, {zero}, bias)
    {_FROM_IMAGE if dense else _MAX_POOL if pooled else ""}
    {_fire(first, kind, shortcuts)}
}}
"""


def _fire(first: bool, kind: str, shortcuts: int) -> str:
    if not kind and first:
        return "one_spike = Constant <value: tensor = uint8 {1}> ()\n    n = Min (held, one_spike)"
    lines = []
    if not kind:
        lines.append("fired = Greater (held, before)")
    else:
        needed = "offset"
        if not first:
            scaled = "before"
            if kind == "Shortcut":
                lines.append("scaled = Mul (before, ratio)")
                scaled = "scaled"
            lines.append(f"from_count = Add ({scaled}, offset)")
            needed = "from_count"
        for i in range(shortcuts):
            taken = f"shortcut{i}"
            if kind == "Shortcut":
                lines.append(f"given{i} = Mul (shortcut{i}, times{i})")
                taken = f"given{i}"
            lines.append(f"needed{i} = Sub ({needed}, {taken})")
            needed = f"needed{i}"
        lines.append(f"fired = GreaterOrEqual (held, {needed})")
    if first:
        return "\n    ".join([*lines, "n = Cast <to: int = 2> (fired)"])
    return "\n    ".join([*lines, "spike = Cast <to: int = 2> (fired)", "n = Add (before, spike)"])


def _wide(op: str, first: bool, products: int, shortcuts: int, analogs: int) -> str:
    inputs = [*([] if first else ["before"]), "theta", "bias", "step"]
    attributes: list[str] = []
    lines = ["total0 = Identity (bias)"]
    count = 0

    def add(term: str) -> None:
        nonlocal count
        lines.append(f"total{count + 1} = Add (total{count}, {term})")
        count += 1

    for i in range(products):
        inputs += [f"counts{i}", f"weight{i}"]
        attributes += [f"{name}{i}" for name in _CONV]
        window = (
            f"<strides: ints = @strides{i}, pads: ints = @pads{i}, "
            f"dilations: ints = @dilations{i}, group: int = @group{i}>"
        )
        lines += [
            f"x{i} = Cast <to: int = 1> (counts{i})",
            f"w{i} = Cast <to: int = 1> (weight{i})",
        ]
        lines.append(f"y{i} = Conv {window} (x{i}, w{i})")
        add(f"y{i}")
    for i in range(shortcuts):
        inputs += [f"shortcut{i}", f"times{i}"]
        lines += [f"s{i} = Cast <to: int = 1> (shortcut{i})", f"m{i} = Mul (s{i}, times{i})"]
        add(f"m{i}")
    for i in range(analogs):
        inputs.append(f"units{i}")
        lines.append(f"a{i} = Mul (units{i}, step)")
        add(f"a{i}")
    header = f"<{', '.join(attributes)}>" if attributes else ""
    lines += [
        "two = Constant <value_float: float = 2.0> ()",
        f"twice = Mul (total{count}, two)",
    ]
    if first:
        lines += ["fired = GreaterOrEqual (twice, theta)", "n = Cast <to: int = 2> (fired)"]
    else:
        lines += [
            "one = Constant <value_float: float = 1.0> ()",
            "had = Cast <to: int = 1> (before)",
            "had_twice = Mul (had, two)",
            "odd = Add (had_twice, one)",
            "needed = Mul (odd, theta)",
            "fired = GreaterOrEqual (twice, needed)",
            "spike = Cast <to: int = 2> (fired)",
            "n = Add (before, spike)",
        ]
    body = "\n    ".join(lines)
    return f"\n{op} {header} ({', '.join(inputs)}) => (n) {{\n    {body}\n}}\n"
