"""Models too large to be held twice: run piece by piece, the same numbers bit for bit."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import na_convert
from na_convert import cut, forms, model_io, model_writing, result_json, runtime
from na_convert.errors import CheckFailed, ModelError
from na_convert.graph import Computed, Parts, export_parts, import_graph, is_constant
from na_convert.protos import array_of, stays_in_file

from . import build

DATA = {"x": build.images(8, seed=3)}
BODY = """
    c1 = Conv <pads: ints = [1,1,1,1]> (x, w1)  r1 = Relu (c1)
    c2 = Conv <pads: ints = [1,1,1,1]> (r1, w2)  s = Add (c2, r1)  r2 = Relu (s)
    c3 = Conv (r2, w3)  f = Flatten (c3)
    g = Gemm (f, w4, b)  y = Relu (g)
"""
WEIGHTS: dict[str, tuple[int, ...] | float | np.ndarray] = {
    "w1": (16, 3, 3, 3), "w2": (16, 16, 3, 3), "w3": (16, 16, 3, 3), "w4": (576, 20), "b": (20,),
}  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called, it makes every weight of more than 64 bytes one of a model that is too large."""

    def lower() -> None:
        for module in (cut, model_io, runtime):
            monkeypatch.setattr(module, "HEAVY", 64)
        monkeypatch.setattr(runtime, "BESIDE", 0)
        for module in (cut, model_io):
            monkeypatch.setattr(module, "MOST_AT_ONCE", 0)
        monkeypatch.setattr(cut, "PIECE", 1)

    return lower


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sessions there are each time one is made."""
    living: weakref.WeakSet[Any] = weakref.WeakSet()
    counted: list[int] = []
    made = onnxruntime.InferenceSession

    def session(*arguments: Any, **options: Any) -> Any:
        found = made(*arguments, **options)
        living.add(found)
        counted.append(len(living))
        return found

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return counted


@pytest.mark.parametrize("kind", ["protobuf", "parts"])
def test_pieces_compute_the_same(kind: str, small: Callable[[], None], sessions: list[int]) -> None:
    model: onnx.ModelProto | Parts = build.model(BODY, WEIGHTS)
    if kind == "parts":
        model = export_parts(*build.graph(BODY, WEIGHTS))
    wanted = ["y", "c2", "s", "x", "b", "w2", "half"]
    added = [onnx.helper.make_node("Mul", ["c3", "b0"], ["half"])]
    model_light = cut.light_of(model)
    model_light.graph.initializer.append(
        onnx.numpy_helper.from_array(np.asarray(0.5, np.float32), "b0")
    )
    feeds = {"x": DATA["x"], "unused": DATA["x"]}
    expected = cut.cut_model(model, (), wanted, added=added)(feeds)
    assert sessions == [1]
    small()
    run = cut.cut_model(model, (), wanted, added=added)
    for _ in range(2):
        found = run(feeds)
        assert list(found) == wanted
        for name in wanted:
            np.testing.assert_array_equal(found[name], expected[name])
    assert len(sessions) == 1 + 2 * 4
    assert max(sessions[1:]) == 1  # one piece at a time


def test_pieces_of_what_lies_between(small: Callable[[], None], sessions: list[int]) -> None:
    model = build.model(BODY, WEIGHTS)
    given = {"r1": np.abs(build.images(2, (16, 8, 8))), "w3": np.ones((16, 16, 3, 3), np.float32)}
    expected = cut.cut_model(model, ["r1", "w3"], ["c3", "r1"])(given)
    small()
    found = cut.cut_model(model, ["r1", "w3"], ["c3", "r1"])(given)
    for name in ("c3", "r1"):
        np.testing.assert_array_equal(found[name], expected[name])
    assert len(sessions) == 2  # one more: what is given is no weight


def test_weights_are_handed_over_where_they_are(small: Callable[[], None]) -> None:
    parts = export_parts(*build.graph(BODY, WEIGHTS))
    small()
    runner = runtime.session(parts)
    assert {name: value.data_ptr() for name, value in runner.beside.items()} == {
        name: values.ctypes.data for name, values in parts.weights.items()
    }
    assert "w2" in parts.weights


# --- weights that stay in their file --------------------------------------------------------------


def test_large_external_weights_are_read_when_they_are_needed(
    tmp_path: Path, small: Callable[[], None]
) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(build.model(BODY, WEIGHTS), path, save_as_external_data=True, location="m.data",
              size_threshold=0)  # fmt: skip
    whole = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}
    small()
    loaded = model_io.load(path)
    assert loaded.bytes == path.stat().st_size + (tmp_path / "m.data").stat().st_size
    graph, _ = import_graph(loaded.model)
    for weight in loaded.model.graph.initializer:
        assert not weight.raw_data
        assert stays_in_file(weight)
        np.testing.assert_array_equal(array_of(weight), whole[weight.name])
        np.testing.assert_array_equal(graph.tensors()[weight.name].values, whole[weight.name])
    feeds = {"x": DATA["x"]}
    np.testing.assert_array_equal(
        runtime.run(loaded.model, feeds)["y"], runtime.run(onnx.load(path), feeds)["y"]
    )


def changed(data: Path) -> None:
    os.utime(data, ns=(0, 0))


def shortened(data: Path) -> None:
    modified = data.stat().st_mtime_ns
    data.write_bytes(data.read_bytes()[:-4])
    os.utime(data, ns=(modified, modified))


def removed(data: Path) -> None:
    data.unlink()


@pytest.mark.parametrize(
    ("change", "match"),
    [(changed, "changed while"), (shortened, "changed while"), (removed, "cannot be read")],
)
def test_a_file_that_changes_meanwhile_is_no_weight(
    tmp_path: Path, small: Callable[[], None], change: Callable[[Path], None], match: str
) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(build.model(BODY, WEIGHTS), path, save_as_external_data=True, location="m.data")
    small()
    model = model_io.load(path).model
    change(tmp_path / "m.data")
    with pytest.raises(ModelError, match=match):
        import_graph(model)


# --- commands -------------------------------------------------------------------------------------


def wide_ann(activation: Callable[[str, str], str] = build.quantised) -> onnx.ModelProto:
    """A chain with an identity shortcut, of weights that are large for `small`."""
    pads = "<pads: ints = [1,1,1,1]>"
    body = (
        f"c = Conv {pads} (x, w1)\n{activation('c', 'a')}"
        f"d = Conv {pads} (a, w2)\ne = Add (d, a)\n{activation('e', 'b')}"
        f"g = Conv {pads} (b, w3)\n{activation('g', 'h')}"
        "m = GlobalAveragePool (h)\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, w4)"
    )
    shapes = {"w1": (16, 3, 3, 3), "w2": (16, 16, 3, 3), "w3": (16, 16, 3, 3), "w4": (30, 16)}
    return build.model(body, {**shapes, **build.PLAIN})


def plain_relu(root: str, output: str) -> str:
    return f"{output} = Relu ({root})\n"


CONVERSIONS: dict[str, dict[str, Any]] = {
    "float": {},
    "unrolled": {"form": "unrolled", "check": False},
    "int8": {"weights": "int8", "check": False},
    "biases": {"calibrate_bias": DATA, "check": False},
    "percentile": {"calibrate": DATA, "percentile": 99.0, "timesteps": 2, "check": False},
    "agreement": {"target_agreement": 0.0, "timesteps": 2, "check": False},
}


@pytest.mark.parametrize("case", CONVERSIONS)
def test_commands_find_the_same(
    tmp_path: Path, case: str, small: Callable[[], None], sessions: list[int]
) -> None:
    ann, options = tmp_path / "ann.onnx", CONVERSIONS[case]
    source = wide_ann(plain_relu) if "calibrate" in options else wide_ann()
    onnx.save(source, ann, save_as_external_data=True, location="ann.data")
    expected = everything(ann, tmp_path / "at_once.onnx", options)
    at_once = len(sessions)
    small()
    found = everything(ann, tmp_path / "in_pieces.onnx", options)
    assert len(sessions) > 2 * at_once
    assert found == expected
    files = [(tmp_path / f"{name}.onnx").read_bytes() for name in ("at_once", "in_pieces")]
    assert files[0] == files[1]


def everything(ann: Path, snn: Path, options: dict[str, Any]) -> list[Any]:
    """What converting, checking and simulating say, but for the file's name."""
    made = na_convert.convert(ann, output=snn, data=DATA, **options)
    checked = na_convert.check(ann, snn, data=DATA)
    simulated = na_convert.simulate(snn, data=DATA).outputs
    results = [result_json.to_json(made, "convert"), result_json.to_json(checked, "check")]
    texts = [json.dumps(result).replace(snn.name, "snn") for result in results]
    return [*texts, [v.tobytes() for t in simulated.values() for v in t.values()]]


def test_a_large_part_is_bisected_into_files_with_external_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Callable[[], None]
) -> None:
    ann, snn = tmp_path / "ann.onnx", tmp_path / "snn.onnx"
    onnx.save(wide_ann(), ann, save_as_external_data=True, location="ann.data")
    monkeypatch.setattr(model_writing, "PROTOBUF_LIMIT", 2000)
    small()
    na_convert.convert(ann, output=snn, data=DATA)
    model = onnx.load(snn, load_external_data=False)
    assert any(i.data_location for i in model.graph.initializer)
    neurons = [node for node in model.graph.node if node.op_type == "IF"]
    next(a for a in neurons[1].attribute if a.name == "threshold").f *= 1.5
    onnx.save(model, snn)
    with pytest.raises(CheckFailed) as caught:
        na_convert.check(ann, snn, data=DATA, bisect=tmp_path / "around")
    assert caught.value.node == neurons[1].name
    names = sorted(file.name for file in (tmp_path / "around").iterdir())
    beside = [name for name in names if name.endswith(".data")]
    assert [name.split(".onnx")[0] for name in beside] == ["ann", "snn"]
    assert set(names) == {"ann.npz", "ann.onnx", "snn.npz", "snn.onnx", *beside}
    found = [of_part(tmp_path / "around" / name) for name in ("ann.onnx", "snn.onnx")]
    assert found[0].shape == found[1].shape
    assert np.abs(found[0] - found[1]).max() > 0.3


def of_part(path: Path) -> np.ndarray:
    onnx.checker.check_model(path, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    with np.load(path.with_suffix(".npz")) as stored:
        (output,) = session.run(None, dict(stored))
    return np.asarray(output)


def test_a_view_of_integers_holds_no_float_weights(tmp_path: Path) -> None:
    ann, snn = tmp_path / "ann.onnx", tmp_path / "snn.onnx"
    onnx.save(wide_ann(), ann)
    na_convert.convert(ann, output=snn, data=DATA, weights="int8", check=False)
    graph = forms.read(onnx.load(snn)).graph
    for each in (graph, graph.copy()):
        large = [
            tensor
            for node in each.nodes
            for tensor in node.inputs
            if is_constant(tensor) and tensor.shape == (16, 16, 3, 3)
        ]
        assert len(large) == 2
        for tensor in large:
            assert isinstance(tensor, Computed)
            assert tensor.dtype == tensor.values.dtype == np.float32
            assert tensor.shape == tensor.values.shape
            assert tensor.values is not tensor.values
