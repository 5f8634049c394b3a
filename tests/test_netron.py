"""Files as somebody sees them who opens them: what they say of themselves, and Netron itself."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest

import na_convert
from na_convert import cli
from na_convert.forms import FORMS, INT8_FORMS, read
from na_convert.forms.unrolled import _owner
from na_convert.snn import neuron_nodes, parameters

from .browser import chromium

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples/resnet8-cifar10.onnx"
T = 2
MADE = {
    "folded": {},
    "step": {"form": "step"},
    "unrolled": {"form": "unrolled"},
    "plain": {"form": "unrolled", "exact": False},  # off the grids
    "int8": {"weights": "int8"},
    "loop": {"weights": "int8", "form": "loop"},
    "int8 step": {"weights": "int8", "form": "step"},
}
ONE_NODE = {"folded": "IF", "step": "IFStep"}
STEPS = range(1, T + 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The example in every form."""
    folder = tmp_path_factory.mktemp("netron")
    made = {name: folder / f"{name.replace(' ', '-')}.onnx" for name in MADE}
    for name, path in made.items():
        na_convert.convert(EXAMPLE, output=path, timesteps=T, check=False, **MADE[name])
    return made


def thresholds(model: onnx.ModelProto) -> dict[str, float]:
    """Of each neuron layer, in the file's own units."""
    return {n.name: float(parameters(n).threshold) for n in neuron_nodes(read(model).graph)}


def nodes_of_layers(name: str, layers: list[str]) -> dict[str, str]:
    """Which node a reader looks for, and the layer that it is."""
    if name in (*ONE_NODE, "loop", "int8 step"):
        return {layer: layer for layer in layers}
    pattern = "{}_t{}" if name == "int8" else "{}/spikes/{}"
    return {pattern.format(layer, t): layer for layer in layers for t in STEPS}


# --- what the files say of themselves -------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
def test_a_file_describes_itself(name: str, files: dict[str, Path]) -> None:
    model = onnx.load(files[name])
    assert (model.producer_name, model.producer_version) == ("na-convert", na_convert.__version__)
    form = next(p.value for p in model.metadata_props if p.key == "na_convert.form")
    lines = model.doc_string.splitlines()
    assert lines[0] == f"Spiking network (SNN) made by na-convert, form {form}"
    assert lines[1] == f"7 layers, 73,728 integrate-and-fire neurons; T = {T}"
    assert form in {*FORMS, *(f.name for f in INT8_FORMS.values())}


@pytest.mark.parametrize("name", MADE)
def test_each_neuron_layer_has_a_threshold_and_a_doc(name: str, files: dict[str, Path]) -> None:
    model = onnx.load(files[name])
    nodes = {node.name: node for node in every_node(model.graph)}
    neurons = {n["name"]: n for n in json.loads(metadata(model, "na_convert.neurons"))}
    float_thresholds = {} if MADE[name].get("weights") else thresholds(model)
    wanted = nodes_of_layers(name, list(neurons))
    assert len(neurons) == 7
    for node, layer in wanted.items():
        doc = nodes[node].doc_string
        assert "Integrate-and-fire neurons" in doc
        assert "16x32x32" in doc or layer not in ("node_mul_15", "node_mul_33")
        on_ann_scale = f"{neurons[layer]['threshold']:.4g}"
        assert on_ann_scale in doc
        if layer in float_thresholds:
            assert f"threshold {float_thresholds[layer]:.4g}" in doc
        if node.endswith(("_t1", "/spikes/1")) or node == layer:
            assert neurons[layer]["output"] in doc
            assert "p = 3" in doc
    ours = [n for n in nodes.values() if n.domain == "na_convert"]
    assert all(n.doc_string for n in ours)
    assert max(len(line) for n in nodes.values() for line in n.doc_string.splitlines()) <= 80


def test_unrolled_neurons_on_grids_and_off(files: dict[str, Path]) -> None:
    """As docs/netron.md says: on grids a HardSigmoid fires, else a comparison and what a spike is
    worth."""
    spikes, fires = "node_mul_33/spikes/1", "node_mul_33/fires/1"
    found = {
        name: {node.name: node.op_type for node in onnx.load(files[name]).graph.node}
        for name in ("unrolled", "plain")
    }
    assert (found["unrolled"][spikes], found["unrolled"].get(fires)) == ("HardSigmoid", None)
    assert (found["plain"][spikes], found["plain"][fires]) == ("Mul", "GreaterOrEqual")


def test_layers_whose_names_hold_slashes_are_found() -> None:
    layers = {"/a", "/a/b", "c"}
    for name, owner in {"/a/b/spikes/1": "/a/b", "/a/with_x/y/2": "/a", "c/reset/1": "c",
                        "conv/1": None, "c": None, "/a/b": "/a"}.items():  # fmt: skip
        assert _owner(name, layers) == owner


def test_inputs_that_a_form_adds_are_explained(files: dict[str, Path]) -> None:
    folded = {i.name: i.doc_string for i in onnx.load(files["folded"]).graph.input}
    assert folded == {"x": "", "timesteps": "number of time steps T; may be left out"}
    for name in ("step", "int8 step"):
        step = onnx.load(files[name]).graph
        states = [v for v in (*step.input, *step.output) if v.name not in ("x", "logits")]
        assert len(states) == 2 * 9
        assert all(v.doc_string.startswith("state ") for v in states)


def test_descriptions_do_not_pile_up(files: dict[str, Path]) -> None:
    """A file that is read and written in another form has that form's description, once; what the
    ANN said of itself stays."""
    snn = read(onnx.load(files["step"]))
    again = FORMS["folded"].parts(snn).whole()
    assert again.doc_string == onnx.load(files["folded"]).doc_string
    model = onnx.load(EXAMPLE)
    model.doc_string = "A ResNet."
    path = files["step"].parent / "described.onnx"
    onnx.save(model, path)
    made = path.with_suffix(".snn.onnx")
    na_convert.convert(path, output=made, check=False)
    twice = FORMS["step"].parts(read(onnx.load(made))).whole()
    assert twice.doc_string.endswith("\n\nOf the ANN: A ResNet.")
    assert twice.doc_string.count("Spiking network") == 1


def every_node(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from every_node(attribute.g)


def metadata(model: onnx.ModelProto, key: str) -> str:
    return next(p.value for p in model.metadata_props if p.key == key)


# --- na-convert view ------------------------------------------------------------------------------


def test_without_netron(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "netron", None)
    assert cli._run(["view", str(EXAMPLE)]) == 2
    assert capsys.readouterr().err == "error: view needs netron: pip install netron\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["view", "nothing.onnx"], "nothing.onnx: no such file"),
        (["view", str(ROOT / "README.md")], "README.md: not a readable ONNX model"),
        (["view", str(EXAMPLE), "--port", "70000"], "--port 70000: a number from 0 to 65535"),
    ],
)
def test_what_cannot_be_viewed(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "netron", ModuleType("netron"))
    assert cli._run(arguments) == 2
    found = capsys.readouterr().err
    assert message in found
    assert found.count("\n") == 1


class FakeNetron(ModuleType):
    """What `view` uses of Netron; keeps what it was called with. A port below 1024 is taken."""

    def __init__(self) -> None:
        super().__init__("netron")
        self.calls: list[object] = []

    def start(self, path: str, address: tuple[str, int | None], browse: bool) -> tuple[str, int]:
        self.calls.append((path, address, browse))
        host, port = address
        if port is not None and port < 1024:
            raise PermissionError(13, "Permission denied")
        return host, port or 8080

    def wait(self) -> None:
        self.calls.append("wait")


@pytest.mark.parametrize(
    ("options", "address", "browse", "url"),
    [
        ([], ("localhost", None), True, "http://localhost:8080"),
        (["--no-browser"], ("localhost", None), False, "http://localhost:8080"),
        (["--port", "4000"], ("localhost", 4000), True, "http://localhost:4000"),
    ],
)
def test_what_view_asks_of_netron(
    options: list[str],
    address: tuple[str, int | None],
    browse: bool,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake = FakeNetron()
    monkeypatch.setitem(sys.modules, "netron", fake)
    assert cli._run(["view", str(EXAMPLE), *options]) == 0
    assert fake.calls == [(str(EXAMPLE), address, browse), "wait"]
    captured = capsys.readouterr()
    assert captured.out == f"{EXAMPLE}: {url} (Ctrl-C stops)\n"
    assert captured.err == ""


def test_a_port_that_view_cannot_serve_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeNetron()
    monkeypatch.setitem(sys.modules, "netron", fake)
    assert cli._run(["view", str(EXAMPLE), "--port", "80"]) == 2
    assert "wait" not in fake.calls
    captured = capsys.readouterr()
    assert captured.out == ""
    wanted = "error: --port 80: cannot serve there (Permission denied): choose another\n"
    assert captured.err == wanted


def test_view_serves_the_file_until_it_is_stopped() -> None:
    pytest.importorskip("netron", reason="needs the extra `view`")
    command = [sys.executable, "-m", "na_convert", "view", str(EXAMPLE), "--no-browser"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as served:
        try:
            assert served.stdout is not None
            file, url, *_ = served.stdout.readline().split()
            assert file == f"{EXAMPLE}:"
            with urllib.request.urlopen(f"{url}/data/{EXAMPLE.name}") as answer:
                assert answer.read() == EXAMPLE.read_bytes()
            port = url.rpartition(":")[2]
            other = subprocess.run(
                [*command, "--port", port], env=environment, capture_output=True, text=True,
                timeout=60, check=False,
            )  # fmt: skip
            assert other.returncode == 2
            assert f"--port {port}: cannot serve there" in other.stderr
        finally:
            served.send_signal(signal.SIGINT)
        assert served.wait(timeout=30) == 0
        assert served.stderr is not None
        assert served.stderr.read() == ""


# --- in Netron ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def netron() -> ModuleType:
    """Drives Netron: benchmarks/netron_pictures.py."""
    pytest.importorskip("netron", reason="needs the extra `browser`")
    path = ROOT / "benchmarks/netron_pictures.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.browser
def test_the_ann_in_netron(netron: ModuleType, tmp_path: Path) -> None:
    with chromium() as browser, netron.opened(EXAMPLE, browser) as page:
        assert len(netron.node_names(page)) > 100
        assert "pytorch" in netron.model_properties(page)["producer"]
        take_picture(page, tmp_path)


@pytest.mark.browser
@pytest.mark.parametrize("name", ["folded", "step", "unrolled", "int8"])
def test_neuron_layers_in_netron(
    name: str, netron: ModuleType, files: dict[str, Path], tmp_path: Path
) -> None:
    """One node per neuron layer (in forms of several steps: per layer and step), which says its
    threshold, in the description and where it is an attribute; the model says what it is."""
    model = onnx.load(files[name])
    layers = [n["name"] for n in json.loads(metadata(model, "na_convert.neurons"))]
    wanted = nodes_of_layers(name, layers)
    with chromium() as browser, netron.opened(files[name], browser) as page:
        drawn = netron.node_names(page)
        assert len(drawn) == len(model.graph.node)
        assert all(drawn.count(node) == 1 for node in wanted)
        for node in list(wanted)[:: 1 if name in ONE_NODE else T]:
            said = netron.select(page, node)
            assert said["name"] == node
            assert "Integrate-and-fire neurons" in said["description"]
            assert "threshold" in said["description"]
            if name in ONE_NODE:
                assert said["type"].split()[-1] == ONE_NODE[name]
                shown = float(said["threshold"].replace("+", ""))
                assert shown == pytest.approx(thresholds(model)[node], rel=1e-7)
                assert f"threshold {shown:.4g}" in said["description"]
            netron.close_sidebar(page)
        said = netron.model_properties(page)
        assert said["producer"] == f"na-convert {na_convert.__version__}"
        assert said["description"].startswith("Spiking network (SNN) made by na-convert")
        take_picture(page, tmp_path)


@pytest.mark.browser
def test_a_neuron_opens_on_a_click(netron: ModuleType, files: dict[str, Path]) -> None:
    """The function behind a node: what a neuron computes, in standard operators."""
    with chromium() as browser, netron.opened(files["folded"], browser) as page:
        page.locator('g.node[id="node-name-node_mul_33"] .node-item', has_text="ƒ").click()
        page.wait_for_selector("g.node:has-text('Scan')")


def take_picture(page: Any, folder: Path) -> None:
    path = folder / "shot.png"
    page.screenshot(path=path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 20_000  # an empty page has less
