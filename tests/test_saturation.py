"""Outputs close to 0, as of a detector that finds nothing: float errors are no share of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from na_convert.passes import fold_batchnorm

import na_convert
from na_convert.graph import import_graph
from na_convert.runtime import run
from na_convert.saturation import is_probability, saturation_error
from na_convert.teacher_forcing import teacher_forced_error
from tests import build

CHANNELS = {
    "gain": np.linspace(0.8, 1.3, 5, dtype=np.float32),
    "shift": np.linspace(-0.2, 0.2, 5, dtype=np.float32),
    "mean": np.linspace(-0.3, 0.1, 5, dtype=np.float32),
    "variance": np.linspace(0.7, 1.4, 5, dtype=np.float32),
}
WEIGHTS = {**build.PLAIN, **CHANNELS, "w": (4, 3, 3, 3), "v": (256, 5)}
ENDS = {
    "alone": "y = Sigmoid (l)",
    "moved": "s = Sigmoid (l)\ny = Transpose <perm = [0,1]> (s)",
    "joined": "s = Sigmoid (l)\nr, q = Split <axis = 1, num_outputs = 2> (s)\n"
    "y = Concat <axis = 1> (q, r)",
}


def detector(bias: float, end: str, opset: int = 18) -> onnx.ModelProto:
    body = (
        "z = Conv <pads = [1,1,1,1]> (x, w)\n" + build.quantised("z", "a")
        + "f = Flatten (a)\nl0 = Gemm (f, v, bias)\n"
        "l = BatchNormalization (l0, gain, shift, mean, variance)\n" + end
    )  # fmt: skip
    weights = {**WEIGHTS, "bias": np.full(5, bias, np.float32)}
    return build.model(body, weights, opset=opset)


@pytest.mark.parametrize("bias", [-40.0, -20.0, -14.0, 0.0])
@pytest.mark.parametrize("end", ENDS)
def test_a_network_that_finds_nothing_converts(tmp_path: Path, end: str, bias: float) -> None:
    onnx.save(detector(bias, ENDS[end]), tmp_path / "m.onnx")
    result = na_convert.convert(
        tmp_path / "m.onnx", output=tmp_path / "s.onnx", data={"x": build.images(8)}
    )
    assert result.passed


def test_what_goes_into_the_sigmoid_is_compared_as_ever() -> None:
    graph, carried = import_graph(detector(-40.0, ENDS["moved"]))
    folded = graph.copy()
    fold_batchnorm.run(folded)
    found = teacher_forced_error(graph, folded, carried, {"x": build.images()})
    assert 0 < found.max_rel < 1e-5
    (gemm,) = folded.tensors()["l"].inputs
    gemm.inputs[2].values = gemm.inputs[2].values * np.float32(1.01)
    found = teacher_forced_error(graph, folded, carried, {"x": build.images()})
    assert found.where == "l"
    assert 5e-3 < found.max_rel < 2e-2


OTHERS = (
    "y = Tanh (l)",
    "s = Sigmoid (l)\ny = Mul (s, l)",
    "s = Sigmoid (l)\ny = Concat <axis = 1> (s, l)",
)


@pytest.mark.parametrize("end", OTHERS)
def test_other_ends_have_no_such_error(end: str) -> None:
    graph, _ = build.graph("l = Flatten (x)\n" + end)
    assert saturation_error(graph.outputs[0]) == 0


LONE = {
    "alone": "y = Sigmoid (g)",
    "quantised": "p = Sigmoid (g)\nq = QuantizeLinear (p, share, none)\n"
    "y = DequantizeLinear (q, share, none)",
}


@pytest.mark.parametrize("end", LONE)
def test_a_lone_probability_is_a_class_by_a_half(tmp_path: Path, end: str) -> None:
    """All of them are above 0: by their sign, ANN and SNN would always agree."""
    body = (
        "z = Conv <pads = [1,1,1,1]> (x, w)\n" + build.quantised("z", "a")
        + "f = Flatten (a)\ng = Gemm (f, v, bias)\n" + LONE[end]
    )  # fmt: skip
    weights = {**WEIGHTS, "v": (256, 1), "bias": np.full(1, -0.2, np.float32)}
    weights |= {"share": 1 / 255, "none": np.zeros((), np.uint8)}
    onnx.save(build.model(body, weights), tmp_path / "m.onnx")
    given, snn = build.images(40), tmp_path / "s.onnx"
    labels = (run(onnx.load(tmp_path / "m.onnx"), {"x": given})["y"][:, 0] > 0.5).astype(np.int64)
    assert 5 < labels.sum() < 35
    data = {"x": given, "labels": labels}
    result = na_convert.convert(tmp_path / "m.onnx", output=snn, data=data, timesteps=1)
    said = [run(onnx.load(snn), {"x": rows})["y"][0, 0] > 0.5 for rows in given[:, None]]
    right = float(np.mean(np.array(said) == labels))
    assert right < 1
    assert result.equivalence is not None
    (row,) = result.equivalence.by_timestep
    assert (row.ann_accuracy, row.snn_accuracy, row.agreement) == (1, right, right)
    (simulated,) = na_convert.record(snn, data=data).by_timestep
    assert simulated.accuracy == right


def test_a_lone_probability_is_decided_by_its_distance_from_a_half(tmp_path: Path) -> None:
    body = (
        "z = Conv <pads = [1,1,1,1]> (x, w)\n" + build.quantised("z", "a")
        + "f = Flatten (a)\ng = Gemm (f, v)\ny = Sigmoid (g)"
    )  # fmt: skip
    onnx.save(build.model(body, {**WEIGHTS, "v": (256, 1)}), tmp_path / "m.onnx")
    given, snn = {"x": build.images(20)}, tmp_path / "s.onnx"
    na_convert.convert(tmp_path / "m.onnx", output=snn, data=given, form="step", timesteps=3)
    never = na_convert.record(snn, data=given, early_exit=0.51)
    assert never.early_exit is not None
    assert never.early_exit.mean_timesteps == 3


def test_what_is_no_probability() -> None:
    assert not is_probability(build.graph("l = Flatten (x)\ny = Tanh (l)")[0])
    assert is_probability(build.graph("l = Flatten (x)\ny = Sigmoid (l)")[0])
