import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console

from na_convert import __version__, api, cli, outcome, plots
from na_convert.arguments import with_command
from na_convert.data import Preprocessing
from na_convert.errors import CheckFailed, DataError, NaConvertError, NotConvertible, UsageError
from na_convert.results import Result

from .build import images, low_bit_ann
from .test_report import validate

COMMANDS = ("convert", "inspect", "check")
VALUES = {"-o": True, "--output": True, "-T": True, "--data": True, "-q": False, "--json": False}

Calls = list[dict[str, Any]]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files to name on the command line; their content is never looked at."""
    for name in ("model.onnx", "model.snn.onnx", "data.npz"):
        (tmp_path / name).write_bytes(b"content")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def calls(files: Path, result: Result, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The API replaced by functions that note their arguments and return the example result."""
    found: Calls = []

    def record(name: str) -> Callable[..., Result]:
        def function(*args: object, **options: object) -> Result:
            found.append({"command": name, "args": args, **options})
            return result

        return function

    for name in COMMANDS:
        monkeypatch.setattr(api, name, record(name))
    return found


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*args: object, **options: object) -> Result:
        raise error

    for name in COMMANDS:
        monkeypatch.setattr(api, name, fail)


def run(line: str) -> int:
    return cli._run(line.split())


# --- which command is meant -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("a.onnx", "convert a.onnx"),
        ("a.onnx -T 4", "convert a.onnx -T 4"),
        ("-T 4 a.onnx", "convert -T 4 a.onnx"),
        ("-T4 -q a.onnx", "convert -T4 -q a.onnx"),
        ("-qT 4 a.onnx", "convert -qT 4 a.onnx"),
        ("--data=d.npz a.onnx", "convert --data=d.npz a.onnx"),
        ("--data check a.onnx", "convert --data check a.onnx"),
        ("sub/model", "convert sub/model"),
        ("convert a.onnx", "convert a.onnx"),
        ("inspect a.onnx", "inspect a.onnx"),
        ("--json -T 4 check a b", "check --json -T 4 a b"),
        ("-- check.onnx", "convert -- check.onnx"),
        ("--json", "convert --json"),
        ("", "convert"),
        ("--version", "--version"),
        ("--help", "--help"),
    ],
)
def test_command_is_found(line: str, meant: str) -> None:
    assert with_command(line.split(), COMMANDS, VALUES) == meant.split()


def test_mistyped_command_is_no_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("chek model.onnx model.snn.onnx") == 2
    assert capsys.readouterr().err == (
        "error: chek: no such command, and no such file: did you mean `na-convert check`?\n"
    )
    assert run("frobnicate") == 2
    assert "see na-convert --help" in capsys.readouterr().err


def test_file_without_suffix_is_a_model(calls: Calls, files: Path) -> None:
    (files / "network").write_bytes(b"content")
    assert run("network") == 0
    assert calls[0]["args"] == (Path("network"),)


# --- arguments ------------------------------------------------------------------------------------


def test_convert_passes_its_options_on(calls: Calls) -> None:
    assert run("-T 4 model.onnx -o out.onnx --data data.npz --scale 1/255 --mean 0,-1 -q") == 0
    call = calls[0]
    progress = call.pop("progress")
    progress("verifying", 0.5)
    assert call == {
        "command": "convert", "args": (Path("model.onnx"),), "output": Path("out.onnx"),
        "timesteps": 4, "data": Path("data.npz"), "labels": None, "check": True,
        "preprocessing": Preprocessing(scale=(1 / 255,), mean=(0.0, -1.0)),
        "calibrate": None, "percentile": 100.0, "per_channel": False, "readout_from": None,
        "form": None, "exact": True, "weights": "float", "tie_shortcuts": "auto",
        "unit_spikes": False, "nir_target": None, "initial_membrane": None,
        "calibrate_bias": None, "target_agreement": None, "target_drop": None,
        "excerpt": None,
    }  # fmt: skip


def test_defaults_of_convert(calls: Calls) -> None:
    assert run("model.onnx --no-check") == 0
    call = calls[0]
    assert (call["output"], call["timesteps"], call["data"]) == (None, None, None)
    assert (call["preprocessing"], call["check"]) == (None, False)


def test_the_form_of_the_file(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("model.onnx --form step") == 0
    assert calls[0]["form"] == "step"
    assert run("model.onnx --form steps") == 2
    assert "--form steps: no such choice: did you mean step?" in capsys.readouterr().err


def test_options_for_networks_that_were_not_trained_low_bit(calls: Calls) -> None:
    line = "model.onnx --calibrate data.npz --percentile 99.9 --per-channel --readout-from head"
    assert run(line) == 0
    call = calls[0]
    assert (call["calibrate"], call["percentile"]) == (Path("data.npz"), 99.9)
    assert (call["per_channel"], call["readout_from"]) == (True, "head")


def test_inspect_passes_its_options_on(calls: Calls) -> None:
    assert run("inspect model.onnx -T 2 --readout-from head") == 0
    assert calls[0]["args"] == (Path("model.onnx"),)
    assert (calls[0]["timesteps"], calls[0]["readout_from"]) == (2, "head")


def test_check_passes_its_options_on(calls: Calls) -> None:
    line = "check model.onnx model.snn.onnx --data data.npz -T 4,1,2 --min-agreement 0.9"
    assert run(f"{line} --max-drop 1/100") == 0
    call = calls[0]
    assert call["args"] == (Path("model.onnx"), Path("model.snn.onnx"))
    assert call["timesteps"] == (1, 2, 4)
    assert (call["min_agreement"], call["max_drop"]) == (0.9, 0.01)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("none.onnx", "none.onnx: no such file"),
        ("sub/", "sub: is a folder"),
        ("model.onnx -T 0", "-T 0: at least one time step is needed"),
        ("model.onnx -T -3", "-T -3: at least one time step is needed"),
        ("model.onnx -T four", "-T four: not a whole number of time steps"),
        ("model.onnx -T 1,2", "-T 1,2: one number is needed here"),
        ("model.onnx -o model.onnx", "-o model.onnx: would overwrite the input"),
        ("model.onnx -o ../{folder}/model.onnx", "would overwrite the input"),
        ("model.onnx -o link.onnx", "would overwrite the input"),
        ("model.onnx -o sub", "-o sub: is a folder"),
        ("model.onnx -o none/out.onnx", "no such folder none"),
        ("model.onnx --report model.onnx", "--report model.onnx: would overwrite the input"),
        ("model.onnx --data data.npz -o data.npz", "-o data.npz: would overwrite the input"),
        ("model.onnx --calibrate data.npz --report data.npz", "would overwrite the input"),
        ("model.onnx --data shards -o shards/a.npz", "would overwrite the input"),
        ("model.onnx -o a --report sub/../a", "--report sub/../a: is what -o names, too"),
        ("inspect model.onnx --data data.npz --report data.npz", "would overwrite the input"),
        ("export model.onnx --data data.npz -o data.npz", "would overwrite the input"),
        ("model.onnx --data none.npz", "none.npz: no such file"),
        ("model.onnx --data sub", "sub: is a folder"),
        ("model.onnx --calibrate none.npz", "none.npz: no such file"),
        ("model.onnx --percentile many", "Invalid value for '--percentile'"),
        ("model.onnx --scale 1/0", "--scale 1/0: not a number"),
        ("model.onnx --mean a,b", "--mean a,b: not a number"),
        ("model.onnx other.onnx", "unexpected extra argument"),
        ("model.onnx --frob", "No such option: --frob"),
        ("", "Missing argument 'MODEL'"),
        ("check model.onnx", "Missing argument 'SNN'"),
        ("check model.onnx model.snn.onnx", "Missing option '--data'"),
        ("check model.onnx none.onnx --data data.npz", "none.onnx: no such file"),
        ("check model.onnx model.onnx --data data.npz --min-agreement 95", "from 0 to 1"),
        ("check model.onnx model.onnx --data data.npz --max-drop -0.1", "from 0 to 1"),
    ],
)
def test_usage_errors_are_one_line(
    calls: Calls, files: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    (files / "sub").mkdir()
    (files / "link.onnx").symlink_to("model.onnx")
    (files / "shards").mkdir()
    (files / "shards/a.npz").touch()
    arguments = line.format(folder=files.name)
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert not calls

    assert run(f"--json {arguments}") == 2
    entries = json.loads(capsys.readouterr().out)
    validate(entries, "failure")
    assert message in f"{entries['error']['message']}: {entries['error']['remedy']}"


# --- what is printed ------------------------------------------------------------------------------


def test_summary_on_stdout_and_nothing_else(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("model.onnx") == 0
    printed = capsys.readouterr()
    assert "all checks passed" in printed.out
    assert printed.err == ""
    assert run("-q model.onnx") == 0
    assert capsys.readouterr() == ("", "")


def test_verbose_adds_the_passes(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    run("model.onnx -v")
    assert "reorder_maxpool" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("model.onnx --json", "convert"),
        ("inspect model.onnx --json", "inspect"),
        ("check model.onnx model.snn.onnx --data data.npz --json", "check"),
    ],
)
def test_json_and_report_are_the_same_object(
    calls: Calls, files: Path, capsys: pytest.CaptureFixture[str], line: str, kind: str
) -> None:
    assert run(f"{line} --report report.json") == 0
    entries = json.loads(capsys.readouterr().out)
    validate(entries, kind)
    assert json.loads((files / "report.json").read_text()) == entries


@pytest.mark.parametrize("error", [NaConvertError("no way", node="n", remedy="do"), DataError("x")])
def test_errors_of_the_api(
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: NaConvertError,
) -> None:
    raising(monkeypatch, error)
    assert run("model.onnx --json --report report.json") == error.exit_code
    printed = capsys.readouterr()
    assert printed.err == f"error: {error}\n"
    entries = json.loads(printed.out)
    validate(entries, "failure")
    assert entries["error"]["message"] == error.message
    assert json.loads((files / "report.json").read_text()) == entries


def test_refusals_are_a_table_before_the_error(
    files: Path,
    refused: Result,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raising(monkeypatch, NotConvertible("model.onnx: 2 nodes", refused=refused.refused))
    assert run("model.onnx") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Softmax" in printed.err
    assert printed.err.endswith(
        "error: model.onnx: 2 nodes: see the table: each is named with the reason and what to do\n"
    )


@pytest.mark.parametrize("rows", [1, 2])
def test_without_the_table_the_error_names_a_node(
    rows: int,
    files: Path,
    refused: Result,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = (refused.refused[0], refused.refused[0])[:rows]
    raising(monkeypatch, NotConvertible("model.onnx: nodes", refused=found))
    assert run("model.onnx -q") == 1
    first, more = found[0], "; and 1 more, listed without -q and in `refused` of --json"
    said = f"model.onnx: nodes: {first.node!r} ({first.op}) {first.reason}: {first.remedy}"
    assert capsys.readouterr().err == f"error: {said}{more if rows == 2 else ''}\n"


def test_failed_check_shows_what_was_measured(
    files: Path,
    failed: Result,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raising(monkeypatch, CheckFailed("agreement is low", result=failed))
    line = "check model.onnx model.snn.onnx --data data.npz"
    assert run(line) == 1
    printed = capsys.readouterr()
    assert "would pass at" in printed.out
    assert printed.err == "error: agreement is low\n"
    assert run(f"{line} --json") == 1
    entries = json.loads(capsys.readouterr().out)
    validate(entries, "failure")
    assert entries["equivalence"]["by_timestep"]


def test_inspect_of_what_cannot_be_converted(
    files: Path,
    refused: Result,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(api, "inspect", lambda model, **options: refused)
    assert run("inspect model.onnx") == 1
    printed = capsys.readouterr()
    assert "Softmax" in printed.out
    assert "2 node(s) cannot spike" in printed.err
    assert run("inspect model.onnx --json") == 1
    entries = json.loads(capsys.readouterr().out)
    validate(entries, "failure")
    assert len(entries["refused"]) == 2


def test_unexpected_errors_ask_for_a_report(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, KeyError("two\nlines"))
    assert run("model.onnx --json") == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: unexpected KeyError: ")
    assert printed.err.count("\n") == 1
    assert "please report" in printed.err
    validate(json.loads(printed.out), "failure")
    assert run("model.onnx -v") == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupt(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    assert run("model.onnx") == 130
    assert capsys.readouterr().err == "error: stopped\n"


# --- as a process ---------------------------------------------------------------------------------


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "na_convert", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_help_shows_options_and_commands() -> None:
    done = process("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for shown in ("Usage: na-convert [OPTIONS]", "--data", "--no-check", *COMMANDS):
        assert shown in done.stdout


@pytest.mark.parametrize("command", [*COMMANDS, "simulate"])
def test_help_of_commands(command: str) -> None:
    assert f"Usage: na-convert {command}" in process(command, "--help").stdout


def test_version() -> None:
    assert process("--version").stdout == f"na-convert {__version__}\n"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom na_convert.cli import _run\n_run(['--help'])\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'onnx_graphsurgeon', 'torch'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_reader_that_goes_away() -> None:
    command = f"{sys.executable} -m na_convert --help | true"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr


EXAMPLE = Path(__file__).parents[1] / "examples" / "resnet8-cifar10.onnx"


def test_explain_says_what_a_node_is_part_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"inspect {EXAMPLE} --explain node_floor") == 0
    shown = capsys.readouterr().out
    assert "staircase" in shown
    assert "getitem -> mul_15" in shown
    assert run(f"inspect {EXAMPLE} --explain node_floor --json") == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["levels"] == 3


def test_explain_an_unknown_node(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"inspect {EXAMPLE} --explain nowhere") == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--percentile 0 --calibrate data.npz", "--percentile 0: a number above 0 and up to 100"),
        ("--percentile 100.5 --calibrate data.npz", "--percentile 100.5: a number above 0"),
        ("--percentile 99", "--percentile and --per-channel need --calibrate DATA.npz"),
        ("--per-channel", "--percentile and --per-channel need --calibrate DATA.npz"),
        ("-o sub/../model.onnx", "-o sub/../model.onnx: would overwrite the input: choose another"),
        ("--target finn", "--target"),
        ("--initial-membrane bias", "--target and --initial-membrane are for NIR files"),
        ("-o net.nir --form step", "a NIR file has no --form and holds float weights"),
        ("-o net.nir --weights int8", "a NIR file has no --form and holds float weights"),
    ],
)
def test_options_that_exclude_each_other(
    files: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    (files / "sub").mkdir()
    onnx.save(low_bit_ann(), files / "model.onnx")
    np.savez(files / "data.npz", x=images(2))
    before = (files / "model.onnx").read_bytes()
    assert run(f"model.onnx {options}") == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert (files / "model.onnx").read_bytes() == before


def test_weights_that_there_are_not(files: Path) -> None:
    onnx.save(low_bit_ann(), files / "model.onnx")
    with pytest.raises(UsageError, match="--weights int4: one of float, int8 is needed"):
        api.convert(files / "model.onnx", weights="int4")


def test_a_model_is_not_its_own_output(files: Path) -> None:
    onnx.save(low_bit_ann(), files / "model.onnx")
    (files / "sub").mkdir()
    with pytest.raises(UsageError, match="the output would overwrite the model: choose another -o"):
        api.convert(files / "model.onnx", output=files / "sub/../model.onnx")


def test_on_a_terminal_progress_is_shown_and_taken_back(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(outcome, "console_for", lambda *, stderr=False: terminal)
    with outcome.progress_bar(show=True) as progress:
        progress("verifying act3", 0.5)
    assert re.search(r"verifying act3 .*0:00:00", shown.getvalue())
    assert shown.getvalue().endswith("\x1b[2K")  # the line is empty again
    before = shown.getvalue()
    with outcome.progress_bar(show=False) as progress:
        progress("verifying act4", 0.5)
    assert shown.getvalue() == before


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    """As in ``na-convert --help | head -1``."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "na_convert", "--help"]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_plots_of_a_conversion_and_of_a_check(
    calls: Calls, files: Path, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    drawn: list[tuple[Result, Path]] = []
    monkeypatch.setattr(plots, "write_plots", lambda *given: drawn.append(given))
    assert run("model.onnx --plots one -q") == 0
    assert run("check model.onnx model.snn.onnx --data data.npz --plots two -q") == 0
    assert drawn == [(result, Path("one")), (result, Path("two"))]
