"""Every figure of the report on the shipped example, against a script that shares no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import na_convert
from na_convert.result_json import to_json

from .independent_figures import figures

EXAMPLES = Path(__file__).parents[1] / "examples"
ANN, DATA = EXAMPLES / "resnet8-cifar10.onnx", EXAMPLES / "resnet8-cifar10.npz"
T = 3
NOISE = ("fold_error", "figures")  # how far floats were rounded: no two programs agree on that


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    snn = str(tmp_path_factory.mktemp("example") / "snn.onnx")
    return to_json(na_convert.convert(ANN, output=snn, data=DATA, exact=False))["equivalence"], snn


@pytest.fixture(scope="module")
def computed(reported: tuple[dict[str, Any], str]) -> dict[str, Any]:
    with np.load(DATA) as stored:
        pixels, labels = stored["x"], stored["labels"]
    x = pixels.astype(np.float32)  # each step rounded to float32, as the documentation's rule is
    x *= 1 / 255
    x -= np.array([0.4914, 0.4822, 0.4465]).reshape(3, 1, 1)
    x /= np.array([0.247, 0.2435, 0.2616]).reshape(3, 1, 1)
    return figures(str(ANN), reported[1], x, labels, T)


def same(ours: Any, theirs: Any, where: str = "") -> int:
    """How many numbers were compared; the structure has to be equal too."""
    if isinstance(ours, dict):
        assert set(ours) == set(theirs), where
        return sum(same(ours[key], theirs[key], f"{where}/{key}") for key in ours)
    if isinstance(ours, list):
        assert len(ours) == len(theirs), where
        pairs = enumerate(zip(ours, theirs, strict=True))
        return sum(same(a, b, f"{where}/{i}") for i, (a, b) in pairs)
    if isinstance(ours, float):
        # Sums in another order decide one neuron in 10 million otherwise, and some 60 behind it.
        root = where.endswith(("relative_error", "logit_rmse"))
        assert ours == pytest.approx(theirs, rel=1e-4, abs=5e-4 if root else 2e-5), where
    else:
        assert ours == theirs, where
    return 1


NUMBERS = {"by_timestep": 36, "by_class": 50, "layers": 147, "replay_mismatches": 1}


@pytest.mark.parametrize("part", NUMBERS)
def test_figures(reported: tuple[dict[str, Any], str], computed: dict[str, Any], part: str) -> None:
    assert same(reported[0][part], computed[part], part) == NUMBERS[part]


def test_energy(reported: tuple[dict[str, Any], str], computed: dict[str, Any]) -> None:
    energy, operators = reported[0]["energy"], computed["operators"]
    assert {o["name"] for o in energy["operators"]} == set(operators)
    analog = matched = 0.0
    for o in energy["operators"]:
        macs, synaptic = operators[o["name"]]
        assert o["ann_macs"] == macs
        assert o["synaptic_operations"] == pytest.approx(synaptic, rel=1e-6)
        assert o["snn_macs"] == (0 if synaptic else macs)
        first = o["region"] == "constant"
        assert o["bits"] == (None if first else 2)
        analog += o["snn_macs"]
        matched += macs * (4.6 if first else 2 * 0.9)
    macs, synaptic = (sum(values) for values in zip(*operators.values(), strict=True))
    assert (energy["ann_macs"], energy["snn_macs"]) == (macs, analog)
    assert energy["synaptic_operations"] == pytest.approx(synaptic, rel=1e-6)
    assert energy["ann_nj"] == pytest.approx(macs * 4.6e-3)
    assert energy["bit_matched_nj"] == pytest.approx(matched / 1000)
    assert energy["snn_nj"] == pytest.approx((analog * 4.6 + synaptic * 0.9) / 1000, rel=1e-6)
    assert (energy["latency_steps"], energy["pipelined_steps"]) == (3, 9)
    assert (energy["mac_pj"], energy["ac_pj"], energy["not_counted"]) == (4.6, 0.9, [])


def test_what_is_left(reported: tuple[dict[str, Any], str], computed: dict[str, Any]) -> None:
    """Every entry of the report is compared above or here, apart from sizes of rounding."""
    found = reported[0]
    above = {"by_timestep", "by_class", "layers", "replay_mismatches", "energy"}
    assert (found["data"], found["samples"], found["layer_samples"]) == (str(DATA), 600, 600)
    assert (found["timesteps"], found["replay_ties"], found["engine_differences"]) == (T, 0, 0)
    first_bad = next(x["name"] for x in computed["layers"] if x["relative_error"] > 0.5)
    assert found["diagnosis"]["first_bad"] == first_bad
    assert found["diagnosis"]["limit"] == 0.5
    made = {
        cause: sum(x["error"][cause]["mean_abs"] for x in computed["layers"][:6])
        for cause in ("clipping", "quantisation", "unevenness")
    }
    assert computed["layers"][5]["name"] == first_bad
    assert found["diagnosis"]["cause"] == max(made, key=lambda cause: made[cause])
    here = {"data", "samples", "layer_samples", "timesteps", "replay_ties", "engine_differences"}
    exact = {"rounding": None, "input_ranges": []}  # of networks on grids alone
    assert {name: found[name] for name in exact} == exact
    assert set(found) == above | here | {"diagnosis", *exact, *NOISE}
    assert all(f["passed"] and f["value"] <= f["limit"] for f in found["figures"])
    assert json.dumps(found)
