from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest

import na_convert
from na_convert import model_io, model_writing, whole_files
from na_convert.errors import ModelError, NotConvertible, UsageError
from na_convert.graph import export_parts
from na_convert.runtime import run
from tests.build import PLAIN, graph, images, model

BODY = "z = Conv <pads = [1,1,1,1]> (x, w)\nf = Flatten (z)\ny = Gemm (f, v)"
WEIGHTS = {"w": (4, 3, 3, 3), "v": (256, 500)}


def test_streamed_file_equals_the_model(tmp_path: Path) -> None:
    g, carried = graph(BODY, WEIGHTS)
    parts = export_parts(g, carried.with_metadata({"k": "v"}))
    assert "v" in parts.weights
    path = tmp_path / "m.onnx"
    size, digest = model_writing.save(parts, path)
    assert (size, digest) == (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    assert onnx.load(path) == parts.whole()
    expected = run(model(BODY, WEIGHTS), {"x": images()})["y"]
    np.testing.assert_array_equal(run(onnx.load(path), {"x": images()})["y"], expected)


def test_same_input_same_bytes(tmp_path: Path) -> None:
    digests = {
        model_writing.save(export_parts(*graph(BODY, WEIGHTS)), tmp_path / f"{i}.onnx")[1]
        for i in range(2)
    }
    assert len(digests) == 1


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\x07" * 50])
def test_unreadable_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        model_io.load(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        model_io.load(tmp_path / "none.onnx")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(b"old")

    def write_half() -> None:
        with whole_files.atomic_file(path) as part:
            part.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        whole_files.write_atomically(tmp_path / "none" / "out.onnx", b"")


def test_foreign_functions_are_inlined_and_external_data_read(tmp_path: Path) -> None:
    proto = model("y = Relu (x)", outputs="float[N,3,8,8] y")
    proto.functions.append(
        onnx.parser.parse_function(
            '<domain: "other", opset_import: ["" : 17]> Twice (a) => (b) { b = Add (a, a) }'
        )
    )
    proto.opset_import.append(onnx.helper.make_opsetid("other", 1))
    proto.graph.node[0].op_type, proto.graph.node[0].domain = "Twice", "other"
    path = tmp_path / "f.onnx"
    onnx.save(proto, path)
    assert [n.op_type for n in model_io.load(path).model.graph.node] == ["Add"]
    external = model(BODY, WEIGHTS)
    onnx.save(external, tmp_path / "e.onnx", save_as_external_data=True, location="e.data")
    whole = model_io.load(tmp_path / "e.onnx")
    loaded = whole.model
    assert whole.bytes == sum((tmp_path / name).stat().st_size for name in ("e.onnx", "e.data"))
    np.testing.assert_array_equal(
        run(loaded, {"x": images()})["y"], run(model(BODY, WEIGHTS), {"x": images()})["y"]
    )


def test_nodes_in_an_order_that_cannot_run_are_sorted(tmp_path: Path) -> None:
    """onnxruntime's converter to half precision writes Casts at the end; onnxruntime takes it."""
    proto = model(BODY, WEIGHTS)
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes[::-1])
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    loaded = model_io.load(tmp_path / "m.onnx")
    assert [n.op_type for n in loaded.model.graph.node] == ["Conv", "Flatten", "Gemm"]


def test_no_nodes_are_no_network(tmp_path: Path) -> None:
    proto = model("y = Identity (x)", outputs="float[N,3,8,8] y")
    del proto.graph.node[:]
    proto.graph.output[0].name = "x"
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=r"m\.onnx: the model has no nodes"):
        model_io.load(tmp_path / "m.onnx")


def test_a_cycle_is_no_model(tmp_path: Path) -> None:
    proto = model("a = Add (x, b)\nb = Neg (a)\nf = Flatten (b)\ny = Gemm (f, v)", {"v": (192, 5)})
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="sorted"):
        model_io.load(tmp_path / "m.onnx")


@pytest.mark.parametrize("body", ["h = Cast <to = 16> (x)\ny = Cast <to = 1> (h)", "y = Neg (x)"])
def test_bfloat16_is_refused_with_a_way_out(tmp_path: Path, body: str) -> None:
    kind = "float" if "Cast" in body else "bfloat16"
    proto = model(body, inputs=f"{kind}[N,3,8,8] x", outputs=f"{kind}[N,3,8,8] y")
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(NotConvertible, match="bfloat16") as caught:
        model_io.load(tmp_path / "m.onnx")
    assert "float32" in (caught.value.remedy or "")


def test_what_onnx_serialises_holds_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Functions are inlined, and a sorted model is checked, however large the weights are."""
    sizes, inline, check = [], onnx.inliner.inline_selected_functions, onnx.checker.check_model

    def inlined(proto: onnx.ModelProto, *rest: object) -> onnx.ModelProto:
        sizes.append(proto.ByteSize())
        return inline(proto, *rest)

    def checked(proto: onnx.ModelProto | Path, **options: bool) -> None:
        sizes.append(0 if isinstance(proto, Path) else proto.ByteSize())
        check(proto, **options)

    monkeypatch.setattr(onnx.inliner, "inline_selected_functions", inlined)
    monkeypatch.setattr(onnx.checker, "check_model", checked)
    proto = model(f"{BODY.replace('Flatten (z)', 'other.Flat (z)')}", WEIGHTS)
    proto.functions.append(
        onnx.parser.parse_function(
            '<domain: "other", opset_import: ["" : 17]> Flat (a) => (b) { b = Flatten (a) }'
        )
    )
    proto.opset_import.append(onnx.helper.make_opsetid("other", 1))
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes[::-1])
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    loaded = model_io.load(tmp_path / "m.onnx").model
    assert len(sizes) == 3
    assert max(sizes) < 2000
    assert [n.op_type for n in loaded.graph.node] == ["Conv", "Flatten", "Gemm"]
    expected = run(model(BODY, WEIGHTS), {"x": images()})["y"]
    np.testing.assert_array_equal(run(loaded, {"x": images()})["y"], expected)


def test_sizes_of_minus_one_are_free(tmp_path: Path) -> None:
    """paddle2onnx writes them for sizes that are open; onnxruntime takes them so."""
    body = (
        "z = Conv <pads = [1,1,1,1]> (x, w)\nk = Clip (z, zero, half)\n"
        "c = Conv (k, u)\ny = GlobalAveragePool (c)"
    )
    weights = {**PLAIN, "w": (4, 3, 3, 3), "u": (5, 4, 1, 1)}
    proto = model(body, weights, outputs="float[N,5,1,1] y")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    for axis in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = -1
    onnx.save(proto, tmp_path / "m.onnx")
    given = {"x": images(shape=(3, 6, 9))}
    result = na_convert.convert(tmp_path / "m.onnx", output=tmp_path / "s.onnx", data=given)
    assert result.passed
    shape = onnx.load(tmp_path / "s.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in shape] == [0, 3, 0, 0]
