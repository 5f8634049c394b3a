"""FINN's MultiThreshold: thresholds of a tensor or of each channel, in either layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from na_convert.passes.plain_thresholds import plain_thresholds
from onnx import numpy_helper

import na_convert
from na_convert import qonnx
from na_convert.errors import NotConvertible

from . import build

DOMAINS = ("qonnx.custom_op.general", "finn.custom_op.general", "onnx.brevitas")
EVEN = (np.arange(3, dtype=np.float32) + 0.5) * 0.4  # 0, 1, 2 or 3 of them are reached
CHANNELS = EVEN * np.linspace(0.5, 1.5, 6, dtype=np.float32)[:, None]


def saved(
    folder: Path,
    body: str,
    thresholds: np.ndarray,
    *,
    domain: str = DOMAINS[0],
    inputs: str = "float[N,3,8,8] x",
) -> Path:
    """``body`` with both `thresholds`, weights of a convolutional or a plain network as it asks."""
    text = (
        f'<ir_version: 9, opset_import: ["" : 17, "{domain}" : 1]>\n'
        f"net ({inputs}) => (float[N,5] y) {{ {body.replace('finn.', domain + '.')} }}"
    )
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    shapes = {
        "w1": (6, 3, 3, 3), "w2": (6, 6, 3, 3), "v1": (12, 6), "v2": (6, 6), "v": (6, 5),
    }  # fmt: skip
    for name, shape in shapes.items():
        drawn = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        model.graph.initializer.append(numpy_helper.from_array(drawn.astype(np.float32), name))
    model.graph.initializer.append(numpy_helper.from_array(thresholds, "thresholds"))
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


IMAGES = (
    "z1 = Conv <pads = [1,1,1,1]> (x, w1)\n"
    'a1 = finn.MultiThreshold <out_dtype = "UINT2", out_scale = 0.4> (z1, thresholds)\n'
    "z2 = Conv <pads = [1,1,1,1]> (a1, w2)\n"
    'a2 = finn.MultiThreshold <out_dtype = "UINT2", out_scale = 0.4> (z2, thresholds)\n'
    "m = GlobalAveragePool (a2)\nf = Flatten (m)\ny = Gemm (f, v)\n"
)
LAST = (
    "z0 = Conv <pads = [1,1,1,1]> (x, w1)\nz1 = Transpose <perm = [0,2,3,1]> (z0)\n"
    'a0 = finn.MultiThreshold <out_dtype = "UINT2", data_layout = "NHWC"> (z1, thresholds)\n'
    "a1 = Transpose <perm = [0,3,1,2]> (a0)\nz2 = Conv (a1, w2)\n"
    'a2 = finn.MultiThreshold <out_dtype = "UINT2"> (z2, thresholds)\n'
    "m = GlobalAveragePool (a2)\nf = Flatten (m)\ny = Gemm (f, v)\n"
)
PLAIN = (
    "z1 = MatMul (x, v1)\n"
    'a1 = finn.MultiThreshold <out_dtype = "INT2", out_scale = 0.5, out_bias = -1.0>'
    " (z1, thresholds)\nz2 = MatMul (a1, v2)\n"
    'a2 = finn.MultiThreshold <out_dtype = "UINT2"> (z2, thresholds)\ny = Gemm (a2, v)\n'
)
NETWORKS = {
    "images": (IMAGES, (3, 8, 8)),
    "channels last": (LAST, (3, 8, 8)),
    "no images": (PLAIN, (12,)),
}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_converts(name: str, per_channel: bool, tmp_path: Path) -> None:
    body, shape = NETWORKS[name]
    inputs = f"float[N,{','.join(map(str, shape))}] x"
    path = saved(tmp_path, body, CHANNELS if per_channel else EVEN[None], inputs=inputs)
    result = na_convert.convert(path, data={"x": build.images(6, shape)})
    assert result.passed
    assert [n.levels for n in result.neurons] == [3, 3]
    steps = CHANNELS[:, 1] - CHANNELS[:, 0] if per_channel else np.asarray(0.4)
    for neuron in result.neurons:
        np.testing.assert_allclose(neuron.threshold, 3 * steps, rtol=1e-6)


@pytest.mark.parametrize("domain", DOMAINS)
def test_in_each_domain(domain: str, tmp_path: Path) -> None:
    result = na_convert.convert(saved(tmp_path, IMAGES, EVEN[None], domain=domain))
    assert [n.levels for n in result.neurons] == [3, 3]


def test_uneven_thresholds_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, IMAGES, np.asarray([[0.1, 0.2, 0.7]], np.float32))
    with pytest.raises(NotConvertible) as failure:
        na_convert.convert(path)
    assert len(failure.value.refused) == 2
    assert "levels" in failure.value.refused[0].reason


def test_computed_thresholds_are_refused(tmp_path: Path) -> None:
    body = IMAGES.replace("(z2, thresholds)", "(z2, own)").replace(
        "m = ", "s = ReduceMean <axes = [1, 2, 3], keepdims = 0> (x)\nown = Unsqueeze (s, at)\nm = "
    )
    body = "at = Constant <value_ints = [0]> ()\n" + body
    lines = body.splitlines()
    lines.insert(1, lines.pop(next(i for i, line in enumerate(lines) if line.startswith("s = "))))
    lines.insert(2, lines.pop(next(i for i, line in enumerate(lines) if line.startswith("own"))))
    with pytest.raises(NotConvertible) as failure:
        na_convert.convert(saved(tmp_path, "\n".join(lines), EVEN[None]))
    assert [r.op for r in failure.value.refused] == ["MultiThreshold"]


@pytest.mark.parametrize(
    ("shape", "layout"), [((2, 6, 4, 5), "NCHW"), ((2, 4, 5, 6), "NHWC"), ((2, 6), "NCHW"),
                          ((2, 7, 6), "NCHW"), ((2, 6), "NHWC")]
)  # fmt: skip
def test_what_qonnx_says(shape: tuple[int, ...], layout: str) -> None:
    x = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    attrs = {"data_layout": layout, "out_scale": 0.5, "out_bias": -1.0}
    found = qonnx.evaluate("MultiThreshold", [x, CHANNELS], attrs)
    channel = 1 if (len(shape), layout) == (4, "NCHW") else len(shape) - 1
    for index in np.ndindex(shape):
        reached = sum(x[index] >= threshold for threshold in CHANNELS[index[channel]])
        assert found[index] == 0.5 * reached - 1


@pytest.mark.parametrize(("rows", "written"), [(1, 1), (6, 0)])
@pytest.mark.parametrize("known", [True, False])
def test_thresholds_of_channels_need_to_know_where_they_are(
    rows: int, written: int, known: bool
) -> None:
    net, _ = build.graph(
        "u = na_convert.Staircase <levels: int = 3> (x, one, one, one, one)\n"
        " y = Relu (u, table)", {"one": 1.0, "table": CHANNELS[:rows]}, inputs="float[N,6] x",
    )  # fmt: skip
    first, second = net.nodes
    first.domain = first.domain if known else "nobody.knows"
    second.op, second.domain = "MultiThreshold", DOMAINS[0]
    assert plain_thresholds(net) == (1 if known else written)
    assert plain_thresholds(net) == 0
