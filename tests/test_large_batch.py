"""Files for a batch too large to run: freed, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import na_convert
from na_convert import model_io
from na_convert.errors import ModelError

from . import build

HUGE = [2**20, 2**33]


def for_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    return model


def stored(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("batch", HUGE)
def test_a_batch_in_the_interface_alone_is_freed(tmp_path: Path, batch: int) -> None:
    """2^20 images of 8 x 8: no sample has a large tensor, and nothing is run at that batch."""
    fixed = na_convert.convert(
        stored(tmp_path, for_batch(build.low_bit_ann(), batch)), output=tmp_path / "fixed.onnx"
    )
    free = na_convert.convert(stored(tmp_path, build.low_bit_ann()), output=tmp_path / "free.onnx")
    assert fixed.passed
    assert fixed.neurons == free.neurons
    assert any(f"the file's batch of {batch}" in note for note in fixed.notes)
    outputs = [
        na_convert.simulate(tmp_path / name, data={"x": build.images(4)}).outputs
        for name in ("fixed.onnx", "free.onnx")
    ]
    for t, expected in outputs[1].items():
        np.testing.assert_array_equal(outputs[0][t]["y"], expected["y"])


@pytest.mark.parametrize("batch", HUGE)
def test_a_batch_built_into_a_reshape_is_refused(tmp_path: Path, batch: int) -> None:
    ann = build.low_bit_ann()
    flatten = next(n for n in ann.graph.node if n.op_type == "Flatten")
    flatten.CopyFrom(
        onnx.helper.make_node("Reshape", [flatten.input[0], "to"], flatten.output, flatten.name)
    )
    ann.graph.initializer.append(onnx.numpy_helper.from_array(np.array([batch, 6]), "to"))
    path = stored(tmp_path, for_batch(ann, batch))
    with pytest.raises(ModelError, match=rf"batch of {batch}.*'{flatten.name}' may have") as caught:
        na_convert.convert(path)
    assert "\n" not in str(caught.value)


def test_inputs_of_unlike_batches_are_refused(tmp_path: Path) -> None:
    model = build.model(
        "s = Add (x, z)\ny = ReduceMean <axes: ints = [0]> (s)",
        inputs=f"float[{2**33},3,8,8] x, float[1,3,8,8] z",
        outputs="float[1,3,8,8] y",
    )
    with pytest.raises(ModelError, match=r"'x' would have 1\.65e.* the inputs differ"):
        model_io.load(stored(tmp_path, model))


def test_a_large_batch_that_is_averaged_over_is_refused(tmp_path: Path) -> None:
    """No computed tensor is large then, and the input alone would fill the memory."""
    model = build.model(
        "y = ReduceMean <axes: ints = [0]> (x)",
        inputs=f"float[{2**33},3,8,8] x",
        outputs="float[1,3,8,8] y",
    )
    with pytest.raises(ModelError, match=r"'x' would have .*'ReduceMean_0' may have that batch"):
        model_io.load(stored(tmp_path, model))


def test_a_batch_that_can_be_run_stays(tmp_path: Path) -> None:
    loaded = model_io.load(stored(tmp_path, for_batch(build.low_bit_ann(), 2)))
    assert loaded.notes == ()
    assert loaded.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
