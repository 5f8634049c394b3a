"""Models too large for one file: weights beside it, whole pairs or none, nothing overwritten."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import na_convert
from na_convert import conversion, model_io, model_writing
from na_convert.errors import UsageError
from na_convert.graph import Parts, export_parts

from . import build

BODY = "z = Conv <pads = [1,1,1,1]> (x, w)\nf = Flatten (z)\ny = Gemm (f, v)"
WEIGHTS: dict[str, tuple[int, ...] | float | np.ndarray] = {"w": (16, 3, 3, 3), "v": (1024, 20)}


def parts(seed: int = 0) -> Parts:
    return export_parts(*build.graph(BODY, WEIGHTS, seed=seed))


def outputs(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path))
    (found,) = session.run(None, {"x": build.images(2)})
    return np.asarray(found)


def expected(seed: int) -> np.ndarray:
    session = onnxruntime.InferenceSession(parts(seed).whole().SerializeToString())
    return np.asarray(session.run(None, {"x": build.images(2)})[0])


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("name", ["data", "data.data", "m"])
def test_any_name_of_the_model(tmp_path: Path, name: str) -> None:
    model_writing.save(parts(), tmp_path / name, most_inside=0)
    np.testing.assert_array_equal(outputs(tmp_path / name), expected(0))


def test_weights_lie_beside_the_model_and_move_with_it(tmp_path: Path) -> None:
    path = tmp_path / "here" / "m.onnx"
    path.parent.mkdir()
    size, digest = model_writing.save(parts(), path, most_inside=50_000)
    model, data = sorted(path.parent.iterdir())
    assert data.name.startswith("m.onnx.")
    assert data.suffix == ".data"
    assert size == model.stat().st_size + data.stat().st_size
    assert model.stat().st_size < 5000
    assert digest == model_io.load(path).sha256
    onnx.checker.check_model(path, full_check=True)
    stored = onnx.load(path, load_external_data=False).graph.initializer
    places = [{e.key: e.value for e in tensor.external_data} for tensor in stored]
    assert {place["location"] for place in places} == {data.name}
    assert all(int(place["offset"]) % 4096 == 0 for place in places)
    assert onnx.load(path).graph.node == parts().whole().graph.node
    shutil.move(path.parent, tmp_path / "there")
    np.testing.assert_array_equal(outputs(tmp_path / "there" / "m.onnx"), expected(0))


def test_the_limit_decides(tmp_path: Path) -> None:
    inside = len(parts().whole().graph.SerializeToString())
    model_writing.save(parts(), tmp_path / "a.onnx", most_inside=inside)
    assert names(tmp_path) == ["a.onnx"]
    model_writing.save(parts(), tmp_path / "b.onnx", most_inside=inside - 1)
    assert len(names(tmp_path)) == 3


def test_the_same_model_twice_is_the_same_pair(tmp_path: Path) -> None:
    first = model_writing.save(parts(), tmp_path / "m.onnx", most_inside=0)
    before = names(tmp_path)
    assert model_writing.save(parts(), tmp_path / "m.onnx", most_inside=0) == first
    assert names(tmp_path) == before


def test_files_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    """Data of another model, of any name, and those of the model that was there before."""
    foreign = [tmp_path / name for name in ("m.onnx.data", "m.data", "other.data")]
    for path in foreign:
        path.write_bytes(b"somebody's")
    model_writing.save(parts(1), tmp_path / "m.onnx", most_inside=0)
    shutil.copy(tmp_path / "m.onnx", tmp_path / "kept.onnx")
    model_writing.save(parts(2), tmp_path / "m.onnx", most_inside=0)
    assert [path.read_bytes() for path in foreign] == [b"somebody's"] * 3
    np.testing.assert_array_equal(outputs(tmp_path / "kept.onnx"), expected(1))
    np.testing.assert_array_equal(outputs(tmp_path / "m.onnx"), expected(2))


@pytest.mark.parametrize("length", [0, 1])
def test_a_name_that_is_taken_is_refused(tmp_path: Path, length: int) -> None:
    model_writing.save(parts(), tmp_path / "m.onnx", most_inside=0)
    (data,) = tmp_path.glob("*.data")
    changed = bytes(data.stat().st_size - length)
    data.write_bytes(changed)
    (tmp_path / "m.onnx").unlink()
    with pytest.raises(UsageError, match=r"\.data: there is another file"):
        model_writing.save(parts(), tmp_path / "m.onnx", most_inside=0)
    assert names(tmp_path) == [data.name]
    assert data.read_bytes() == changed


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_stopped_anywhere_the_old_pair_is_there_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Each sync and move in turn is the one that fails."""
    path = tmp_path / "m.onnx"
    model_writing.save(parts(1), path, most_inside=0)
    before, left = names(tmp_path), [call]

    def failing(real):  # type: ignore[no-untyped-def]
        def made(*arguments, **options):  # type: ignore[no-untyped-def]
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        return made

    for name in ("fsync", "link", "replace"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    with pytest.raises(KeyboardInterrupt):
        model_writing.save(parts(2), path, most_inside=0)
    monkeypatch.undo()
    assert names(tmp_path) == before
    np.testing.assert_array_equal(outputs(path), expected(1))


def test_stopped_once_the_model_is_in_place_the_new_pair_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace = tmp_path / "m.onnx", os.replace

    def replaced(source: Path, target: Path) -> None:
        replace(source, target)
        raise KeyboardInterrupt

    model_writing.save(parts(1), path, most_inside=0)
    monkeypatch.setattr(os, "replace", replaced)
    with pytest.raises(KeyboardInterrupt):
        model_writing.save(parts(2), path, most_inside=0)
    np.testing.assert_array_equal(outputs(path), expected(2))


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    for _ in range(2):
        model_writing.save(parts(), tmp_path / "m.onnx", most_inside=0)
    assert len(names(tmp_path)) == 2
    np.testing.assert_array_equal(outputs(tmp_path / "m.onnx"), expected(0))


def test_stopped_on_a_file_system_without_links_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    def stopped(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", refused)
    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        model_writing.save(parts(), tmp_path / "m.onnx", most_inside=0)
    assert names(tmp_path) == []


@pytest.mark.parametrize("options", [{}, {"form": "unrolled"}, {"weights": "int8"}])
def test_an_snn_with_external_data_is_converted_checked_and_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    ann, snn, data = tmp_path / "ann.onnx", tmp_path / "snn.onnx", {"x": build.images(4)}
    onnx.save(wide_ann(), ann, save_as_external_data=True, location="ann.data")
    before = (tmp_path / "ann.data").read_bytes()
    made = na_convert.convert(ann, output=tmp_path / "inside.onnx", data=data, **options)  # type: ignore[arg-type]
    monkeypatch.setattr(conversion.model_writing, "PROTOBUF_LIMIT", 1000)
    result = na_convert.convert(ann, output=snn, data=data, **options)  # type: ignore[arg-type]
    assert result.output is not None
    (beside,) = tmp_path.glob("snn.onnx.*.data")
    assert result.output.bytes == snn.stat().st_size + beside.stat().st_size
    assert na_convert.check(ann, snn, data=data).passed
    found = [
        na_convert.simulate(file, data=data).outputs for file in (snn, tmp_path / "inside.onnx")
    ]
    for t in range(1, made.timesteps + 1):
        np.testing.assert_array_equal(found[0][t]["y"], found[1][t]["y"])
    assert (tmp_path / "ann.data").read_bytes() == before


def wide_ann() -> onnx.ModelProto:
    """Of weights large enough to lie beside a model."""
    body = (
        f"c = Conv <pads: ints = [1,1,1,1]> (x, w1)\n{build.quantised('c', 'a')}"
        f"d = Conv <pads: ints = [1,1,1,1]> (a, w2)\n{build.quantised('d', 'b')}"
        "m = GlobalAveragePool (b)\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, w3)"
    )
    return build.model(
        body, {"w1": (16, 3, 3, 3), "w2": (16, 16, 3, 3), "w3": (30, 16), **build.PLAIN}
    )
