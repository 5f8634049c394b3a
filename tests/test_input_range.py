"""Data beyond what a network on grids is proven for: said, counted, and not refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import na_convert
from na_convert import ci, cli
from na_convert.input_range import merged, ranges_of
from na_convert.results import InputRange

from . import build
from .test_forms import BODY, WEIGHTS
from .test_report import validate

COUNT = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exact network, the data it was made with, and data of which two samples go beyond."""
    folder = tmp_path_factory.mktemp("range")
    onnx.save(build.model(BODY, WEIGHTS), folder / "net.onnx")
    x = build.images(COUNT)
    np.savez(folder / "within.npz", x=x)
    beyond = x.copy()
    beyond[1, 0, 0, 0] = 1.5 * np.abs(x).max()
    beyond[4, 0, 0, 0] = -2 * np.abs(x).max()
    np.savez(folder / "beyond.npz", x=beyond)
    na_convert.convert(
        folder / "net.onnx", output=folder / "snn.onnx", data=folder / "within.npz", exact=True,
        timesteps=3,
    )  # fmt: skip
    na_convert.convert(folder / "net.onnx", output=folder / "plain.onnx", timesteps=3, exact=False)
    return folder


def test_values_are_counted_by_sample_and_nan_is_beyond() -> None:
    x = np.array([[0.5, -1.0], [2.0, 0.0], [-3.0, 3.0], [np.nan, 0.0]])
    (found,) = ranges_of({"x": 2.0}, {"x": x})
    assert (found.beyond, found.samples) == (2, 4)
    assert np.isnan(found.largest)
    parts = [ranges_of({"x": 2.0}, {"x": x[:1]}), ranges_of({"x": 2.0}, {"x": x[1:3]})]
    assert merged(*parts) == (InputRange("x", 2.0, 3.0, 1, 3),)
    assert merged(parts[0], ()) == merged((), parts[0]) == parts[0]


def test_within_the_range_nothing_is_said(folder: Path) -> None:
    checked = na_convert.check(folder / "net.onnx", folder / "snn.onnx", data=folder / "within.npz")
    assert checked.equivalence is not None
    (found,) = checked.equivalence.input_ranges
    assert (found.beyond, found.samples) == (0, COUNT)
    assert found.largest == found.bound
    assert not any("warning" in note for note in checked.notes)


@pytest.mark.parametrize("checks", [(), ("replay",)])
def test_check_warns_and_does_not_fail(folder: Path, checks: tuple[str, ...]) -> None:
    checked = na_convert.check(
        folder / "net.onnx", folder / "snn.onnx", data=folder / "beyond.npz", checks=checks
    )
    assert checked.passed
    assert checked.equivalence is not None
    (found,) = checked.equivalence.input_ranges
    assert (found.name, found.beyond, found.samples) == ("x", 2, COUNT)
    assert found.largest == pytest.approx(2 * found.bound)
    (warning,) = (note for note in checked.notes if note.startswith("warning: "))
    assert "2 of 6 samples are beyond the input range" in warning
    assert any(line.startswith("::warning") for line in ci.github(checked, None, folder))


def test_more_steps_than_proven(folder: Path) -> None:
    checked = na_convert.check(
        folder / "net.onnx", folder / "snn.onnx", data=folder / "within.npz", timesteps=[40],
        checks=["end-to-end"],
    )  # fmt: skip
    (warning,) = (note for note in checked.notes if note.startswith("warning: "))
    assert "T = 40 is beyond the 32 time steps" in warning


@pytest.mark.parametrize("options", [[], ["--early-exit", "0.1"]])
def test_simulate_warns(
    folder: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["simulate", str(folder / "snn.onnx"), "--data", str(folder / "beyond.npz"), *options]
    assert cli._run([*line, "--batch", "4"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "warning: 2 of 6 samples are beyond the input range" in shown
    assert cli._run([*line, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    validate(found, "simulate")
    assert [entry["beyond"] for entry in found["input_ranges"]] == [2]


def test_a_network_on_no_grids_promises_nothing(folder: Path) -> None:
    found = na_convert.record(folder / "plain.onnx", data=folder / "beyond.npz")
    assert found.input_ranges == ()
    assert not any("warning" in note for note in found.notes)
