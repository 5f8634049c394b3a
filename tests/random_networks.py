"""Small random networks that can be converted, as hypothesis strategies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st

from . import build

KINDS = ("conv", "conv with BatchNorm", "depthwise", "strided", "residual", "max-pool")
SPELLINGS = ("round", "floor", "quantize", "clip first", "per channel")


@dataclass(frozen=True)
class Layer:
    kind: str
    spelling: str
    channels: int
    levels: int
    step: float


@st.composite
def layers(draw: st.DrawFn) -> list[Layer]:
    """One to three layers, the first of them with weights."""
    count = draw(st.integers(1, 3))
    found = []
    for index in range(count):
        kinds = [k for k in KINDS if index or k not in ("residual", "max-pool")]
        found.append(
            Layer(
                draw(st.sampled_from(kinds)),
                draw(st.sampled_from(SPELLINGS)),
                draw(st.integers(2, 5)),
                draw(st.sampled_from([1, 2, 3, 7])),
                draw(st.sampled_from([0.125, 0.2, 0.4, 0.71])),
            )
        )
    return found


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    """Convolutions, pools and shortcuts with quantised activations, and a linear readout."""
    return network(draw(layers()), seed=draw(st.integers(0, 2**16)))


def network(described: list[Layer], seed: int = 0) -> onnx.ModelProto:
    """The model of ``described``: input x [N, 3, 8, 8], output y [N, 5]."""
    rng = np.random.default_rng(seed)
    weights: dict[str, Any] = {"zero": 0.0, "half": 0.5, "byte": np.array(0, np.uint8)}
    text, x, channels, size = "", "x", 3, 8
    for k, layer in enumerate(described):
        body, into, channels, size = _linear(layer, k, x, channels, size, weights, rng)
        text += body
        if layer.kind == "max-pool" and k == 0:
            continue
        text += _quantised(layer, k, into, channels, weights, rng)
        x = f"a{k}"
    text += f"m = GlobalAveragePool ({x})\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, wf, bf)"
    weights |= {"wf": (5, channels), "bf": rng.normal(size=5).astype(np.float32)}
    return build.model(text, weights, seed=seed)


def _linear(
    layer: Layer,
    k: int,
    x: str,
    channels: int,
    size: int,
    weights: dict[str, Any],
    rng: np.random.Generator,
) -> tuple[str, str, int, int]:
    """The operators in front of an activation: their text, result, channels and size."""
    if layer.kind == "max-pool":
        text = f"p{k} = MaxPool <kernel_shape: ints = [2,2], strides: ints = [1,1]> ({x})\n"
        weights[f"w{k}"] = (layer.channels, channels, 1, 1)
        return (
            text + f"c{k} = Conv (p{k}, w{k}, b{k})\n",
            f"c{k}",
            *_biased(layer.channels, k, size - 1, weights, rng),
        )
    same = layer.kind in ("depthwise", "residual")
    out = channels if same else layer.channels
    group = channels if layer.kind == "depthwise" else 1
    stride = 2 if layer.kind == "strided" and size > 3 else 1
    weights[f"w{k}"] = (out, channels // group, 3, 3)
    options = f"pads: ints = [1,1,1,1], strides: ints = [{stride},{stride}], group: int = {group}"
    text = f"c{k} = Conv <{options}> ({x}, w{k}, b{k})\n"
    name = f"c{k}"
    if layer.kind == "conv with BatchNorm":
        text += f"n{k} = BatchNormalization (c{k}, g{k}, b{k}, bm{k}, bv{k})\n"
        name = f"n{k}"
        for key, low, high in (("g", 0.5, 1.5), ("bm", -0.3, 0.3), ("bv", 0.2, 1.5)):
            weights[f"{key}{k}"] = rng.uniform(low, high, out).astype(np.float32)
    if layer.kind == "residual":
        text += f"r{k} = Add (c{k}, {x})\n"
        name = f"r{k}"
    return text, name, *_biased(out, k, (size + stride - 1) // stride, weights, rng)


def _biased(
    channels: int, k: int, size: int, weights: dict[str, Any], rng: np.random.Generator
) -> tuple[int, int]:
    weights[f"b{k}"] = rng.normal(0.1, 0.3, channels).astype(np.float32)
    return channels, size


def _quantised(
    layer: Layer,
    k: int,
    x: str,
    channels: int,
    weights: dict[str, Any],
    rng: np.random.Generator,
) -> str:
    """A quantiser of ``x``, in one of the spellings of exporters; its output is a{k}."""
    step: Any = layer.step
    if layer.spelling == "per channel":
        step = (layer.step * rng.uniform(0.7, 1.4, (channels, 1, 1))).astype(np.float32)
    weights |= {f"s{k}": step, f"t{k}": float(layer.levels), f"h{k}": layer.step * layer.levels}
    if layer.spelling == "quantize":
        return (
            f"q{k} = QuantizeLinear ({x}, s{k}, byte)\n"
            f"d{k} = DequantizeLinear (q{k}, s{k}, byte)\na{k} = Clip (d{k}, zero, h{k})\n"
        )
    if layer.spelling == "clip first":
        return (
            f"e{k} = Clip ({x}, zero, h{k})\nd{k} = Div (e{k}, s{k})\nq{k} = Round (d{k})\n"
            f"a{k} = Mul (q{k}, s{k})\n"
        )
    rounding = f"e{k} = Round (d{k})\n"
    if layer.spelling == "floor":
        rounding = f"o{k} = Add (d{k}, half)\ne{k} = Floor (o{k})\n"
    text = f"d{k} = Div ({x}, s{k})\n{rounding}q{k} = Clip (e{k}, zero, t{k})\n"
    return text + f"a{k} = Mul (q{k}, s{k})\n"
