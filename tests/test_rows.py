"""Networks that make rows of a sample's parts: Keras's TimeDistributed, frames of a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import na_convert
from na_convert.errors import NotConvertible
from na_convert.runtime import run

from .build import PLAIN, images, model, quantised

PARTS, SAMPLES = 4, 6


def network(*, rows: bool) -> onnx.ModelProto:
    """Four parts of six numbers each, every one through the same two layers, then all into one.

    With ``rows`` the parts lie in the batch between two Reshapes, as Keras has it; else on an axis
    of their own.
    """
    weights = {**PLAIN, "w": (6, 7), "v": (7, 5), "u": (20, 6), "t": (6, 3)}
    body = (
        "apart = Constant <value_ints = [-1, 6]> ()\nback = Constant <value_ints = [-1, 4, 5]> ()\n"
        f"r = {'Reshape (x, apart)' if rows else 'Identity (x)'}\n"
        "z = MatMul (r, w)\n" + quantised("z", "a") + "c = MatMul (a, v)\n" + quantised("c", "l")
        + f"b = {'Reshape (l, back)' if rows else 'Identity (l)'}\n"
        "f = Flatten (b)\nh = MatMul (f, u)\n" + quantised("h", "k") + "y = MatMul (k, t)"
    )  # fmt: skip
    return model(body, weights, inputs="float[N,4,6] x")


@pytest.fixture
def given() -> dict[str, np.ndarray]:
    return {"x": images(SAMPLES, (PARTS, 6))}


def converted(folder: Path, given: dict[str, np.ndarray], *, rows: bool, **options: object):
    onnx.save(network(rows=rows), folder / "m.onnx")
    return na_convert.convert(
        folder / "m.onnx", output=folder / f"{rows}.snn.onnx", data=given, **options
    )


@pytest.mark.parametrize("options", [{}, {"unit_spikes": True}, {"form": "step"}])
def test_figures_are_those_of_parts_on_an_axis(
    tmp_path: Path, given: dict[str, np.ndarray], options: dict[str, object]
) -> None:
    found, expected = (
        converted(tmp_path, given, rows=rows, **options).equivalence for rows in (True, False)
    )
    assert all(figure.passed for figure in found.figures)
    assert found.layer_samples == expected.layer_samples == SAMPLES
    for one, other in zip(found.energy.operators, expected.energy.operators, strict=True):
        assert (one.ann_macs, one.snn_macs) == (other.ann_macs, other.snn_macs)
        assert one.synaptic_operations == pytest.approx(other.synaptic_operations, rel=0.05)
    for a, b in zip(found.layers, expected.layers, strict=True):
        assert a.spike_rate == pytest.approx(b.spike_rate, rel=0.05)


def test_recorded_rows(tmp_path: Path, given: dict[str, np.ndarray]) -> None:
    converted(tmp_path, given, rows=True)
    last = na_convert.inspect(tmp_path / "m.onnx").neurons[1].name
    result = na_convert.record(
        tmp_path / "True.snn.onnx", data=given, output=tmp_path / "r.npz", layers=[last], batch=4
    )
    with np.load(tmp_path / "r.npz") as arrays:
        spikes, counts = arrays[f"spikes/{last}"], arrays[f"counts/{last}"]
        assert arrays["outputs/y"].shape == (3, SAMPLES, 3)
    assert spikes.shape == (3, SAMPLES * PARTS, 5)
    np.testing.assert_array_equal(spikes.sum(axis=0), counts)
    assert result.recorded[0].spike_rate == pytest.approx(spikes.mean())


def test_samples_that_are_decided_take_their_rows_with_them(
    tmp_path: Path, given: dict[str, np.ndarray]
) -> None:
    outcomes = []
    for rows in (True, False):
        converted(tmp_path, given, rows=rows, form="step")
        found = na_convert.record(tmp_path / f"{rows}.snn.onnx", data=given, early_exit=0.2)
        assert found.early_exit is not None
        outcomes.append(found.early_exit.stopped)
    assert outcomes[0] == outcomes[1]
    assert sum(outcomes[0][:-1]) > 0


def test_int8_has_one_row_for_each_sample(tmp_path: Path, given: dict[str, np.ndarray]) -> None:
    with pytest.raises(NotConvertible, match="has 4 rows for each sample") as caught:
        converted(tmp_path, given, rows=True, weights="int8")
    assert "axis of their own" in str(caught.value.remedy)


@pytest.mark.parametrize("form", ["folded", "unrolled", "step"])
def test_files_run_in_a_session_of_ones_own(
    tmp_path: Path, given: dict[str, np.ndarray], form: str
) -> None:
    """onnxruntime takes sizes of one name for equal, and lets tensors share memory by them."""
    converted(tmp_path, given, rows=True, form=form)
    proto = onnx.load(tmp_path / "True.snn.onnx")
    named: dict[str, set[int]] = {}
    values = [*proto.graph.value_info, *proto.graph.output]
    proto.graph.output.extend(onnx.ValueInfoProto(name=v.name) for v in proto.graph.value_info)
    seen = run(proto, given, [v.name for v in values])
    for value in values:
        sizes = zip(value.type.tensor_type.shape.dim, seen[value.name].shape, strict=False)
        for dim, size in sizes:
            if dim.dim_param:
                named.setdefault(dim.dim_param, set()).add(size)
    assert named
    assert all(len(sizes) == 1 for sizes in named.values())
