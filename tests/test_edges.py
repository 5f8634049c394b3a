"""Values exactly on an edge between two levels fall to the side that the ANN takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import na_convert
from na_convert.results import Result

from . import build

ABOVE_ZERO = "b{n} = Greater (z{n}, zero)\na{n} = Cast <to: int = 1> (b{n})\n"
CEIL = "r{n} = Div (z{n}, step)\nk{n} = Ceil (r{n})\na{n} = Clip (k{n}, zero, top)\n"
FLOOR = (
    "r{n} = Div (z{n}, step)\nk{n} = Floor (r{n})\nu{n} = Add (k{n}, one)\n"
    "a{n} = Clip (u{n}, zero, top)\n"
)
HALF_DOWN = (
    "r{n} = Div (z{n}, step)\nm{n} = Sub (r{n}, half)\nk{n} = Ceil (m{n})\n"
    "a{n} = Clip (k{n}, zero, top)\n"
)
FIRST = "z0 = Conv <pads: ints = [1,1,1,1]> (x, w)\n"
SECOND = "z1 = Conv <pads: ints = [1,1,1,1]> (a0, w1)\n"


def converted(
    tmp_path: Path, body: str, step: float, levels: int, weights_as: str = "float"
) -> Result:
    """On images of which a half is 0, weights of -1, 0 and 1, pixels that are multiples of 1/4."""
    generator = np.random.default_rng(3)
    weights: dict[str, tuple[int, ...] | float | np.ndarray] = {
        "w": generator.integers(-1, 2, (4, 3, 3, 3)).astype(np.float32),
        "w1": generator.integers(-1, 2, (4, 4, 3, 3)).astype(np.float32),
        "v": (256, 5), "u": (144, 5), "zero": 0.0, "one": 1.0, "half": 0.5,
        "top": float(levels), "step": step,
    }  # fmt: skip
    images = generator.integers(-4, 5, (16, 3, 8, 8)).astype(np.float32) / 4
    images[:, :, :, 4:] = 0
    path = tmp_path / "model.onnx"
    onnx.save(build.model(body, weights), path)
    return na_convert.convert(path, data={"x": images}, weights=weights_as)


def node_names(result: Result) -> set[str]:
    assert result.output is not None
    return {node.name for node in onnx.load(result.output.path).graph.node}


@pytest.mark.parametrize(
    ("quantiser", "step", "rule"),
    [(ABOVE_ZERO, 1.0, "ceil"), (CEIL, 0.5, "ceil"), (HALF_DOWN, 0.5, "half_down")],
)
def test_edges_below_of_binary_networks(
    tmp_path: Path, quantiser: str, step: float, rule: str
) -> None:
    """With one level and T = 1 nothing comes unevenly: an SNN says what its ANN says."""
    body = FIRST + quantiser.format(n=0) + SECOND + quantiser.format(n=1)
    result = converted(tmp_path, body + "f = Flatten (a1)\ny = MatMul (f, v)\n", step, 1)
    assert [n.tie_rule for n in result.neurons] == [rule, rule]
    assert result.exactness is not None
    assert result.exactness.exact
    assert result.equivalence is not None
    assert result.equivalence.replay_ties == 0
    (row,) = result.equivalence.by_timestep
    assert row.agreement == 1
    assert row.logit_rmse is not None
    assert row.logit_rmse < 1e-5


AT_LEAST_ZERO = "b{n} = GreaterOrEqual (z{n}, zero)\na{n} = Cast <to: int = 1> (b{n})\n"


@pytest.mark.parametrize("quantiser", [ABOVE_ZERO, AT_LEAST_ZERO, CEIL])
def test_edges_of_binary_networks_in_whole_numbers(tmp_path: Path, quantiser: str) -> None:
    body = FIRST + quantiser.format(n=0) + SECOND + quantiser.format(n=1)
    body += "z2 = Conv (a1, w1)\n" + quantiser.format(n=2) + "f = Flatten (a2)\n"
    result = converted(tmp_path, body + "y = MatMul (f, u)\n", 0.5, 1, "int8")
    assert result.equivalence is not None
    (row,) = result.equivalence.by_timestep
    assert row.agreement == 1


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize(("quantiser", "rule"), [(CEIL, "ceil"), (FLOOR, "floor")])
def test_edges_at_zero_of_several_levels(
    tmp_path: Path, quantiser: str, rule: str, levels: int
) -> None:
    """Their place is no multiple of a power of two, and was rounded to either side."""
    body = FIRST + quantiser.format(n=0) + "f = Flatten (a0)\ny = MatMul (f, v)\n"
    result = converted(tmp_path, body, 0.37, levels)
    assert [n.tie_rule for n in result.neurons] == [rule]
    assert result.equivalence is not None
    assert result.equivalence.replay_ties == 0
    last = result.equivalence.by_timestep[-1]
    assert last.logit_rmse is not None
    assert last.logit_rmse < 1e-5


def test_a_current_that_others_read(tmp_path: Path) -> None:
    """What they read stays."""
    body = (
        FIRST + HALF_DOWN.format(n=0) + SECOND + HALF_DOWN.format(n=1)
        + "z2 = Add (z1, a1)\n" + HALF_DOWN.format(n=2) + "f = Flatten (a2)\ny = MatMul (f, v)\n"
    )  # fmt: skip
    result = converted(tmp_path, body, 0.5, 1)
    assert result.equivalence is not None
    assert result.equivalence.replay_ties == 0
    assert result.equivalence.by_timestep[-1].agreement == 1


def test_rules_that_go_either_way_are_left(tmp_path: Path) -> None:
    body = FIRST + build.quantised("z0", "a0", levels=1) + "f = Flatten (a0)\ny = MatMul (f, v)\n"
    result = converted(tmp_path, body, 0.5, 1)
    assert [n.tie_rule for n in result.neurons] == ["half_even"]
    assert not any(name.endswith("_edge") for name in node_names(result))
