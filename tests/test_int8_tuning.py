"""--calibrate-bias and --target-agreement with --weights int8: integers decide, and pass."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import na_convert
from na_convert.errors import CheckFailed, UsageError
from na_convert.forms import INT8_FORMS

from . import build
from .test_calibrate_bias import NETWORKS, images


@pytest.fixture
def model(tmp_path: Path) -> Path:
    body, weights, _ = NETWORKS["chain"]
    onnx.save(build.model(body, weights), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


DATA = {"x": images(40, (3, 8, 8))}


def agreement(model: Path, timesteps: int, **options: object) -> float:
    """Of the int8 network made for ``timesteps``."""
    found = na_convert.convert(model, data=DATA, timesteps=timesteps, weights="int8", **options)
    assert found.equivalence is not None
    return found.equivalence.by_timestep[-1].agreement


@pytest.mark.parametrize("form", INT8_FORMS)
def test_calibrated_biases_pass_the_checks(model: Path, form: str) -> None:
    made = na_convert.convert(
        model, data=DATA, timesteps=3, weights="int8", form=form, calibrate_bias=DATA
    )
    assert made.bias_calibration is not None
    assert made.bias_calibration.kept is not None
    shifts = [n.bias_shift for n in made.neurons if n.bias_shift is not None]
    assert any(np.any(shift) for shift in shifts)
    assert made.output is not None
    checked = na_convert.check(model, made.output.path, data=DATA)
    assert checked.passed
    assert any("biases were calibrated at T = 3" in note for note in checked.notes)


def test_a_shift_that_is_recorded_and_not_there_is_noticed(model: Path) -> None:
    """What the checks take back is what the metadata record, whatever the weights say."""
    made = na_convert.convert(model, data=DATA, timesteps=3, weights="int8")
    assert made.output is not None
    file = onnx.load(made.output.path)
    props = {p.key: p.value for p in file.metadata_props}
    neurons = json.loads(props["na_convert.neurons"])
    neurons[-1]["bias_shift"] = [1.0] * neurons[-1]["shape"][0]
    props["na_convert.neurons"] = json.dumps(neurons)
    onnx.helper.set_model_props(file, props)
    onnx.save(file, made.output.path)
    with pytest.raises(CheckFailed, match="int8 currents"):
        na_convert.check(model, made.output.path, data=DATA)


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_smallest_t_at_which_the_integers_reach_the_target(
    model: Path, calibrated: bool
) -> None:
    options = {"calibrate_bias": DATA} if calibrated else {}
    known = {t: agreement(model, t, **options) for t in range(1, 7)}
    target = sorted(set(known.values()))[-1]
    wanted = min(t for t, found in known.items() if found >= target)
    made = na_convert.convert(
        model, data=DATA, timesteps=6, weights="int8", target_agreement=target, **options
    )  # type: ignore[arg-type]
    assert made.timesteps == wanted
    assert made.equivalence is not None
    assert made.equivalence.by_timestep[-1].agreement == known[wanted]
    (note,) = (note for note in made.notes if "is the smallest" in note)
    assert f"T = {wanted}" in note
    assert f"agreement {100 * known[wanted]:.1f} %" in note


def test_a_target_that_integers_do_not_reach(model: Path) -> None:
    with pytest.raises(CheckFailed, match="no T up to 2 reaches agreement of at least 1"):
        na_convert.convert(
            model, data=DATA, timesteps=2, weights="int8", target_agreement=1.0, check=False
        )
    assert not (model.parent / "model.snn.onnx").exists()


def test_more_steps_than_counts_hold(model: Path) -> None:
    with pytest.raises(UsageError, match="from 1 to 255"):
        na_convert.convert(model, data=DATA, timesteps=256, weights="int8", calibrate_bias=DATA)
