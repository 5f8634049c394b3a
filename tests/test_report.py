import json
import math
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console

from na_convert import cells, equivalence_tables, html_layers, report, result_json
from na_convert.errors import SEE_TABLE, CheckFailed, NaConvertError, NotConvertible
from na_convert.results import (
    BiasCalibration,
    BiasTrial,
    ClassResult,
    Diagnosis,
    Energy,
    Equivalence,
    ErrorPart,
    ErrorSplit,
    Figure,
    LayerShift,
    Result,
    TimestepResult,
)

SCHEMA = json.loads((Path(__file__).parent.parent / "docs/result.schema.json").read_text())


def validate(entries: dict[str, object], kind: str) -> None:
    """Against the whole schema, and against the definition that is meant."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(entries, SCHEMA)
    jsonschema.validate(entries, {**SCHEMA, "oneOf": [{"$ref": f"#/$defs/{kind}"}]})
    json.dumps(entries, allow_nan=False)


def printed(result: Result, width: int = 100, *, verbose: bool = False) -> str:
    console = Console(width=width, highlight=False, color_system=None, record=True, quiet=False)
    with console.capture() as captured:
        report.summary(result, console, verbose=verbose)
    return captured.get()


def test_json_of_each_command_fits_the_schema(result: Result) -> None:
    validate(result_json.to_json(result), "convert")
    validate(result_json.to_json(replace(result, equivalence=None)), "convert")
    validate(result_json.to_json(result, "check"), "check")
    inspected = result_json.to_json(result, "inspect")
    validate(inspected, "inspect")
    assert "equivalence" not in inspected
    assert "output" not in inspected


def test_json_holds_thresholds_per_channel_as_lists(result: Result) -> None:
    neurons = result_json.to_json(result)["neurons"]
    assert neurons[0]["threshold"] == 1.5
    assert neurons[-1]["threshold"] == [0.75, 1.5, 3.0]


def test_json_has_no_nan(result: Result) -> None:
    assert result.equivalence is not None
    equivalence = replace(result.equivalence, fold_error=math.nan)
    entries = result_json.to_json(replace(result, equivalence=equivalence))
    validate(entries, "convert")
    assert entries["equivalence"]["fold_error"] is None


def test_json_of_failures_fits_the_schema(failed: Result, refused: Result) -> None:
    plain = result_json.failure_json(NaConvertError("no", node="act1", remedy="do"))
    assert plain["error"] == {"message": "no", "node": "act1", "remedy": "do"}
    validate(plain, "failure")
    check = result_json.failure_json(CheckFailed("no", result=failed), "check", failed)
    assert set(check) == {"tool", "equivalence", "passed", "error", "refused"}
    validate(check, "failure")
    whole = result_json.failure_json(CheckFailed("no", result=failed), "convert", failed)
    validate(whole, "failure")
    nodes = result_json.failure_json(NotConvertible("no", refused=refused.refused))["refused"]
    assert [node["op"] for node in nodes] == ["Softmax", "MatMul"]


def test_shortfall_names_the_broken_figures(
    result: Result, failed: Result, refused: Result
) -> None:
    assert report.shortfall(result) is None
    error = report.shortfall(failed)
    assert isinstance(error, CheckFailed)
    assert error.node == "act3"
    assert "agreement at T=3 0.884 (limit 0.9)" in error.message
    error = report.shortfall(refused)
    assert isinstance(error, NotConvertible)
    assert error.refused == refused.refused
    assert error.remedy == SEE_TABLE
    assert NotConvertible("no", refused=refused.refused, remedy="do").remedy == "do"
    assert NotConvertible("no").remedy is None


@pytest.mark.parametrize("width", [100, 80])
def test_summary_fits_its_width(
    result: Result, failed: Result, refused: Result, width: int
) -> None:
    for case in (result, failed, refused):
        lines = printed(case, width, verbose=True).splitlines()
        assert max(len(line) for line in lines[:-2]) <= width


def test_summary_shows_what_matters(result: Result) -> None:
    text = printed(result)
    for shown in (
        "9 BatchNormalization", "8 IF", "131,072 neurons in 8 layers", "p = 3", "0.75 .. 3",
        "345.7 kB", "4.2 s", "16x32x32", "act7", "replay mismatches", "600 samples of images.npz",
        "76.8 %", "88.4 %", "all checks passed", "uint8 pixels",
    ):  # fmt: skip
        assert shown in text, shown
    assert "reorder_maxpool" not in text
    assert "pool: already in front" in printed(result, verbose=True)


def test_summary_shows_the_limit_that_would_have_passed(failed: Result) -> None:
    text = printed(failed)
    assert "FAIL" in text
    assert "would pass at" in text
    assert "0.884" in text


def test_summary_shows_each_check_once_and_every_failure() -> None:
    def figure(value: float, node: str | None, name: str = "current") -> Figure:
        return Figure(name, value, 1.0, value <= 1, node=node)

    layers = [figure(0.1, "act0"), figure(0.5, "act1"), figure(0.2, "act2")]
    (nearest,) = report._condensed(layers)
    assert (nearest.value, nearest.detail) == (0.5, "3 layers, nearest its limit: act1")
    total = figure(0, None, "replay")
    assert report._condensed([figure(0, "act0", "replay"), total, *layers]) == [total, nearest]
    broken = [figure(2, "act3"), figure(3, "act4")]
    assert report._condensed([*layers, *broken]) == broken


@pytest.mark.parametrize(
    ("value", "limit", "shown"),
    [(0.88412, 0.9, "0.884"), (1.2341e-4, 1e-4, "0.000124"), (17, 0, "17"), (math.inf, 1, "inf")],
)
def test_the_passing_limit_is_rounded_to_the_safe_side(
    value: float, limit: float, shown: str
) -> None:
    assert report._passing_limit(Figure("figure", value, limit, passed=False)) == shown


def test_summary_marks_layers_that_were_not_exercised(result: Result) -> None:
    assert result.equivalence is not None
    first, *others = result.equivalence.layers
    layers = (replace(first, exercised=False), *others)
    text = printed(replace(result, equivalence=replace(result.equivalence, layers=layers)))
    assert "0.200 *" in text
    assert "not exercised" in text


def test_summary_without_labels_has_no_accuracy(result: Result) -> None:
    assert result.equivalence is not None
    rows = tuple(
        replace(row, ann_accuracy=None, snn_accuracy=None) for row in result.equivalence.by_timestep
    )
    text = printed(replace(result, equivalence=replace(result.equivalence, by_timestep=rows)))
    assert "accuracy" not in text
    assert "agreement" in text


def measured(result: Result) -> Equivalence:
    """The result's equivalence with all that may be measured."""
    assert result.equivalence is not None
    first, second, *others = result.equivalence.layers
    part = ErrorPart(-0.0004, 0.021)
    error = ErrorSplit(part, ErrorPart(0.031, 0.06), part, part, ErrorPart(-0.12, 0.25))
    rows = tuple(
        TimestepResult(t, 0.9, 0.8, 0.7 if t != 3 else None, 1.5, ann_interval=(0.75, 0.83))
        for t in range(1, 11)
    )
    return replace(
        result.equivalence, timesteps=10, by_timestep=rows,
        layers=(replace(first, error=error, relative_error=0.625), replace(second, error=error),
                *others),
        by_class=(ClassResult(0, 40, 0.9, 0.85, 0.925), ClassResult(7, 3, 1.0, 0.0, 0.0)),
        energy=Energy(
            4.6, 0.9, "Horowitz 2014", 2_500_000, 1000, 1.25e9, 2500.0, 1250.0, 40.0, 10, 17, ()
        ),
    )  # fmt: skip


def test_what_was_measured_is_shown_where_it_is_asked_for(result: Result) -> None:
    full = replace(result, equivalence=measured(result))
    text, brief = printed(full, verbose=True), printed(full)
    assert "SNN minus ANN at T = 10, in % of an amplitude: mean (mean size)" in text
    row = r"act0 +0.0 \(2.1\) +3.1 \(6.0\) +0.0 \(2.1\) +0.0 \(2.1\) +-12.0 \(25.0\) +0.62 *\n"
    assert re.search(row, text)
    assert re.search(r"act1 .*-12.0 \(25.0\) +- *\n", text)
    assert "act2  " not in text[text.index("SNN minus ANN") : text.index("Classes at T = 10")]
    assert re.search(r"\n *0 +40 +90.0 % +85.0 % +92.5 %", text)
    assert re.search(r"\n *7 +3 +100.0 % +0.0 % +0.0 %", text)
    for shown in ("SNN minus ANN", "Classes at"):
        assert shown not in brief
    assert "4.6 pJ a MAC, 0.9 pJ an accumulate (Horowitz 2014)" in brief
    assert re.search(r"ANN, float +2.5 M +- +2.5 µJ +100.0 % +1 *\n", brief)
    assert re.search(r"ANN, at its own bits +2.5 M +- +1.25 µJ +50.0 % +1 *\n", brief)
    assert re.search(r"SNN +1 k +1.25 G +40 nJ +1.6 % +10 \(pipelined 17\)", brief)


def test_of_many_time_steps_powers_of_two_and_the_last_are_shown(result: Result) -> None:
    text = printed(replace(result, equivalence=measured(result)))
    rows = re.findall(r"^ *(\d+) +80.0 ± 4.0 % +(\S+ %|-) +(\S+ %|-) +90.0 %", text, re.M)
    assert [(int(t), snn, drop) for t, snn, drop in rows] == [
        (t, "70.0 %", "10.0 %") for t in (1, 2, 4, 8, 10)
    ]
    few = measured(result)
    few = replace(few, by_timestep=few.by_timestep[:8])
    text = printed(replace(result, equivalence=few))
    assert re.search(r"\n *3 +80.0 ± 4.0 % +- +- +90.0 %", text)


@pytest.mark.parametrize(
    ("error", "cause", "said"),
    [
        (0.625, "clipping", "act0 (error 62.5 % of what it says, at T = 10), by clipping"),
        (math.inf, "unevenness", "act0 (error not finite, at T = 10), by unevenness"),
        (0.7, None, "act0 (error 70.0 % of what it says, at T = 10)"),
    ],
)
def test_the_diagnosis_is_a_line_each(
    result: Result, error: float, cause: str | None, said: str
) -> None:
    found = measured(result)
    layers = (replace(found.layers[0], name="act0", relative_error=error), *found.layers[1:])
    advice = "more steps" if cause else ""
    diagnosis = Diagnosis("act0", 0.5, cause, advice, ("accuracy: no labels",))
    found = replace(found, layers=layers, diagnosis=diagnosis)
    lines = [f"first bad layer: {said}"] + ["advice: more steps"] * bool(cause)
    assert equivalence_tables.diagnosis_lines(found) == lines
    verbose = equivalence_tables.diagnosis_lines(found, verbose=True)
    assert verbose == [*lines, "not known: accuracy: no labels"]
    page = html_layers.why(found)
    assert f"<code>act0</code>, by {cause or 'nothing measured'}" in page
    assert ("More steps." in page) == bool(cause)
    validate(result_json.to_json(replace(result, equivalence=found)), "convert")


def test_nothing_measured_is_no_diagnosis(result: Result) -> None:
    assert equivalence_tables.diagnosis_lines(None) == []
    assert equivalence_tables.diagnosis_lines(result.equivalence) == []


def test_refusals_are_one_table_with_names_as_they_are(refused: Result) -> None:
    text = printed(refused)
    assert "[softm" in text  # not taken for markup
    assert "multiplies two spike trains" in text
    assert "remove it" in text


def test_long_names_keep_their_end() -> None:
    assert cells.shorten("a" * 50 + "end", 10) == "…aaaaaaend"
    assert cells.shorten("short", 10) == "short"


def test_a_calibration_is_shown_and_fits_the_schema(result: Result) -> None:
    assert result.equivalence is not None
    row = result.equivalence.by_timestep[-1]
    trials = tuple(
        BiasTrial(match, row, (LayerShift("act1", 0.0, 0.0), LayerShift("act2", size, 2 * size)))
        for match, size in (("current", 0.125), ("output", 0.25))
    )
    found = BiasCalibration(3, 30, 10, row, trials, "output")
    calibrated = replace(result, bias_calibration=found)
    text = printed(calibrated)
    assert "Bias calibration at T = 3: 30 samples, 10 others decide" in text
    assert re.search(r"mean current +88.4 % +\S+ +0.125 +0.25 *\n", text)
    assert re.search(r"mean output +88.4 % +\S+ +0.25 +0.5 +kept", text)
    entries = result_json.to_json(calibrated)
    validate(entries, "convert")
    assert entries["bias_calibration"]["kept"] == "output"
    assert "bias_calibration" not in result_json.to_json(calibrated, "inspect")
    dropped = printed(replace(result, bias_calibration=replace(found, kept=None)))
    assert re.search(r"none +88.4 % +\S+ +kept", dropped)
