"""README and docs/: every code block runs, generated pages are up to date, the site builds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from na_convert.passes import ANN_PASSES, normalise

import na_convert
from na_convert import cli

from . import build
from .blocks import NOT_CODE, RUN, Runner, blocks

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
WITH_THE_EXAMPLE = ("README.md", "start.md")  # these take a minute, and share what they make
GENERATED = (
    "errors.md", "operators.md", "reference-cli.md", "reference-python.md",
    "pictures/network.svg", "pictures/staircase.svg", "pictures/constant.svg",
    "pictures/early.svg",
)  # fmt: skip


# --- code blocks ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Runner]:
    """A folder in which README's paths lead somewhere, and what was run there."""
    folder = tmp_path_factory.mktemp("example")
    (folder / "examples").mkdir()
    for name in ("resnet8-cifar10.onnx", "resnet8-cifar10.npz"):
        shutil.copy(ROOT / "examples" / name, folder / "examples")
    return folder, Runner()


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network and images, under the names that the pages of docs/ use."""
    folder = tmp_path_factory.mktemp("stock")
    onnx.save(build.low_bit_ann(), folder / "model.onnx")
    x = build.images(600)
    logits = _outputs(folder / "model.onnx", x)
    gap = np.diff(np.sort(logits, axis=1)[:, -2:])[:, 0]
    clear = np.argsort(-gap)[:300]  # where classes are far apart, so that the SNN finds them too
    np.savez(folder / "images.npz", x=x[clear], labels=logits[clear].argmax(1))
    np.save(folder / "images.npy", x[clear])
    return folder


def _outputs(path: Path, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    return onnxruntime.InferenceSession(path).run(None, {"x": x})[0]


def test_the_summary_in_the_readme_is_what_is_printed(
    example: tuple[Path, Runner], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder, runner = example
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    runner.command("na-convert examples/resnet8-cifar10.onnx --data examples/resnet8-cifar10.npz")
    shown = next(b.text for b in blocks(ROOT / "README.md") if b.language == "text")
    assert_same_summary(shown, capsys.readouterr().out)


# What another machine may change: float errors and where the largest is, the time, and shares of
# samples, which a value on an edge can move.
_ERROR = re.compile(r"\d+(?:\.\d+)?e-\d+|\d+\.\d+")
_SHARE = re.compile(r"\d+\.\d+(?= (?:±|%))")
_TIME = re.compile(r"(?<=^converted in )\d+(?:\.\d+)? s$")


def assert_same_summary(shown: str, printed: str) -> None:
    """Every word and number is the same, but for shares within half a point, errors within a
    factor of ten (or both of float64), and the time."""
    one, other = _parts(shown), _parts(printed)
    assert one.text == other.text
    assert one.shares == pytest.approx(other.shares, abs=0.5)
    for a, b in zip(one.errors, other.errors, strict=True):
        assert a / 10 < b < a * 10 or max(a, b) < 1e-14, f"{a:g} is {b:g} now"


class Parts(NamedTuple):
    text: list[str]
    shares: list[float]
    errors: list[float]


def _parts(summary: str) -> Parts:
    text, shares, errors, checks = list[str](), list[float](), list[float](), False
    for line in summary.splitlines():
        words = " ".join(line.split())
        checks = (checks or words == "Checks") and bool(words)
        if checks:
            errors += map(float, _ERROR.findall(words))
            words = re.sub(r"layer \w+$", "layer #", _ERROR.sub("#", words))
        shares += map(float, _SHARE.findall(words))
        text.append(_TIME.sub("#", _SHARE.sub("#", words)))
    return Parts("\n".join(text).strip().splitlines(), shares, errors)


def test_code_of_the_readme_and_of_the_first_page_runs(
    example: tuple[Path, Runner], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder, runner = example
    monkeypatch.chdir(folder)
    runner.page(ROOT / "README.md")
    shown = capsys.readouterr().out
    assert re.search(r"^T = 3: [\d.]+% agree, accuracy [\d.]+%$", shown, re.MULTILINE)
    runner.page(DOCS / "start.md")


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name not in WITH_THE_EXAMPLE], ids=lambda p: p.stem
)
def test_code_of_the_page_runs(
    page: Path, stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / page.stem
    shutil.copytree(stock, folder)
    monkeypatch.chdir(folder)
    Runner().page(page)


def test_every_block_has_a_language_and_a_reason_if_it_is_not_run() -> None:
    found = [b for page in (ROOT / "README.md", *PAGES) for b in blocks(page)]
    unknown = [b.place for b in found if b.language not in (*RUN, *NOT_CODE)]
    assert not unknown, f"blocks without a language, or with one that is not known: {unknown}"
    fences = sum(len(re.findall("^```", p.read_text(), re.M)) for p in (ROOT / "README.md", *PAGES))
    assert fences == 2 * len(found)


def test_blocks_that_are_not_run_are_these() -> None:
    found = {
        f"{b.page}: {b.why_not}" for page in (ROOT / "README.md", *PAGES) for b in blocks(page)
        if b.why_not
    }  # fmt: skip
    assert found == NOT_RUN


NOT_RUN = {
    "README.md: tests/test_packaging.py runs it, in a fresh environment",
    "README.md: .ci/run is this command, tests/test_packaging.py compares them",
    "README.md: tests/test_train_run.py runs it",
    "start.md: tests/test_packaging.py runs it, in a fresh environment",
    "calibration.md: needs CIFAR-10",
    "data.md: starts a scheduler and workers, as tests/test_cluster.py does",
    "hardware.md: needs a C compiler; tests/test_hardware.py compiles and runs it",
    "netron.md: opens a browser and serves until Ctrl-C; tests/test_netron.py does it",
    "nir-readers.md: tests/test_nir_readers_installed.py runs them, with readers.txt",
    "pytorch.md: needs brevitas and onnxoptimizer",
    "training.md: tests/test_train_run.py runs it",
    "training.md: takes minutes; tests/test_finetune.py runs it at small size",
    "training.md: takes minutes; tests/test_train_run.py runs it at small size",
}


# --- the page of errors ---------------------------------------------------------------------------


WRONG = {
    "no-such.onnx": "a file that is not there",
    "model.onnx -T 0": "a value that cannot be",
    "model.onnx --form foldd": "a choice that does not exist",
    "check model.onnx model.onnx --data images.npz": "an ANN in place of an SNN",
    "images.npz": "no ONNX model",
    "model.onnx --data wide.npz": "data of another shape",
    "model.onnx --data bytes.npz": "pixels without a rule",
    "relu.onnx": "nodes that cannot spike",
    "model.onnx --target-drop 0.1": "an option without what it needs",
    "model.onnx -o none/such.onnx": "a folder that is not there",
    "model.onnx --readout-from nowhere": "a node that is not there",
    "model.onnx --form unrolled -T 9000": "more nodes than are read",
    "check model.onnx model.snn.onnx --data random.npz -T 1 --min-agreement 1": "a limit",
    "grown.onnx": "a constant that is too large",
    "mixed.onnx": "samples that are mixed",
}


@pytest.mark.parametrize("arguments", WRONG, ids=WRONG.values())
def test_errors_as_they_happen_are_on_the_page(
    arguments: str, stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    shutil.copytree(stock, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    _write_what_is_wrong()
    if "model.snn.onnx" in arguments:
        na_convert.convert("model.onnx", check=False)
    with pytest.raises(SystemExit) as left:
        cli.main(arguments.split())
    shown = capsys.readouterr().err
    line = next(line for line in shown.splitlines() if line.startswith("error: "))
    assert left.value.code in _codes_of(line.removeprefix("error: ")), line


def _write_what_is_wrong() -> None:
    np.savez("wide.npz", x=np.zeros((2, 3, 8, 9), np.float32))
    np.savez("bytes.npz", x=np.zeros((2, 3, 8, 8), np.uint8))
    np.savez("random.npz", x=build.images(20))
    body = "c = Conv (x, w1)\nr = Relu (c)\nd = Conv (r, w2)\nf = Flatten (d)\ny = Gemm (f, w3)"
    onnx.save(
        build.model(body, {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "w3": (64, 5)}), "relu.onnx"
    )
    layer = "c = Conv (z, w)\n" + build.quantised("c", "a") + "f = Flatten (a)\ny = Gemm (f, v)"
    weights = {**build.PLAIN, "w": (4, 3, 3, 3), "v": (144, 5), "all": np.array([-1])}
    body = (
        "n = Constant <value_int: int = 99999999999> ()\ns = Reshape (n, all)\n"
        "o = ConstantOfShape (s)\nm = ReduceMean (o)\nz = Add (x, m)\n"
    )
    onnx.save(build.model(body + layer, weights), "grown.onnx")
    body = "m = ReduceMean <axes: ints = [0]> (x)\nz = Sub (x, m)\n" + layer
    fixed = {"inputs": "float[2,3,8,8] x", "outputs": "float[2,5] y"}
    onnx.save(build.model(body, weights, **fixed), "mixed.onnx")


@pytest.mark.parametrize(
    "arguments",
    [
        "relu.onnx",
        pytest.param("model.onnx -o net.nir --target spinnaker2", marks=pytest.mark.nir),
    ],
)
def test_nodes_as_they_are_refused_are_on_the_page(
    arguments: str, stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    if ".nir" in arguments:
        pytest.importorskip("nir", reason="the package nir is not installed (extra nir)")
    shutil.copytree(stock, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    _write_what_is_wrong()
    with pytest.raises(SystemExit):
        cli.main([*arguments.split(), "--json"])
    refused = json.loads(capsys.readouterr().out)["refused"]
    assert refused
    for row in refused:
        assert 1 in _codes_of(f"{row['reason']}: {row['remedy']}"), row


def test_what_stands_on_the_page_of_errors_says_something() -> None:
    """Brackets are for what differs from run to run, not for texts of ours."""
    bare = set()
    for _, message, remedies in _table_of_errors():
        for text in (message, *remedies):
            if not _words(text):
                bare.add(text)
    assert bare == {
        "<what is wrong with the arguments>", "<as in the row of the reason>",
        "<nir>: <reader> <verdict> (<error>)", "<nir>: <reader> <verdict> (<what>)",
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "the moon is made of green cheese",
        "model.onnx: the moon is made of green cheese",
        "model.onnx: --moon green: cheese (2): see na-convert --help",
    ],
)
def test_what_no_error_says_is_not_on_the_page(line: str) -> None:
    assert _codes_of(line) == []


def _codes_of(line: str) -> list[int]:
    """Exit codes of the rows of docs/errors.md that ``line`` is one of."""
    return [code for code, row in _rows_of_errors() if row.fullmatch(line)]


def _rows_of_errors() -> list[tuple[int, re.Pattern[str]]]:
    """Exit code and pattern of each row of docs/errors.md: anything for what is in brackets. Rows
    that have no words outside brackets, which anything would match, are left out."""
    found = []
    for code, message, remedies in _table_of_errors():
        if _words(message):
            said = [f"{message}: {each}" if each != "nothing" else message for each in remedies]
            texts = [re.sub(r"<[^<>]*>", ".+", re.escape(each)) for each in said or [message]]
            found += [(code, re.compile(text)) for text in texts]
    return found


def _table_of_errors() -> list[tuple[int, str, list[str]]]:
    """Exit code, message and remedies of each row of docs/errors.md."""
    found, code = [], 0
    for line in (DOCS / "errors.md").read_text().splitlines():
        if line.startswith("## Exit code "):
            code = int(line.split()[3].rstrip(":"))
        row = re.fullmatch(r"\| `{1,2} ?(.*?) ?`{1,2} \| (.*?) ?\|", line)
        if row and code:
            remedies = [r for r in row[2].replace("&lt;", "<").split(" / ") if r]
            found.append((code, row[1], remedies))
    return found


def _words(text: str) -> bool:
    """Whether there are letters outside brackets."""
    return bool(re.search("[A-Za-z]", re.sub("<[^<>]*>", "", text)))


# --- versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["README.md", "docs/int8.md", "docs/forms.md", "docs/limits.md"])
def test_pages_say_which_onnxruntime_runs_an_snn(page: str) -> None:
    (oldest,) = re.findall(r'"onnxruntime>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    said = " ".join((ROOT / page).read_text().split())
    assert re.search(rf"onnxruntime,? \(?{re.escape(oldest)} or newer", said)


# --- passes ---------------------------------------------------------------------------------------


def test_pages_have_every_pass_in_order() -> None:
    steps = re.findall(r"^\d+\. `(\w+)`:", normalise.__doc__ or "", re.MULTILINE)
    passes = [each.__module__.rpartition(".")[2] for each in ANN_PASSES]
    assert {"plain_stacks", "strip_noise"} < set(steps)
    rewritten = (DOCS / "operators.md").read_text().partition("## Rewritten first")[2]
    assert re.findall(r"^### (\w+)$", rewritten, re.MULTILINE) == [*steps, *passes]
    flow = (
        (DOCS / "architecture.md").read_text().partition("passes/ ")[2].partition("to_spiking")[0]
    )
    shown = re.findall(r"^ {8}(\w+)", flow, re.MULTILINE)
    assert [name for name in shown if name != "calibrate"] == ["normalise", *passes]


# --- figures --------------------------------------------------------------------------------------


def test_speed_says_what_its_file_of_results_says() -> None:
    page = (DOCS / "speed.md").read_text()
    medians = defaultdict[str, list[float]](list)
    for row in json.loads((DOCS / "results" / "speed.json").read_text())["rows"]:
        medians[row["contender"]].append(row["median"])
    table = page[page.index("| folded") : page.index("\n\nThe other simulators")]
    shown = [line.strip("| ").split(" | ") for line in table.splitlines()]
    timed = {tuple(f"{value:.2f}" for value in values) for values in medians.values()}
    assert {tuple(cells[1:]) for cells in shown} <= timed
    shares = [
        int8 / theirs
        for name in ("SpikingJelly multi-step", "SpikingJelly single-step")
        for int8, theirs in zip(medians["int8-unrolled"], medians[name], strict=True)
    ]
    said = f"{min(shares):.2f} to {max(shares):.2f} of SpikingJelly's"
    assert said in " ".join(page.split())


# --- generated pages, links, the site -------------------------------------------------------------


def test_generated_pages_are_up_to_date(tmp_path: Path) -> None:
    run([sys.executable, str(DOCS / "generate.py"), str(tmp_path)], ROOT)
    made = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert made == sorted(GENERATED)
    for name in GENERATED:
        same = (tmp_path / name).read_bytes() == (DOCS / name).read_bytes()
        assert same, f"docs/{name} is not what the code says: run python docs/generate.py"


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda p: p.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#\s]*)(?:#([^)]+))?\)", page.read_text()):
        if target.startswith("http"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if heading and file.suffix == ".md":
            assert heading in _headings(file), f"{target}#{heading}"


def _headings(page: Path) -> set[str]:
    """The anchors that GitHub, and mkdocs, give the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed (extra `docs`)")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    run(command, ROOT)
    for page in PAGES:
        assert (tmp_path / page.stem / "index.html").is_file()
    assert (tmp_path / "index.html").is_file()


def run(command: list[str], folder: Path) -> None:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
