"""What onnxruntime refuses, and whose fault it is."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import na_convert
from na_convert import pipeline, runtime
from na_convert.errors import ModelError

from . import build


def with_qonnx() -> onnx.ModelProto:
    """A valid model whose weights are quantised by an operator that onnxruntime lacks."""
    body = "q = Identity (w1)\nc = Conv (x, q)\ny = Flatten (c)"
    model = build.model(body, {"w1": (4, 3, 3, 3), "s": 0.25, "z": 0.0, "b": 4.0})
    quantiser = onnx.helper.make_node(
        "Quant", ["w1", "s", "z", "b"], ["q"], "q", domain="qonnx.custom_op.general",
        signed=1, narrow=1, rounding_mode="ROUND",
    )  # fmt: skip
    model.graph.node[0].CopyFrom(quantiser)
    model.opset_import.append(onnx.helper.make_opsetid(quantiser.domain, 1))
    return model


def without_a_kernel() -> onnx.ModelProto:
    """A valid model: onnxruntime shifts bits of 8, 32 and 64 bits alone."""
    body = 'h = Cast <to: int = 4> (x)\nk = BitShift <direction: string = "LEFT"> (h, h)\n'
    return build.model(f"{body}f = Cast <to: int = 1> (k)\ny = Flatten (f)")


@pytest.mark.parametrize("make", [build.low_bit_ann, with_qonnx, without_a_kernel])
def test_defects_of_our_own_are_not_the_models_fault(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "m.onnx"
    path.write_bytes(make().SerializeToString())
    with pytest.raises(RuntimeError, match="ours"), runtime.or_its_refusal(path):
        raise RuntimeError("ours")


def test_a_defect_inside_the_pipeline_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(model: onnx.ModelProto) -> None:
        raise RuntimeError("ours")

    path = tmp_path / "m.onnx"
    path.write_bytes(with_qonnx().SerializeToString())
    monkeypatch.setattr(pipeline, "import_graph", defect)
    with pytest.raises(RuntimeError, match="ours"):
        na_convert.inspect(path)


def test_a_model_that_onnxruntime_does_not_take_is_at_fault(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = build.model("c = Conv (x, w1)\ny = Flatten (c)", {"w1": np.zeros((4, 3, 3, 3))})
    path.write_bytes(model.SerializeToString())  # weights in float64 for samples in float32
    with (
        pytest.raises(ModelError, match=r"m\.onnx: not a valid model, says onnxruntime \(.*Type"),
        runtime.or_its_refusal(path),
    ):
        raise RuntimeError("whose?")


@pytest.mark.parametrize("check", [True, False])
def test_types_that_do_not_fit_are_the_models_fault(tmp_path: Path, check: bool) -> None:
    body = (
        f"z1 = Conv (x, w1)\n{build.quantised('z1', 'a1')}"
        f"z2 = Conv (a1, w2)\n{build.quantised('z2', 'a2')}y = Flatten (a2)"
    )
    weights = {"w1": (6, 3, 3, 3), "w2": np.ones((6, 6, 3, 3), np.float16), **build.PLAIN}
    onnx.save(build.model(body, weights), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"m\.onnx: not a valid model, says onnxruntime \(.*Type"):
        na_convert.convert(tmp_path / "m.onnx", check=check)


def test_a_graph_made_of_a_valid_model_that_does_not_run_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(build.low_bit_ann(), path)
    broken = build.model("c = Conv (x, w1)\ny = Flatten (c)", {"w1": np.zeros((4, 3, 3, 3))})
    with (
        pytest.raises(ModelError, match=r"m\.onnx: onnxruntime does not run this graph \(.*Type"),
        runtime.or_its_refusal(path),
    ):
        runtime.session(broken)


def test_a_refusal_without_a_message_names_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(runtime.onnxruntime, "InferenceSession", refused)
    with pytest.raises(ModelError, match=r"does not run this graph \(MemoryError\)"):
        runtime.session(build.low_bit_ann())


def test_weights_that_no_protobuf_holds_go_beside_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = "z = Conv <pads = [1,1,1,1]> (x, w)\nf = Flatten (z)\ng = Gemm (f, v)\ny = Add (g, b)"
    model = build.model(body, {"w": (64, 3, 3, 3), "v": (4096, 20), "b": (20,)})
    feeds = {"x": build.images(2)}
    expected = runtime.run(model, feeds)["y"]
    monkeypatch.setattr(runtime, "PROTOBUF_LIMIT", 300_000)
    given = []
    made = onnxruntime.InferenceSession

    def session(source: bytes, *rest: object, **options: object) -> object:
        given.append(source)
        return made(source, *rest, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    runner = runtime.session(model)
    del model
    gc.collect()
    others = [np.full((4096, 20), 7, np.float32).tobytes() for _ in range(20)]  # in their place
    np.testing.assert_array_equal(runner.run(["y"], feeds)[0], expected)
    assert len(given[0]) < 20_000
    assert len(others) == 20
