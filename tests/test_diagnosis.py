"""What is said about a network that is not its ANN: layer, cause, advice, and what is unknown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import na_convert
from na_convert.diagnosis import diagnose
from na_convert.results import Diagnosis, Equivalence, Neuron

from . import build

LAYERS = 4
GAIN = 1.4  # of the weights: layers go bad one after another


def model_file(folder: Path, activation: str) -> Path:
    """A chain of convolutions with an activation behind each, and a linear readout."""
    body, root = "", "x"
    weights: dict = {**build.PLAIN, "w9": (5, 6)}
    for i in range(LAYERS):
        inputs = 3 if i == 0 else 6
        drawn = np.random.default_rng(i).normal(size=(6, inputs, 3, 3)) / np.sqrt(9 * inputs)
        weights[f"w{i}"] = (GAIN * drawn).astype(np.float32)
        body += f"c{i} = Conv <pads: ints = [1,1,1,1]> ({root}, w{i})\n"
        if activation == "quantised":
            body += build.quantised(f"c{i}", f"a{i}")
        else:
            body += f"a{i} = Relu (c{i})\n"
        root = f"a{i}"
    body += f"m = GlobalAveragePool ({root})\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, w9)"
    path = folder / "ann.onnx"
    onnx.save(build.model(body, weights), path)
    return path


def checked(
    folder: Path, activation: str, **options: object
) -> tuple[Equivalence, tuple[Neuron, ...]]:
    ann, snn = model_file(folder, activation), folder / "snn.onnx"
    data = {"x": build.images(128, seed=3)}
    calibrate = data if activation == "relu" else None
    na_convert.convert(ann, output=snn, check=False, calibrate=calibrate, **options)  # type: ignore[arg-type]
    result = na_convert.check(ann, snn, data=data, timesteps=[64])
    assert result.equivalence is not None
    return result.equivalence, result.neurons


def found(equivalence: Equivalence) -> Diagnosis:
    assert equivalence.diagnosis is not None
    return equivalence.diagnosis


def test_values_on_an_edge(tmp_path: Path) -> None:
    """x > 0 of convolutions without a bias, on pictures that are half black."""
    body = "".join(
        f"c{i} = Conv ({root}, w{i})\ng{i} = Greater (c{i}, zero)\n"
        f"a{i} = Cast <to: int = 1> (g{i})\n"
        for i, root in enumerate(("x", "a0"))
    )
    weights = {"w0": (6, 3, 3, 3), "w1": (6, 6, 3, 3), "w9": (5, 6), "zero": 0.0}
    body += "m = GlobalAveragePool (a1)\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, w9)"
    onnx.save(build.model(body, weights), tmp_path / "ann.onnx")
    data = {"x": build.images(16, seed=3) * (np.arange(8) < 3)}
    images = {"x": data["x"].astype(np.float32)}
    result = na_convert.convert(tmp_path / "ann.onnx", data=images)
    assert result.equivalence is not None
    assert result.equivalence.by_timestep[-1].agreement == 1
    result = na_convert.convert(tmp_path / "ann.onnx", data=images, exact=False)
    assert result.equivalence is not None
    said = found(result.equivalence)
    assert said.cause == "quantisation"
    assert "values lie on an edge between two levels" in said.advice


def test_too_few_steps(tmp_path: Path) -> None:
    equivalence, _ = checked(tmp_path, "quantised", timesteps=1)
    said = found(equivalence)
    assert said.cause == "quantisation"
    assert said.first_bad == next(x.name for x in equivalence.layers if x.relative_error > 0.5)
    assert "more steps: 1 cannot say 4 levels; from T = 3 on" in said.advice
    assert "accuracy: the data has no labels that fit the output" in said.unknown


def test_unevenness(tmp_path: Path) -> None:
    """Random weights, three levels, deep enough: nothing but the arrival of spikes is wrong."""
    equivalence, neurons = checked(tmp_path, "quantised")
    said = found(equivalence)
    assert said.first_bad is not None
    assert said.cause == "unevenness"
    longer = [r for r in equivalence.by_timestep if equivalence.timesteps < r.T]
    now = next(r for r in equivalence.by_timestep if equivalence.timesteps == r.T)
    assert now.agreement_interval is not None
    if any(
        r.agreement_interval[0] > now.agreement_interval[1] for r in longer if r.agreement_interval
    ):
        assert said.advice.startswith("more steps: agreement is")
    alone = replace(equivalence, by_timestep=(now,))
    assert "train with noise" in diagnose(alone, neurons).advice
    assert "--calibrate-bias can take its mean back" in diagnose(alone, neurons).advice
    shifted = tuple(replace(n, bias_shift=[0.1]) for n in neurons)
    assert "--calibrate-bias" not in diagnose(alone, shifted).advice


def test_a_threshold_that_is_too_low(tmp_path: Path) -> None:
    """A calibrated SNN can be checked: its thresholds are taken as they are, and that is said."""
    equivalence, _ = checked(tmp_path, "relu", percentile=60.0)
    said = found(equivalence)
    assert said.cause == "clipping"
    assert said.advice.startswith("threshold too low")
    assert any("those that calibration chose" in entry for entry in said.unknown)
    layer = equivalence.layers[0]
    assert layer.error is not None
    assert layer.error.clipping.mean < 0
    assert layer.at_highest == pytest.approx(0.4, abs=0.02)


def test_nothing_is_said_about_a_network_that_works(tmp_path: Path) -> None:
    equivalence, neurons = checked(tmp_path, "quantised")
    fine = replace(equivalence, layers=equivalence.layers[:1])
    said = diagnose(fine, neurons)
    assert (said.first_bad, said.cause, said.advice) == (None, None, "")
    few = diagnose(replace(fine, samples=5), neurons)
    assert any("5 samples are few" in entry for entry in few.unknown)


def test_layers_that_were_not_exercised_are_unknown(tmp_path: Path) -> None:
    equivalence, neurons = checked(tmp_path, "quantised")
    idle = tuple(replace(layer, exercised=False) for layer in equivalence.layers)
    said = diagnose(replace(equivalence, layers=idle), neurons)
    assert any("and 3 more layers would agree on other data" in entry for entry in said.unknown)


def test_advice_for_a_threshold_without_levels_and_for_more_steps(tmp_path: Path) -> None:
    equivalence, neurons = checked(tmp_path, "quantised", timesteps=1)
    clips = tuple(replace(n, kind="relu", levels=None) for n in neurons)
    assert (
        "an activation without levels is off by up to 1/2 of its threshold at T = 1"
        in diagnose(equivalence, clips).advice
    )
    first = replace(equivalence.layers[0], error=None, relative_error=None)
    unmeasured = replace(equivalence, layers=(first, *equivalence.layers[1:]))
    assert diagnose(unmeasured, neurons).first_bad != first.name


def test_more_steps_are_advised_where_they_agree_beyond_chance(tmp_path: Path) -> None:
    equivalence, neurons = checked(tmp_path, "quantised")
    row = next(r for r in equivalence.by_timestep if equivalence.timesteps == r.T)
    now = replace(row, agreement=0.5, agreement_interval=(0.4, 0.6))
    later = [
        replace(row, T=64, agreement=0.9, agreement_interval=interval)
        for interval in (None, (0.55, 0.95), (0.65, 0.95))
    ]
    said = [diagnose(replace(equivalence, by_timestep=(now, r)), neurons).advice for r in later]
    assert all("spikes arrive unevenly" in advice for advice in said[:2])
    steps = equivalence.timesteps
    assert said[2] == f"more steps: agreement is 50.0 % at T = {steps} and 90.0 % at T = 64"
