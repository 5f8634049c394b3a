"""What continuous integration reads: JUnit's XML, annotations, and comparison with a stored run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from na_convert import api, ci, cli, result_json
from na_convert.errors import CheckFailed, DataError, UsageError
from na_convert.limits import Limits, baseline_figures, limit_figures
from na_convert.results import Diagnosis, Energy, Equivalence, Figure, Result
from na_convert.testing import assert_equivalent

CHECK = "check model.onnx model.snn.onnx --data data.npz"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("model.onnx", "model.snn.onnx", "data.npz"):
        (tmp_path / name).write_bytes(b"content")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def returning(monkeypatch: pytest.MonkeyPatch, found: Result | Exception) -> list[dict[str, Any]]:
    calls = []

    def check(*args: object, **options: object) -> Result:
        calls.append(options)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(api, "check", check)
    return calls


def run(line: str) -> int:
    return cli._run(line.split())


# --- JUnit ----------------------------------------------------------------------------------------


def suite(data: bytes) -> ElementTree.Element:
    (found,) = ElementTree.fromstring(data)
    return found


def test_junit_has_a_case_per_figure(result: Result, failed: Result) -> None:
    passed = suite(ci.junit(result, None))
    assert (passed.get("tests"), passed.get("failures"), passed.get("errors")) == ("2", "0", "0")
    assert [case.get("name") for case in passed] == ["BatchNorm folded", "replay mismatches"]
    broken = suite(ci.junit(failed, CheckFailed("no", result=failed)))
    assert (broken.get("tests"), broken.get("failures"), broken.get("errors")) == ("3", "1", "0")
    failure = broken[2].find("failure")
    assert failure is not None
    assert "a limit of 0.884 would have passed" in (failure.get("message") or "")


def test_junit_of_a_run_that_could_not_start() -> None:
    broken = suite(ci.junit(None, DataError("data.npz: holds \x00 <nothing>", remedy="fill it")))
    assert (broken.get("tests"), broken.get("failures"), broken.get("errors")) == ("1", "0", "1")
    error = broken[0].find("error")
    assert error is not None
    assert error.get("message") == "data.npz: holds ? <nothing>: fill it"
    assert error.get("type") == "DataError"


# --- GitHub ---------------------------------------------------------------------------------------


def test_annotations_name_what_failed(failed: Result) -> None:
    (line,) = ci.github(failed, CheckFailed("no", result=failed), Path("a,b:c.onnx"))
    start = "::error file=a%2Cb%3Ac.onnx,title=agreement at T=3::asked for at least 0.9 (figure"
    assert line.startswith(start)


def test_annotations_escape_and_fall_back(result: Result) -> None:
    (line,) = ci.github(None, DataError("50 %\nof it"), Path("snn.onnx"))
    assert line == "::error file=snn.onnx,title=na-convert::50 %25%0Aof it"
    assert ci.github(result, None, Path("snn.onnx"))[-1].startswith("::notice file=snn.onnx")


# --- test suites ----------------------------------------------------------------------------------


def test_a_failed_assertion_lists_figures_and_advice(
    failed: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Diagnosis("act0", 0.5, "clipping", "calibrate anew")
    advised = replace(failed, equivalence=replace(equivalence(failed), diagnosis=said))
    returning(monkeypatch, CheckFailed("agreement is low", result=advised))
    (warning,) = [x for x in ci.github(advised, None, Path("a.onnx")) if x.startswith("::warning")]
    assert warning.endswith("::first bad layer 'act0': calibrate anew")
    with pytest.raises(AssertionError) as caught:
        assert_equivalent("model.onnx", "model.snn.onnx", "data.npz")
    assert str(caught.value).splitlines() == [
        "agreement is low",
        "  agreement at T=3: 0.8841, limit 0.9: asked for at least 0.9",
        "  advice: calibrate anew",
    ]
    returning(monkeypatch, CheckFailed("nothing was measured"))
    with pytest.raises(AssertionError, match=r"^nothing was measured$"):
        assert_equivalent("model.onnx", "model.snn.onnx", "data.npz")


# --- the command ----------------------------------------------------------------------------------


def test_outputs_of_a_failed_check(
    files: Path, failed: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    returning(monkeypatch, CheckFailed("agreement is low", result=failed))
    assert run(f"{CHECK} --junit junit.xml --github --json") == 1
    printed = capsys.readouterr()
    assert not json.loads(printed.out)["passed"]  # stdout is the JSON object alone
    assert printed.err.splitlines()[0].startswith("::error file=model.snn.onnx")
    assert suite((files / "junit.xml").read_bytes()).get("failures") == "1"
    assert run(f"{CHECK} --github -q") == 1
    assert capsys.readouterr().out.startswith("::error ")


def test_options_reach_the_check(
    files: Path, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = returning(monkeypatch, result)
    (files / "old.json").write_text("{}")
    line = "--checks replay,engines --baseline old.json --margin 1/50 --bisect around"
    assert run(f"{CHECK} {line} --energy-mac 3 --energy-ac 1 -q") == 0
    call = calls[0]
    assert call["checks"] == ("replay", "engines")
    assert (call["baseline"], call["margin"]) == (Path("old.json"), 0.02)
    assert (call["energy"].mac_pj, call["energy"].ac_pj) == (3, 1)
    assert call["bisect"] == Path("around")
    assert run(f"{CHECK} -q") == 0
    assert (calls[1]["checks"], calls[1]["baseline"], calls[1]["margin"]) == ((), None, 0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--margin 0.1", "--margin needs --baseline"),
        ("--baseline none.json", "none.json: no such file"),
        ("--junit none/junit.xml", "no such folder none"),
        ("--junit model.onnx", "would overwrite the input"),
        ("--energy-mac -1", "--energy-mac -1: an energy"),
    ],
)
def test_options_that_cannot_be(
    files: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    assert run(f"{CHECK} {options}") == 2
    assert message in capsys.readouterr().err


# --- a stored run ---------------------------------------------------------------------------------


@pytest.fixture
def stored(result: Result, tmp_path: Path) -> Path:
    path = tmp_path / "stored.json"
    path.write_text(json.dumps(result_json.to_json(with_errors(result, 0.2), "check")))
    return path


def with_errors(result: Result, size: float) -> Result:
    found = equivalence(result)
    layers = tuple(replace(layer, relative_error=size) for layer in found.layers)
    return replace(result, equivalence=replace(found, layers=layers))


def equivalence(result: Result) -> Equivalence:
    assert result.equivalence is not None
    return result.equivalence


def compared(result: Result, stored: Path, margin: float = 0.01) -> dict[str, Figure]:
    figures = baseline_figures(equivalence(result), Limits(baseline=stored, margin=margin))
    assert {f.check for f in figures} == {"baseline"}
    return {f.name: f for f in figures}


def test_the_same_run_is_not_worse(result: Result, stored: Path) -> None:
    figures = compared(with_errors(result, 0.2), stored, margin=0)
    assert all(figure.passed and figure.value == 0 for figure in figures.values())


def test_worse_than_the_margin(result: Result, stored: Path) -> None:
    found = equivalence(with_errors(result, 0.25))
    rows = (replace(found.by_timestep[0], agreement=0.69), *found.by_timestep[1:])
    worse = replace(result, equivalence=replace(found, by_timestep=rows))
    figures = compared(worse, stored)
    agreement, layers = figures["baseline agreement"], figures["baseline layers"]
    assert (agreement.passed, round(agreement.value, 6)) == (False, 0.02)
    assert "T=1: 0.7100 before, 0.6900 now" in agreement.detail
    assert (layers.passed, layers.node) == (False, found.layers[0].name)
    assert figures["baseline accuracy"].passed
    assert all(figure.passed for figure in compared(worse, stored, margin=0.06).values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: "no json", "not a readable JSON file"),
        (lambda e: json.dumps([e]), "holds no equivalence"),
        (lambda e: json.dumps({"passed": False}), "holds no equivalence"),
        (lambda e: json.dumps({"equivalence": {**e, "samples": 5}}), "measured on 5 samples"),
        (lambda e: json.dumps({"equivalence": {**e, "by_timestep": []}}), "no T in common"),
    ],
)
def test_stored_runs_that_cannot_be_compared(
    result: Result, stored: Path, change: Callable[[Any], str], message: str
) -> None:
    stored.write_text(change(json.loads(stored.read_text())["equivalence"]))
    with pytest.raises(UsageError, match=message):
        compared(result, stored)


def test_what_only_one_run_has_is_left_out(result: Result, stored: Path) -> None:
    """Another T has other layers and costs; without labels, or at other prices, nothing is
    comparable."""
    energy = Energy(4.6, 0.9, "us", 1, 1, 1.0, 1.0, 1.0, 40.0, 3, 8, ())
    found = replace(equivalence(with_errors(result, 0.9)), energy=energy)
    rows = tuple(replace(row, snn_accuracy=None) for row in found.by_timestep)

    def left(**changes: Any) -> set[str]:
        now = replace(result, equivalence=replace(found, **changes))
        figures = compared(now, stored)
        return {name for name, figure in figures.items() if not figure.passed}

    def store(**changes: Any) -> None:
        written = {"timesteps": 0, "energy": {"mac_pj": 4.6, "ac_pj": 0.9, "snn_nj": 20.0}}
        entries = json.loads(stored.read_text())
        entries["equivalence"].update(written | changes)
        stored.write_text(json.dumps(entries))

    store()
    assert left() == {"baseline layers", "baseline energy"}
    assert left(timesteps=9) == set()
    assert left(by_timestep=rows) == {"baseline layers", "baseline energy"}
    store(energy={"mac_pj": 4.6, "ac_pj": 0.1, "snn_nj": 20.0})
    assert left() == {"baseline layers"}
    store(energy={"mac_pj": 4.6, "ac_pj": 0.9, "snn_nj": 0.0}, layers=[])
    assert left() == set()


def test_limits_of_what_the_data_can_say(result: Result) -> None:
    found = equivalence(result)
    row = replace(found.by_timestep[-1], agreement_interval=(0.8567, 0.9064))
    found = replace(found, by_timestep=(*found.by_timestep[:-1], row))
    first, figure = limit_figures(found, [1, 3], Limits(min_agreement=0.9))
    assert first.detail == "agreement at T=1 is 0.7100, asked for at least 0.9"
    assert figure.detail == (
        "agreement at T=3 is 0.8840 (95 %: 0.8567 to 0.9064), asked for at least 0.9"
    )
    assert not figure.passed
    (drop,) = limit_figures(found, [3], Limits(max_drop=0.02))
    assert (drop.passed, drop.detail) == (True, "accuracy drops by 0.0170 at T=3, allowed is 0.02")
    with pytest.raises(UsageError, match="--max-drop needs labels: add `labels` to the data"):
        limit_figures(
            replace(found, by_timestep=(replace(row, ann_accuracy=None),)),
            [3],
            Limits(max_drop=0.02),
        )
