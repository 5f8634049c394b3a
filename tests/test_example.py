"""The shipped example: what issue and README promise of it, on its real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import na_convert
from na_convert.results import Result
from na_convert.runtime import session

EXAMPLES = Path(__file__).parents[1] / "examples"
IMAGES = 100


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    with np.load(EXAMPLES / "resnet8-cifar10.npz", allow_pickle=False) as stored:
        return {name: stored[name][:IMAGES] for name in ("x", "labels")}


@pytest.fixture(scope="module")
def result(data: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Result:
    output = tmp_path_factory.mktemp("example") / "snn.onnx"
    return na_convert.convert(EXAMPLES / "resnet8-cifar10.onnx", output=output, data=data)


def test_batchnorm_stands_in_the_file_and_is_folded(result: Result) -> None:
    assert result.model.nodes["BatchNormalization"] == 9
    assert result.output is not None
    assert "BatchNormalization" not in result.output.nodes
    assert result.equivalence is not None
    assert result.equivalence.fold_error is not None
    assert 0 < result.equivalence.fold_error <= 1e-4


def test_replay_is_exact_and_exercises_every_layer(result: Result) -> None:
    assert result.equivalence is not None
    assert result.equivalence.replay_mismatches == 0
    assert len(result.equivalence.layers) == 7
    assert all(layer.exercised for layer in result.equivalence.layers)


def test_the_first_layer_is_even(result: Result) -> None:
    assert result.equivalence is not None
    rates = [layer.unevenness for layer in result.equivalence.layers]
    assert rates[0] == 0
    assert all(rate > 0 for rate in rates[1:])


@pytest.mark.parametrize("timesteps", [1, 3, 8])
@pytest.mark.parametrize("batch", [1, 5])
def test_same_counts_in_onnxruntime_and_in_the_reference(
    result: Result, data: dict[str, np.ndarray], timesteps: int, batch: int
) -> None:
    assert result.output is not None
    model = onnx.load(result.output.path)
    layers = [n for n in model.graph.node if n.op_type == "IF"]
    names = [n.output[0] for n in layers]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    mean = np.array([0.4914, 0.4822, 0.4465], np.float32).reshape(3, 1, 1)
    std = np.array([0.247, 0.2435, 0.2616], np.float32).reshape(3, 1, 1)
    x = ((data["x"][:batch] / np.float32(255) - mean) / std).astype(np.float32)
    feeds = {"x": x, "timesteps": np.array(timesteps)}
    for ours, theirs in zip(
        session(model).run(names, feeds), ReferenceEvaluator(model).run(names, feeds), strict=True
    ):
        shape = (timesteps, batch, *ours.shape[1:])
        counts = [np.count_nonzero(s.reshape(shape), axis=0) for s in (ours, theirs)]
        np.testing.assert_array_equal(*counts)
