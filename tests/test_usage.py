"""What functions of the API refuse at once, in one line that says what is needed instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import na_convert
from na_convert import forms, model_io, reading
from na_convert.errors import DataError, ModelError, UsageError
from na_convert.labels import read_labels
from na_convert.simulator import Simulator
from na_convert.snn import Snn

from . import build, spiking


@pytest.fixture
def ann(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(build.low_bit_ann(), "ann.onnx")
    return Path("ann.onnx")


def stored(snn: Snn) -> Path:
    path = Path("net.snn.onnx")
    onnx.save(forms.FORMS["folded"].parts(snn).whole(), path)
    return path


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda ann: na_convert.convert(ann, weights="int8", tie_shortcuts="perhaps"),
            "--tie-shortcuts perhaps: one of auto, always, never is needed",
        ),
        (
            lambda ann: na_convert.convert(ann, weights="int8", form="folded"),
            "--form folded: no such form with --weights int8",
        ),
        (lambda ann: na_convert.convert(ann, form="scrolled"), "--form scrolled"),
        (lambda ann: na_convert.export_integers(ann, output="net.bin"), "-o net.bin: "),
        (
            lambda ann: reading.samples_for(model_io.load(ann), None, None, labels=np.arange(3)),
            "--labels needs --data",
        ),
    ],
)
def test_what_there_is_not(ann: Path, call: Callable[[Path], object], message: str) -> None:
    with pytest.raises(UsageError) as error:
        call(ann)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_input_without_a_batch(tmp_path: Path) -> None:
    proto = build.model("y = Relu (x)", inputs="float x", outputs="float y")
    proto.graph.input[0].type.tensor_type.shape.SetInParent()
    onnx.save(proto, tmp_path / "ann.onnx")
    with pytest.raises(ModelError, match="input 'x' has no batch axis: export with inputs"):
        na_convert.inspect(tmp_path / "ann.onnx")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xfa\xfb"])
def test_labels_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "labels.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"labels.txt: not a readable file of labels$"):
        read_labels(path)


def test_an_early_decision_needs_a_vector_of_classes(ann: Path) -> None:
    body = spiking.FIRST + "y = Conv (a1, w2)"
    file = stored(spiking.network(body, {**spiking.SHAPES}))
    with pytest.raises(UsageError, match="--early-exit: the output 'y' is no vector of classes"):
        na_convert.record(file, data={"x": build.images(3)}, early_exit=0.1)


@pytest.mark.parametrize("margin", [0.05, 1e6])
def test_a_lone_logit_is_decided_by_its_size(ann: Path, margin: float) -> None:
    snn = spiking.network(
        spiking.FIRST.replace("a1", "last") + spiking.HEAD, {**spiking.SHAPES, "v": (1, 4)}
    )
    file, data = stored(snn), {"x": build.images(12)}
    outputs = na_convert.simulate(file, data=data, timesteps=3).outputs
    sizes = np.stack([np.abs(outputs[t]["y"][:, 0]) for t in (1, 2, 3)]) >= margin
    at = np.where(sizes.any(axis=0), sizes.argmax(axis=0), 2)
    found = na_convert.record(file, data=data, timesteps=3, early_exit=margin).early_exit
    assert found is not None
    assert found.stopped == tuple(np.bincount(at, minlength=3))
    assert found.accuracy is None
    assert (found.stopped[0] > 0) == (margin < 1)


def test_one_array_is_not_enough_for_two_inputs(ann: Path) -> None:
    body = (
        f"c1 = Conv {spiking.CONV} (x, w1, b1)\nb = Add (c1, z)\n" + build.stair("b", "last")
        + spiking.HEAD
    )  # fmt: skip
    proto = build.model(
        body.replace(build.stair("b", "last"), build.quantised("b", "last")),
        {**build.PLAIN, "w1": (4, 3, 3, 3), "b1": (4,), "v": (5, 4)},
        inputs="float[N,3,8,8] x, float[N,4,8,8] z",
    )
    onnx.save(proto, "two.onnx")
    na_convert.convert("two.onnx", output="two.snn.onnx", check=False)
    simulator = Simulator("two.snn.onnx")
    feeds = {"x": build.images(2), "z": build.images(2, (4, 8, 8))}
    with pytest.raises(UsageError, match="the network has 2 inputs: give a dict of arrays by name"):
        simulator.run(feeds["x"])
    assert simulator.run(feeds).outputs
