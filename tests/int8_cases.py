"""Small networks, one per case that the int8 passes handle; each ends in a readout called y."""

from __future__ import annotations

import numpy as np
import onnx
from na_convert.passes import quantise_weights, to_spiking

from na_convert.forms import INT8_FORMS
from na_convert.shapes import of_one_sample
from na_convert.snn import Snn, metadata

from . import build

_PAD = "<pads: ints = [1,1,1,1]>"
_FIRST = f"c1 = Conv {_PAD} (x, w1)\n" + build.stair("c1", "a1")
_END = "m = GlobalAveragePool (last)\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, wy)"


def network(body: str, weights: dict, timesteps: int = 4) -> Snn:
    """The SNN of ``body``, which holds Staircase nodes."""
    graph, carried = build.graph(body, {**build.PLAIN, **weights})
    chosen, _ = to_spiking.choose_neurons(graph)
    names = [a.outputs[0].name for a in chosen]
    shapes = of_one_sample(graph, carried, {"x": build.images()}, names)
    found = to_spiking.run(graph, shapes)
    assert not found.report.refused
    return Snn(graph, found.neurons, timesteps, carried)


def _body(middle: str) -> str:
    return _FIRST + middle + _END


CASES: dict[str, tuple[str, dict]] = {
    "plain": (
        _body(f"c2 = Conv {_PAD} (a1, w2, b2)\n" + build.stair("c2", "last")),
        {"w1": (4, 3, 3, 3), "w2": (6, 4, 3, 3), "b2": (6,), "wy": (5, 6)},
    ),
    "identity shortcut": (
        _body(
            f"c2 = Conv {_PAD} (a1, w2)\n"
            + build.stair("c2", "a2", step="other")
            + f"c3 = Conv {_PAD} (a2, w3)\ns3 = Add (c3, a1)\n"
            + build.stair("s3", "last", step="third")
        ),
        {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "w3": (4, 4, 3, 3), "wy": (5, 4),
         "other": 0.3, "third": 0.47},
    ),
    "downsampling shortcut": (
        _body(
            "c2 = Conv <pads: ints = [1,1,1,1], strides: ints = [2,2]> (a1, w2)\n"
            + build.stair("c2", "a2")
            + f"c3 = Conv {_PAD} (a2, w3, b3)\nd = Conv <strides: ints = [2,2]> (a1, wd)\n"
            + "s3 = Add (c3, d)\n"
            + build.stair("s3", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (6, 4, 3, 3), "w3": (6, 6, 3, 3), "b3": (6,),
         "wd": (6, 4, 1, 1), "wy": (5, 6)},
    ),
    "bottleneck": (
        _body(
            "c2 = Conv (a1, w2)\n" + build.stair("c2", "a2")
            + "c3 = Conv (a2, w3)\ns3 = Add (c3, a1)\n" + build.stair("s3", "last", step="other")
        ),
        {"w1": (8, 3, 3, 3), "w2": (2, 8, 1, 1), "w3": (8, 2, 1, 1), "wy": (5, 8), "other": 0.43},
    ),
    "depthwise": (
        _body(
            "c2 = Conv <pads: ints = [1,1,1,1], group: int = 4> (a1, w2)\n"
            + build.stair("c2", "a2") + "c3 = Conv (a2, w3)\n" + build.stair("c3", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (4, 1, 3, 3), "w3": (6, 4, 1, 1), "wy": (5, 6)},
    ),
    "grouped": (
        _body("c2 = Conv <pads: ints = [1,1,1,1], group: int = 2> (a1, w2)\n"
              + build.stair("c2", "last")),
        {"w1": (4, 3, 3, 3), "w2": (6, 2, 3, 3), "wy": (5, 6)},
    ),
    "dilated": (
        _body("c2 = Conv <pads: ints = [2,2,2,2], dilations: ints = [2,2]> (a1, w2)\n"
              + build.stair("c2", "last")),
        {"w1": (4, 3, 3, 3), "w2": (6, 4, 3, 3), "wy": (5, 6)},
    ),
    "concat": (
        _body(
            f"c2 = Conv {_PAD} (a1, w2)\n" + build.stair("c2", "a2", step="other")
            + "both = Concat <axis: int = 1> (a1, a2)\n"
            + f"c3 = Conv {_PAD} (both, w3)\n" + build.stair("c3", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (3, 4, 3, 3), "w3": (6, 7, 3, 3), "wy": (5, 6), "other": 0.7},
    ),
    "average pool": (
        _body(
            "p = AveragePool <kernel_shape: ints = [2,2], strides: ints = [2,2]> (a1)\n"
            + f"c2 = Conv {_PAD} (p, w2)\n" + build.stair("c2", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (6, 4, 3, 3), "wy": (5, 6)},
    ),
    "max pool behind neurons": (
        _body(
            f"c2 = Conv {_PAD} (a1, w2)\n" + build.stair("c2", "a2")
            + "p = MaxPool <kernel_shape: ints = [2,2], strides: ints = [2,2]> (a2)\n"
            + f"c3 = Conv {_PAD} (p, w3)\n" + build.stair("c3", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "w3": (6, 4, 3, 3), "wy": (5, 6)},
    ),
    "max pool before neurons": (
        _body(
            f"c2 = Conv {_PAD} (a1, w2)\n"
            + "p = MaxPool <kernel_shape: ints = [3,3], strides: ints = [2,2], "
            + "pads: ints = [1,1,1,1]> (c2)\n" + build.stair("p", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (6, 4, 3, 3), "wy": (5, 6)},
    ),
    "gemm": (
        _FIRST + "flat = Flatten (a1)\ng = Gemm <transB: int = 1> (flat, w2, b2)\n"
        + build.stair("g", "a2") + "h = MatMul (a2, w3)\n" + build.stair("h", "a3")
        + "y = Gemm <transB: int = 1> (a3, wy)",
        {"w1": (4, 3, 3, 3), "w2": (7, 256), "b2": (7,), "w3": (7, 9), "wy": (5, 9)},
    ),
    "offset without padding": (
        _FIRST + "c2 = Conv (up, w2)\n" + build.stair("c2", "last") + _END,
        {"w1": (4, 3, 3, 3), "w2": (6, 4, 3, 3), "wy": (5, 6), "lift": -0.2},
    ),
    "offset behind padding": (
        _FIRST + f"c2 = Conv {_PAD} (up, w2)\n" + build.stair("c2", "last") + _END,
        {"w1": (4, 3, 3, 3), "w2": (6, 4, 3, 3), "wy": (5, 6), "lift": -0.2},
    ),
    "analog skip": (
        _body(f"c2 = Conv {_PAD} (a1, w2)\ns2 = Add (c2, c1)\n" + build.stair("s2", "last")),
        {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "wy": (5, 4)},
    ),
    "scaled and split": (
        _body(
            "v = Mul (a1, factor)\nu0, u1 = Split <axis: int = 1> (v, halves)\n"
            + f"c2 = Conv {_PAD} (u1, w2)\n" + build.stair("c2", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (6, 2, 3, 3), "wy": (5, 6),
         "factor": np.array([0.5, 1.5, 2.0, 0.25], np.float32).reshape(4, 1, 1),
         "halves": np.array([2, 2], np.int64)},
    ),
    "constant on a sum in one dimension": (
        _body(
            "r = Reshape (a1, long)\nc2 = Conv <pads: ints = [1,1]> (r, w2)\n"
            + "c3 = Conv <pads: ints = [1,1]> (r, w3)\ns = Add (c2, c3)\nt = Add (s, shift)\n"
            + build.stair("t", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (6, 4, 3), "w3": (6, 4, 3), "wy": (5, 6),
         "long": np.array([-1, 4, 64], np.int64),
         "shift": np.linspace(-0.3, 0.5, 6, dtype=np.float32).reshape(1, 6, 1)},
    ),
    "counts without weights": (
        _body(
            f"c2 = Conv {_PAD} (a1, w2)\n" + build.stair("c2", "a2", step="other")
            + "s = Add (a1, a2)\n" + build.stair("s", "a3", step="wide")
            + "c4 = Conv (a3, w4)\n" + build.stair("c4", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "w4": (6, 4, 1, 1), "wy": (5, 6),
         "other": 0.3, "wide": 0.8},
    ),
    "counts of dense layers": (
        _FIRST + "flat = Flatten (a1)\ng = Gemm <transB: int = 1> (flat, w2)\n"
        + build.stair("g", "a2") + "h = MatMul (a2, w3)\n" + build.stair("h", "a3", step="other")
        + "v = Mul (a2, factor)\ns = Add (v, a3)\n" + build.stair("s", "last")
        + "y = Gemm <transB: int = 1> (last, wy)",
        {"w1": (4, 3, 3, 3), "w2": (7, 256), "w3": (7, 7), "wy": (5, 7), "other": 0.3,
         "factor": np.linspace(0.3, 2, 7, dtype=np.float32)},
    ),
    "a pixel on an image": (
        _body(
            "p = MaxPool <kernel_shape: ints = [8,8]> (a1)\nc2 = Conv (p, w2)\n"
            + f"c3 = Conv {_PAD} (a1, w3)\ns = Sum (c2, c3, p)\n" + build.stair("s", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (4, 4, 1, 1), "w3": (4, 4, 3, 3), "wy": (5, 4)},
    ),
    "linear bottleneck": (
        _body(
            "p2 = Conv (a1, w2, b2)\ne3 = Conv (p2, w3, b3)\n" + build.stair("e3", "a3")
            + "d4 = Conv <pads: ints = [1,1,1,1], group: int = 8> (a3, w4)\n"
            + build.stair("d4", "a4", step="other") + "p5 = Conv (a4, w5)\ns = Add (p5, p2)\n"
            + "e6 = Conv (s, w6)\n" + build.stair("e6", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (3, 4, 1, 1), "b2": (3,), "w3": (8, 3, 1, 1), "b3": (8,),
         "w4": (8, 1, 3, 3), "w5": (3, 8, 1, 1), "w6": (6, 3, 1, 1), "wy": (5, 6), "other": 0.3},
    ),
    "convolution behind a depthwise one": (
        _body(
            "d2 = Conv <pads: ints = [1,1,1,1], strides: ints = [2,2], group: int = 4> (a1, w2)\n"
            + "c2 = Conv (d2, w3, b3)\n" + build.stair("c2", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (4, 1, 3, 3), "w3": (6, 4, 1, 1), "b3": (6,), "wy": (5, 6)},
    ),
    "depthwise behind a convolution": (
        _body(
            "c2 = Conv (a1, w2)\n"
            + "d2 = Conv <pads: ints = [2,2,2,2], dilations: ints = [2,2], group: int = 6> "
            + "(c2, w3)\n"
            + build.stair("d2", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (6, 4, 1, 1), "w3": (6, 1, 3, 3), "wy": (5, 6)},
    ),
    "bias in front of padding": (
        _body(
            "c2 = Conv (a1, w2, b2)\n" + f"c3 = Conv {_PAD} (c2, w3)\n"
            + build.stair("c3", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (3, 4, 1, 1), "b2": (3,), "w3": (6, 3, 3, 3), "wy": (5, 6)},
    ),
    "two large kernels": (
        _body(
            f"c2 = Conv {_PAD} (a1, w2)\n"
            + "c3 = Conv <strides: ints = [2,2], group: int = 2> (c2, w3)\n"
            + build.stair("c3", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (6, 4, 3, 3), "w3": (6, 3, 2, 2), "wy": (5, 6)},
    ),
    "average behind a convolution": (
        _body(
            f"c2 = Conv {_PAD} (a1, w2)\n"
            + "p = AveragePool <kernel_shape: ints = [2,2], strides: ints = [2,2]> (c2)\n"
            + build.stair("p", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (6, 4, 3, 3), "wy": (5, 6)},
    ),
    "average of too many counts": (
        _FIRST + "m2 = ReduceMean <axes: ints = [2,3], keepdims: int = 0> (a1)\n"
        + build.stair("m2", "a2", step="mid")
        + "g3 = GlobalAveragePool (a1)\nr3 = Squeeze (g3, spatial)\nh3 = MatMul (r3, w3)\n"
        + build.stair("h3", "a3", step="small")
        + "j = Concat <axis: int = 1> (a2, a3)\ny = Gemm <transB: int = 1> (j, wy)",
        {"w1": (4, 3, 3, 3), "w3": (4, 6), "wy": (5, 10), "small": 0.05, "mid": 0.25,
         "spatial": np.array([2, 3], np.int64)},
    ),
    "two dense layers": (
        _FIRST + "flat = Flatten (a1)\ng = Gemm <transB: int = 1> (flat, w2, b2)\n"
        + "h = MatMul (g, w3)\nk = Add (h, b3)\n" + build.stair("k", "a3", step="small")
        + "y = Gemm <transB: int = 1> (a3, wy)",
        {"w1": (4, 3, 3, 3), "w2": (7, 256), "b2": (7,), "w3": (7, 9), "b3": (9,), "wy": (5, 9),
         "small": 0.1},
    ),
    "currents side by side": (
        _body(
            f"c2 = Conv {_PAD} (a1, w2, b2)\ncat = Concat <axis: int = 1> (c2, a1)\n"
            + build.stair("cat", "a2") + f"c3 = Conv {_PAD} (a2, w3)\n"
            + "more = Concat <axis: int = 1> (cat, c3)\n" + build.stair("more", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (3, 4, 3, 3), "b2": (3,), "w3": (2, 7, 3, 3), "wy": (5, 9)},
    ),
    "transposed convolution": (
        _body(
            "c2 = ConvTranspose <kernel_shape: ints = [3,2], strides: ints = [2,2], "
            + "pads: ints = [1,0,0,1], output_padding: ints = [1,0], group: int = 2> (a1, w2, b2)\n"
            + build.stair("c2", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (4, 3, 3, 2), "b2": (6,), "wy": (5, 6)},
    ),
    "transposed convolution, cropped": (
        _body(
            "c2 = ConvTranspose <kernel_shape: ints = [2,2], strides: ints = [3,1], "
            + "pads: ints = [2,1,3,1], dilations: ints = [1,2]> (a1, w2)\n"
            + build.stair("c2", "last")
        ),
        {"w1": (4, 3, 3, 3), "w2": (4, 6, 2, 2), "wy": (5, 6)},
    ),
    "a sum that is read out": (
        _FIRST + "c2 = Conv (a1, w2, b2)\n" + build.stair("c2", "a2") + "p3 = Conv (a2, w3)\n"
        + "e4 = Conv (p3, w4)\n" + build.stair("e4", "a4") + "p5 = Conv (a4, w5)\n"
        + "last = Add (p3, p5)\n" + _END,
        {"w1": (4, 3, 3, 3), "w2": (4, 4, 1, 1), "b2": (4,), "w3": (3, 4, 1, 1),
         "w4": (8, 3, 1, 1), "w5": (3, 8, 1, 1), "wy": (5, 3)},
    ),
}  # fmt: skip
for _name in ("offset without padding", "offset behind padding"):
    _text, _weights = CASES[_name]
    CASES[_name] = (_text.replace("c2 = Conv", "up = Add (a1, lift)\nc2 = Conv", 1), _weights)


def case(name: str, timesteps: int = 4) -> Snn:
    body, weights = CASES[name]
    return network(body, weights, timesteps)


def file(name: str, form: str, timesteps: int = 4) -> onnx.ModelProto:
    """The int8 file of a case."""
    snn = case(name, timesteps)
    parts = INT8_FORMS[form].parts(quantise_weights.run(snn, timesteps).network)
    onnx.checker.check_model(parts.typed(), full_check=True)
    return with_metadata(parts.whole(), snn, f"int8-{form}")


def with_metadata(model: onnx.ModelProto, snn: Snn, form: str) -> onnx.ModelProto:
    """``model`` with the metadata that the pipeline adds."""
    own = {p.key: p.value for p in model.metadata_props}
    onnx.helper.set_model_props(model, {**metadata(snn, form, "test", ""), **own})
    return model
