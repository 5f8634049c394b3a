"""Small networks for the tests, from ONNX text; weights are drawn from a seed."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs

from na_convert import neurons
from na_convert.graph import Carried, import_graph

OPSET = 17


def model(
    body: str,
    weights: dict[str, tuple[int, ...] | float | np.ndarray] | None = None,
    *,
    inputs: str = "float[N,3,8,8] x",
    outputs: str = "float[N,M] y",
    opset: int = OPSET,
    seed: int = 0,
) -> onnx.ModelProto:
    """A model from the nodes in ``body``; ``weights``: arrays, numbers, or shapes to draw.

    Spiking and activation nodes are written ``na_convert.IF <...> (...)``; their functions are
    added.
    """
    text = (
        f'<ir_version: 9, opset_import: ["" : {opset}, "na_convert" : 1]>\n'
        f"net ({inputs}) => ({outputs}) {{ {body} }}"
    )
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(seed)
    for name, value in (weights or {}).items():
        if isinstance(value, tuple):
            fan_in = max(1, int(np.prod(value[1:])))
            values = (rng.standard_normal(value) / np.sqrt(fan_in)).astype(np.float32)
        else:
            values = np.asarray(value, np.float32) if np.isscalar(value) else np.asarray(value)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    for index, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    ours = re.findall(r"na_convert\.(\w+)", body)
    proto.functions.extend(neurons.functions_used(ours, opset))
    return proto


def graph(body: str, *args: object, **kwargs: object) -> tuple[gs.Graph, Carried]:
    """`model`, imported for the passes."""
    return import_graph(model(body, *args, **kwargs))  # type: ignore[arg-type]


def stair(root: str, output: str, *, levels: int = 3, step: str = "step") -> str:
    """The text of a plain Staircase node; the model needs `PLAIN` and the step as weights."""
    return (
        f'{output} = na_convert.Staircase <levels: int = {levels}, tie_rule: string = "half_up">'
        f" ({root}, {step}, {step}, zero, half)\n"
    )


def quantised(root: str, output: str, *, levels: int = 3, step: str = "step") -> str:
    """The text of the same in standard operators, as an exporter writes it; needs `PLAIN` too."""
    inner = [f"{output}_{name}" for name in ("ratio", "level", "kept")]
    return (
        f"{output}_top = Constant <value_float: float = {float(levels)}> ()\n"
        f"{inner[0]} = Div ({root}, {step})\n{inner[1]} = Round ({inner[0]})\n"
        f"{inner[2]} = Clip ({inner[1]}, zero, {output}_top)\n{output} = Mul ({inner[2]}, {step})\n"
    )


PLAIN: dict[str, tuple[int, ...] | float | np.ndarray] = {"zero": 0.0, "half": 0.5, "step": 0.4}


def images(count: int = 2, shape: tuple[int, ...] = (3, 8, 8), seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def low_bit_ann() -> onnx.ModelProto:
    """A convertible ANN as an exporter writes it: two convolutions, two 2-bit activations."""
    quantise = (
        "{y}q = Div ({x}, step)\n{y}r = Round ({y}q)\n{y}k = Clip ({y}r, zero, top)\n"
        "{y} = Mul ({y}k, step)\n"
    )
    body = (
        "c = Conv <pads: ints = [1,1,1,1]> (x, w1)\n" + quantise.format(x="c", y="a")
        + "d = Conv <pads: ints = [1,1,1,1]> (a, w2)\n" + quantise.format(x="d", y="b")
        + "m = GlobalAveragePool (b)\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, w3)"
    )  # fmt: skip
    weights: dict[str, tuple[int, ...] | float | np.ndarray] = {
        "w1": (4, 3, 3, 3), "w2": (6, 4, 3, 3), "w3": (5, 6), "step": 0.4, "zero": 0.0, "top": 3.0
    }  # fmt: skip
    return model(body, weights)
