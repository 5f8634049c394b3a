"""What the summary says of a network on integers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from na_convert import report
from na_convert.quantisation_table import decisions, quantisation_table
from na_convert.result_json import to_json
from na_convert.results import Exactness, Quantisation, QuantisedLayer, Result

from .test_report import validate

LAYERS = (
    QuantisedLayer("stem", 0, 0.0, 0.0, 0, 4, 1, 0.0, False, 8191, (8191, 8191)),
    QuantisedLayer("plain", 8, 0.0071, 0.0, 0, 4, 1, 0.0, False, 5000, (247, 595)),
    QuantisedLayer("added", 8, 0.0002, 0.0, 0, 4, 33, 0.0004, False, 5000, (11, 13)),
    QuantisedLayer("low_bit", 8, 0.0, 0.001, 4, 4, 1, 0.0, False, 5000, (3, 3)),
    QuantisedLayer("analog_skip", 7, 0.012, 0.0, 0, 4, 1, 0.0, True, 5000, (99, 101)),
)
FREE = Quantisation(
    LAYERS, False, "accuracy at T = 2: 67.8% as they are, 62.5% tied",
    corrected=True, measured="accuracy", score=0.678, tied_score=0.625,
)  # fmt: skip
TIED = Quantisation(LAYERS, True, "as asked", {"added": 1.3, "plain": 1.1})


def rows(found: Quantisation) -> dict[str, list[str]]:
    table = quantisation_table(found)
    columns = [list(column.cells) for column in table.columns]
    return {str(row[0]): [str(cell) for cell in row[1:]] for row in zip(*columns, strict=True)}


def test_a_row_per_layer() -> None:
    assert rows(FREE) == {
        "stem": ["constant", "8191", "", "", ""],
        "plain": ["int8", "247 .. 595", "8", "0.7 %", ""],
        "added": ["int8", "11 .. 13", "8", "0.02 %", "1/33 ± 0.0004"],
        "low_bit": ["int8", "3", "8", "own grid", ""],
        "analog_skip": ["float32", "99 .. 101", "7", "1.2 %", ""],
    }


def test_decisions_and_what_they_cost() -> None:
    assert decisions(FREE) == [
        "identity shortcuts: thresholds as they are (accuracy at T = 2: 67.8% as they are, 62.5% "
        "tied)",
        "biases make up for the mean error of rounding, on the data",
    ]
    assert decisions(TIED) == [
        "identity shortcuts: thresholds made equal along them (as asked)",
        "raised in 2 layers, at most 1.3 times (added)",
    ]


@pytest.mark.parametrize("found", [FREE, TIED])
def test_summary_and_json(result: Result, found: Quantisation) -> None:
    exactness = Exactness(True, 4, {"x": 2.5})
    shown = replace(result, quantisation=found, exactness=exactness)
    validate(to_json(shown), "convert")
    console = Console(width=report.WIDTH)
    with console.capture() as captured:
        report.summary(shown, console)
    text = captured.get()
    assert "Integers" in text
    assert "…" not in text[text.index("Integers") : text.index("identity shortcuts")]
    assert "same counts in every engine, proven for |x| up to 2.5" in " ".join(text.split())


def test_an_analog_part_without_a_grid_is_said(result: Result) -> None:
    exactness = Exactness(False, 4, reason="Exp keeps no grid")
    shown = replace(result, quantisation=FREE, exactness=exactness)
    console = Console(width=report.WIDTH)
    with console.capture() as captured:
        report.summary(shown, console)
    text = " ".join(captured.get().split())
    assert "which is a float sum (Exp" in text
