"""Weights on the analog input, in three parts: each exact, together the layer as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from na_convert.passes import snap
from na_convert.passes.rescale import Weights
from na_convert.passes.stem_parts import MANTISSA, divided, nearest

import na_convert
from na_convert.evaluate import evaluate
from na_convert.exactness import grids_of
from na_convert.runtime import session
from na_convert.unit_scale import NotExact

from . import build, spiking

GEMM = gs.Node("Gemm", "layer", {"transB": 1}, [gs.Variable("x"), gs.Constant("w", np.ones(1))])


def units(values: np.ndarray, exponent: int) -> np.ndarray:
    found = values * 2.0**-exponent
    assert np.array_equal(found, np.round(found)), "not on its grid"
    return np.abs(found)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    fan_in=st.integers(1, 400),
    size=st.floats(1e-4, 1e3),
    bound=st.floats(1e-3, 1e4),
)
def test_both_brackets_stay_below_2_to_the_24(
    seed: int, fan_in: int, size: float, bound: float
) -> None:
    """All partial sums, for the worst input within the bound; and what the parts leave out."""
    rng = np.random.default_rng(seed)
    weight, bias = size * rng.standard_normal((3, fan_in)), size * rng.standard_normal(3)
    stem = divided(GEMM, Weights(weight, bias), (-bound, bound))
    x = rng.uniform(-bound, bound, fan_in).astype(np.float32).astype(np.float64)
    x[0] = np.float32(bound) if np.float32(bound) <= bound else 0
    high = nearest(x, stem.input_high)
    low = nearest(x - high, stem.input_low)
    first = stem.high.weight * high
    second = np.concatenate([stem.low * high, stem.high.weight * low], axis=1)
    assert stem.high.bias is not None
    sums = [
        (np.concatenate([first, stem.high.bias[:, None]], axis=1), stem.bias_grid),
        (second, stem.input_high + stem.low_grid),
    ]
    for terms, exponent in sums:
        assert np.all(units(terms, exponent).sum(axis=1) <= 2.0**MANTISSA)
    total = sum(terms.sum(axis=1) for terms, _ in sums)
    left_out = (
        np.abs(weight - stem.high.weight) @ np.abs(x - high)  # w_low x_low, before they are rounded
        + 2.0 ** (stem.low_grid - 1) * np.abs(high).sum()
        + 2.0 ** (stem.input_low - 1) * np.abs(stem.high.weight).sum(axis=1)
        + 2.0 ** (stem.bias_grid - 1)
    )
    assert np.all(np.abs(total - (weight @ x + bias)) <= left_out * (1 + 1e-9))
    assert stem.error * np.sqrt(np.mean(weight**2)) <= 2.0 ** (stem.low_grid - 1) * (1 + 1e-9)


@pytest.mark.parametrize("fan_in", [27, 147, 384])
def test_what_the_parts_leave_out_is_small(fan_in: int) -> None:
    """Nearly always: roundings cancel, as a bound of the worst case does not know."""
    shares = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        weight, x = rng.standard_normal((3, fan_in)), rng.uniform(-1, 1, fan_in)
        stem = divided(GEMM, Weights(weight, None), (-1.0, 1.0))
        high = nearest(x, stem.input_high)
        low = nearest(x - high, stem.input_low)
        total = (stem.high.weight + stem.low) @ high + stem.high.weight @ low
        assert stem.error < 1e-3
        shares.append(np.max(np.abs(total - weight @ x)) / np.abs(weight).sum(axis=1).max())
    assert np.quantile(shares, 0.95) < 2.0**-15


@pytest.mark.parametrize("given", [(-1.0, 1.0), (-1.0, 0.0), (0.0, 1.0)])
def test_equal_weights_on_many_inputs_are_refused(given: tuple[float, float]) -> None:
    """Each is two thirds of a unit of the grid, rounded to one: the sums grow by half."""
    weight = np.full((1, 12000), 1.35)
    with pytest.raises(NotExact, match="its sums leave 2\\^24 units, in two parts as well"):
        divided(GEMM, Weights(weight, None), given)


BODIES = {
    "conv": spiking.FIRST,
    "grouped": "c1 = Conv <pads: ints = [1,1,1,1], group: int = 3> (x, w1, b1)\n"
    + build.stair("c1", "a1"),
    "normalised": "n1 = Sub (x, mean)\nn2 = Div (n1, std)\n"
    + spiking.FIRST.replace("(x, w1", "(n2, w1"),
}


def network(name: str):
    weights = {
        **spiking.SHAPES,
        "w1": (6, 1, 3, 3) if name == "grouped" else (4, 3, 3, 3),
        "b1": (6,) if name == "grouped" else (4,),
        "w2": (4, 6, 3, 3) if name == "grouped" else (4, 4, 3, 3),
        "mean": np.float32([0.49, 0.48, 0.45]).reshape(3, 1, 1),
        "std": np.float32([0.25, 0.24, 0.26]).reshape(3, 1, 1),
    }
    body = BODIES[name] + f"c2 = Conv {spiking.CONV} (a1, w2)\n" + build.stair("c2", "last")
    before = spiking.network(body + spiking.HEAD, weights)
    after, found = snap.run(before, {"x": 4.0}, 8)
    assert found.exact, found.reason
    return before, after, found


@pytest.mark.parametrize("name", BODIES)
def test_the_layer_is_the_same_and_every_engine_finds_the_same_current(
    name: str, tmp_path: Path
) -> None:
    before, after, found = network(name)
    assert len(grids_of(after).fine) == 2
    assert found.layers[0].weight_error < 1e-5
    x = spiking.samples(before, 8)
    current = "c1"
    was = evaluate(before.graph, x, [current])[current]
    now = evaluate(after.graph, x, [current], dtype=np.float32)[current]
    scale = after.neurons[0].current_scale
    relative = np.max(np.abs(now / np.reshape(scale, (-1, 1, 1)) - was)) / np.max(np.abs(was))
    assert relative < 1e-5
    model = tmp_path / "stem.onnx"
    part = after.graph.copy()
    part.outputs = [t for t in part.tensors().values() if t.name == current]
    part.outputs[0].dtype = np.float32
    onnx.save(gs.export_onnx(part.cleanup()), model)
    for optimise in (True, False):
        for threads in (1, 2):
            run = session(onnx.load(model), optimise=optimise, threads=threads)
            np.testing.assert_array_equal(run.run([current], x)[0], now)


def test_energy_counts_the_parts_once(tmp_path: Path) -> None:
    from .test_forms import BODY, WEIGHTS

    ann = tmp_path / "net.onnx"
    onnx.save(build.model(BODY, WEIGHTS), ann)
    figures = []
    for exact in (True, False):
        made = na_convert.convert(ann, exact=exact, data={"x": build.images(4)})
        assert made.equivalence is not None
        assert made.equivalence.energy is not None
        figures.append(made.equivalence.energy.snn_macs)
    assert figures[0] == figures[1]
