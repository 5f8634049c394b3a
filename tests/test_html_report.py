"""The HTML report: self-contained, valid, accessible; its numbers are the result's."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import na_convert
from na_convert import api, cli, svg
from na_convert.errors import CheckFailed, NaConvertError, NotConvertible
from na_convert.html_report import html_report
from na_convert.results import Result
from na_convert.simulator import Simulator

from . import build
from .browser import chromium

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """The elements of a page as (tag, attributes, text inside); stray end tags are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.elements: list[tuple[str, dict[str, str | None], str]] = []
        self.children: dict[int, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {[tag for tag, *_ in self.open]}"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in VOID:
            self.elements.append((tag, dict(attrs), ""))
        else:
            self.open.append((tag, dict(attrs), []))

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        opened, attributes, text = self.open.pop()
        assert opened == tag, f"<{opened}> is closed by </{tag}>"
        inside = "".join(text)
        self.elements.append((tag, attributes, inside))
        if self.open:
            self.open[-1][2].append(f"<{tag}>{inside}</{tag}>")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.open[-1][2].append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, text) for name, attributes, text in self.elements if name == tag]


def check_page(text: str) -> Page:
    """Whatever holds of every report."""
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert not page.all("script")
    assert not page.all("img")
    assert "@import" not in text
    assert "url(" not in text
    for _, attributes, _ in page.elements:
        for name in ("src", "href", "xlink:href", "action"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:")), target
        assert not any(name.startswith("on") for name in attributes)
    ids = [a["id"] for _, a, _ in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for attributes, _ in page.all("a"):
        assert (attributes["href"] or "").removeprefix("#") in ids
    for _, inside in page.all("figure"):
        caption = re.search(r"<figcaption>(.+?)</figcaption>", inside, re.DOTALL)
        assert caption is not None
        assert len(re.sub(r"<[^>]+>", "", caption[1]).strip()) > 4
    for attributes, inside in page.all("svg"):
        assert attributes["role"] == "img"
        label = attributes["aria-label"]
        assert label
        assert inside.startswith("<title>")
    assert len(page.all("h1")) == 1
    assert page.all("html")[0][0]["lang"] == "en"
    return page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ANN, its SNN, labelled data."""
    folder = tmp_path_factory.mktemp("html")
    onnx.save(build.low_bit_ann(), folder / "net.onnx")
    labels = np.random.default_rng(3).integers(0, 5, 40)
    np.savez(folder / "data.npz", x=build.images(40), labels=labels)
    na_convert.convert(folder / "net.onnx", check=False)
    return folder


@pytest.fixture(scope="module")
def measured(folder: Path) -> Result:
    """A comparison with everything in it: labels, intervals, energy, error split, excerpt."""
    return na_convert.check(
        folder / "net.onnx", folder / "net.snn.onnx", data=folder / "data.npz",
        timesteps=[8], excerpt=(),
    )  # fmt: skip


# --- every kind of result -------------------------------------------------------------------------


def test_a_whole_report(measured: Result) -> None:
    page = check_page(html_report(measured, "check"))
    headings = [re.sub(r"<[^>]+>", "", text) for _, text in page.all("h2")]
    assert headings == [
        "Accuracy over time", "Why it differs", "Neuron layers", "Spikes and membranes", "Energy",
        "The network before and after", "Checks", "Classes", "Notes",
    ]  # fmt: skip
    assert len(page.all("svg")) >= 12
    assert html_report(measured, "check") == html_report(measured, "check")


def test_the_numbers_are_those_of_the_result(measured: Result) -> None:
    text = html_report(measured, "check")
    found = measured.equivalence
    assert found is not None
    assert found.energy is not None
    for row in found.by_timestep:
        cells = [
            f"{100 * value:.1f} %"
            for value in (row.ann_accuracy, row.snn_accuracy, row.drop, row.agreement)
            if value is not None
        ]
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        assert f'<tr><th scope="row">{row.T}</th>{numbers}' in text
    for layer in found.layers:
        assert f">{layer.name}</th>" in text
        assert f'<td class="number">{layer.spike_rate:.3f}</td>' in text
    for neuron in measured.neurons:
        assert f'<td class="number">{neuron.threshold:.4g}</td>' in text
    assert f"{100 * found.energy.snn_nj / found.energy.ann_nj:.1f} %" in text
    for figure in found.figures:
        assert f'<th scope="row">{figure.name}</th><td class="brief">✓ pass</td>' in text


@pytest.mark.parametrize("command", ["convert", "check", "inspect"])
def test_results_with_little_in_them(result: Result, command: str) -> None:
    """No intervals, energy, error split, excerpt; or no equivalence at all."""
    check_page(html_report(result, command))
    check_page(html_report(replace(result, equivalence=None), command))
    assert result.equivalence is not None
    unlabelled = tuple(
        replace(row, ann_accuracy=None, snn_accuracy=None) for row in result.equivalence.by_timestep
    )
    for rows in (unlabelled, unlabelled[:1], ()):
        some = replace(result.equivalence, by_timestep=rows, layers=(), figures=())
        text = html_report(replace(result, equivalence=some), command)
        check_page(text)
        assert "ANN accuracy" not in text


def test_failures(result: Result, failed: Result, refused: Result) -> None:
    error = CheckFailed("agreement is low", node="act3", remedy="train with noise", result=failed)
    text = html_report(failed, "check", error)
    check_page(text)
    assert "✗ failed" in text
    assert "agreement is low. train with noise." in text
    assert '<tr class="failed">' in text
    assert "✗ FAIL" in text
    text = html_report(None, "convert", NotConvertible("2 nodes", refused=refused.refused))
    check_page(text)
    assert "Softmax" in text
    assert "keep it in the readout" in text
    text = html_report(refused, "inspect", NotConvertible("2 nodes", refused=refused.refused))
    assert check_page(text).all("h2")[0][1] == "What cannot spike"
    check_page(html_report(None, "convert", NaConvertError("no such file")))


def test_names_are_text(result: Result) -> None:
    """Whatever an exporter called its nodes cannot become markup."""
    evil = '<script>alert("1")</script>&amp;'
    neurons = (replace(result.neurons[0], name=evil), *result.neurons[1:])
    assert result.equivalence is not None
    layers = (replace(result.equivalence.layers[0], name=evil), *result.equivalence.layers[1:])
    equivalence = replace(result.equivalence, layers=layers, data=evil)
    model = replace(result.model, path=f"nets/{evil}", nodes={evil: 1, "Conv": 2})
    changed = replace(
        result, neurons=neurons, equivalence=equivalence, model=model, notes=(evil,), output=None
    )
    check_page(html_report(changed, "convert", NaConvertError(evil, remedy=evil)))


def test_very_many_layers(result: Result) -> None:
    """Charts show the layers with the largest figures; the table has all."""
    assert result.equivalence is not None
    first = result.equivalence.layers[0]
    layers = tuple(replace(first, name=f"layer{i}", unevenness=i / 300) for i in range(150))
    neurons = tuple(replace(result.neurons[0], name=f"layer{i}") for i in range(150))
    equivalence = replace(result.equivalence, layers=layers)
    text = html_report(replace(result, neurons=neurons, equivalence=equivalence), "check")
    page = check_page(text)
    assert len(re.findall(r'<th scope="row">layer\d+</th>', text)) == 150
    uneven = next(t for a, t in page.all("svg") if (a["aria-label"] or "").startswith("Uneven"))
    assert ">layer149<" in uneven
    assert ">layer3<" not in uneven
    assert len(text) < 300_000


def test_size(measured: Result) -> None:
    assert len(html_report(measured, "check").encode()) < 150_000


# --- the excerpt ----------------------------------------------------------------------------------


def test_the_excerpt_is_what_the_network_does(folder: Path, measured: Result) -> None:
    simulator = Simulator(folder / "net.snn.onnx", record=["*"])
    x = np.load(folder / "data.npz")["x"][:1]
    run = simulator.run(x, 16)
    assert {layer.name for layer in measured.excerpt} <= set(simulator.layers)
    for layer in measured.excerpt:
        assert layer.timesteps == 16
        fired = (run.spikes[layer.name][:, 0] != 0).reshape(16, -1)
        np.testing.assert_array_equal(np.asarray(layer.spikes).T, fired[:, list(layer.neurons)])
        theta = float(simulator.parameters(layer.name).threshold)
        current = run.currents[layer.name][:, 0].reshape(16, -1).astype(np.float64)
        for traced in layer.traced:
            index = np.ravel_multi_index(traced.place, run.spikes[layer.name].shape[2:])
            assert index == traced.neuron
            u, reached = theta / 2, [0.5]
            for t in range(16):
                u += current[t, traced.neuron]
                reached.append(u / theta)
                u -= theta * fired[t, traced.neuron]
            np.testing.assert_allclose(traced.membrane, reached, atol=1e-5)
        assert layer.traced[0].why == "most active"
        assert fired[:, layer.traced[0].neuron].sum() == fired.sum(axis=0).max()


def test_layers_can_be_chosen(folder: Path) -> None:
    name = Simulator(folder / "net.snn.onnx").layers[0]
    found = na_convert.check(
        folder / "net.onnx", folder / "net.snn.onnx", data=folder / "data.npz", excerpt=[name]
    )
    assert [layer.name for layer in found.excerpt] == [name]
    assert found.excerpt[0].why == ""


# --- drawing --------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 300), max_size=9), st.floats(1, 40))
def test_labels_are_spread(places: list[float], gap: float) -> None:
    places = sorted(places)
    found = svg.spread(places, gap)
    assert len(found) == len(places)
    assert all(b - a >= gap - 1e-6 for a, b in zip(found, found[1:], strict=False))
    if all(b - a >= gap for a, b in zip(places, places[1:], strict=False)):
        np.testing.assert_allclose(found, places)


def test_bars_go_both_ways() -> None:
    drawn = svg.bars([svg.Bar("up", [2.0], "+2"), svg.Bar("down", [-1.0], "-1")], ["s1"], "both")
    (x1, w1), (x2, w2) = [
        (float(x), float(w))
        for x, w in re.findall(r'<rect.*? x="([\d.]+)".*? width="([\d.]+)"', drawn)
    ]
    assert w1 == pytest.approx(2 * w2, abs=0.2)
    assert x2 + w2 == pytest.approx(x1, abs=0.2)


def test_nothing_is_drawn_outside(measured: Result) -> None:
    """Coordinates of lines, bars and texts lie within the drawing."""
    for attributes, _ in check_page(html_report(measured, "check")).all("svg"):
        assert (attributes["viewbox"] or "").startswith("0 0 440 ")
    text = html_report(measured, "check")
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        height = float(re.search(r'viewBox="0 0 440 ([\d.]+)"', drawing)[1])  # type: ignore[index]
        for x in re.findall(r' (?:x|x1|x2|cx)="([-\d.]+)"', drawing):
            assert -0.1 <= float(x) <= 440.1
        for y in re.findall(r' (?:y|y1|y2|cy)="([-\d.]+)"', drawing):
            assert -0.1 <= float(y) <= height + 0.1


# --- the command line -----------------------------------------------------------------------------


def test_the_extension_decides(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"check {folder}/net.onnx {folder}/net.snn.onnx --data {folder}/data.npz -q"
    assert cli._run([*line.split(), "--report", f"{tmp_path}/out.html"]) == 0
    text = (tmp_path / "out.html").read_text()
    check_page(text)
    assert "Spikes and membranes" in text
    assert cli._run([*line.split(), "--report", f"{tmp_path}/out.json", "--record", "a"]) == 2
    assert "--record needs a report to show it" in capsys.readouterr().err
    assert cli._run([*line.split(), "--report", f"{tmp_path}/b.html", "--record", "nobody"]) == 2
    assert "--record nobody: no such neuron layer" in capsys.readouterr().err


def test_a_report_of_a_failure(
    folder: Path, tmp_path: Path, failed: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> Result:
        raise CheckFailed("agreement is low", result=failed)

    monkeypatch.setattr(api, "check", fail)
    line = f"check {folder}/net.onnx {folder}/net.snn.onnx --data {folder}/data.npz -q"
    assert cli._run([*line.split(), "--report", f"{tmp_path}/out.html"]) == 1
    assert "agreement is low" in (tmp_path / "out.html").read_text()


def test_plots(measured: Result, tmp_path: Path) -> None:
    """Every chart as two files, the same bytes each time."""
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    from na_convert.plots import write_plots

    written = write_plots(measured, tmp_path / "one")
    layers = [f"spikes-{layer.name}" for layer in measured.excerpt]
    names = {"accuracy", "layers", "error", "energy", *layers}
    assert {(p.stem, p.suffix) for p in written} == {
        (n, s) for n in names for s in (".png", ".svg")
    }
    for path in written:
        head = path.read_bytes()[:400]
        assert head.startswith(b"\x89PNG") if path.suffix == ".png" else b"<svg" in head
    for path in write_plots(measured, tmp_path / "other"):
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()


def test_plots_of_little(result: Result, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    from na_convert.plots import write_plots

    assert {p.stem for p in write_plots(result, tmp_path)} == {"accuracy", "layers"}
    assert write_plots(replace(result, equivalence=None), tmp_path) == ()


def test_without_matplotlib(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    line = f"check {folder}/net.onnx {folder}/net.snn.onnx --data {folder}/data.npz"
    assert cli._run([*line.split(), "--plots", f"{tmp_path}/plots"]) == 2
    assert "pip install 'na-convert[plot]'" in capsys.readouterr().err
    assert not (tmp_path / "plots").exists()


# --- in a browser ---------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(measured: Result, tmp_path: Path, width: int, scheme: str) -> None:
    """No console message, nothing wider than the window, no text outside its drawing."""
    path = tmp_path / "report.html"
    path.write_text(html_report(measured, "check"))
    said: list[str] = []
    with chromium() as browser:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url))
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        outside = page.evaluate(
            """[...document.querySelectorAll('svg')].flatMap(svg => {
                const box = svg.getBoundingClientRect();
                return [...svg.querySelectorAll('text')].filter(text => {
                    const at = text.getBoundingClientRect();
                    return at.left < box.left - 1 || at.right > box.right + 1;
                }).map(text => text.textContent)})"""
        )
        assert outside == []
        background, ink = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, "
            "getComputedStyle(document.body).color]"
        )
        assert _luminance(background) > 0.9 or scheme == "dark"
        assert _contrast(background, ink) > 7
    assert said == [path.as_uri()]


@pytest.mark.browser
def test_on_paper(measured: Result, tmp_path: Path) -> None:
    """A4: nothing is wider than the paper between its margins, folded parts are open, colours of
    the legend are printed, and no page is nearly empty because nothing may be broken."""
    path = tmp_path / "report.html"
    path.write_text(html_report(measured, "check"))
    width, height = round((210 - 28) / 25.4 * 96), round((297 - 28) / 25.4 * 96)
    with chromium() as browser:
        page = browser.new_context(viewport={"width": width, "height": height}).new_page()
        page.goto(path.as_uri())
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("nav").is_hidden()
        assert page.locator("details table").first.is_visible()
        assert page.locator(".swatch").first.evaluate(
            "found => getComputedStyle(found).printColorAdjust"
        ) == "exact"  # fmt: skip
        tall = page.evaluate("document.documentElement.scrollHeight")
        pages = len(re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True)))
    assert tall / height <= pages <= 1.6 * tall / height + 1


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    """As WCAG 2.1 defines it."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["_LIGHT", "_DARK"])
def test_colours_are_readable(scheme: str) -> None:
    """Text and lines against the paper, at least 4.5 : 1."""
    from na_convert import html_style

    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", getattr(html_style, scheme)))

    def rgb(name: str) -> str:
        value = colours[name].removeprefix("#")
        return ",".join(str(int(value[i : i + 2], 16)) for i in (0, 2, 4))

    for name in ("ink", "soft", "link", "good", "bad", "s1", "s2", "s3", "s4", "s5"):
        assert _contrast(rgb(name), rgb("paper")) >= 4.5, name
    assert _contrast(rgb("good"), rgb("good-soft")) >= 4.5
    assert _contrast(rgb("bad"), rgb("bad-soft")) >= 4.5
