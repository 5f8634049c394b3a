"""What the installed simulators do with NIR: `docs/nir-readers.md` says so, block by block.

``pip install --no-deps -r readers.txt`` beside torch; without them these tests are skipped.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from na_convert import cli
from na_convert.errors import ModelError, NotConvertible
from na_convert.nir_file import read_back, targets
from na_convert.nir_file.network import Network as NirNetwork
from na_convert.nir_file.network import Node
from na_convert.nir_file.simulate import simulate
from na_convert.nir_readers import readers
from na_convert.nir_readers.compare import Comparison, compare, reference_for

from . import build, nir_nets
from .test_nir_check import quantised_input_ann
from .test_report import validate

pytestmark = [pytest.mark.readers, pytest.mark.filterwarnings("ignore")]

PAGE = (Path(__file__).parent.parent / "docs/nir-readers.md").read_text()
PINNED = (Path(__file__).parent.parent / "readers.txt").read_text()
END = "--- end of a block"
ALL = [*readers.NAMES, *(f"{name}:adjusted" for name in readers.NAMES)]


def need(*packages: str) -> None:
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed: readers.txt")


def comparison(name: str, graph: Any, shape: tuple[int, ...], folder: Path) -> Comparison:
    """``name`` on a graph of `nir_nets`, by way of a file."""
    import nir

    path = folder / "net.nir"
    nir.write(path, graph)
    network = read_back.read(path)
    (reader,) = readers.find(name)
    return compare(path, network, reader, reference_for(network, [nir_nets.images(shape)]))


# --- the page -------------------------------------------------------------------------------------


def table_rows() -> dict[str, list[str]]:
    """The cells of the page's table of readers, by reader."""
    rows = re.findall(r"^\| ((?:norse|sinabs|snntorch|spikingjelly)\S*) \| (.*) \|$", PAGE, re.M)
    return {name: rest.split(" | ") for name, rest in rows}


def row(found: Comparison) -> list[str]:
    """The cells that the page has to have for this comparison."""
    causes = "; ".join(
        cause.what + (f" ({cause.alone})" if cause.alone else "") for cause in found.causes
    )
    said = re.split(r"\(\) received|\(position", found.error or "")[0].strip()
    differ = str(sum(layer.differ for layer in found.layers)) if found.layers else "-"
    return [found.version, found.verdict, differ, causes or said or "-"]


@pytest.mark.parametrize("name", ALL)
def test_the_table_of_the_page_is_what_the_readers_do(name: str, tmp_path: Path) -> None:
    need("nir", "nirtorch", "torch", name.partition(":")[0])
    import nir

    found = comparison(name, nir_nets.residual(nir), (2, 6, 6), tmp_path)
    assert table_rows()[name] == row(found)
    assert all(layer.unexplained == 0 for layer in found.layers)


def test_the_table_names_every_reader() -> None:
    assert list(table_rows()) == sorted(ALL)


def test_the_versions_of_the_page_are_those_to_install() -> None:
    for name, cells in table_rows().items():
        assert f"\n{name.partition(':')[0]}=={cells[0]}\n" in PINNED


def test_every_reproduction_of_the_page_prints_what_it_says() -> None:
    need("nir", "nirtorch", "torch", *readers.NAMES)
    blocks = re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", PAGE, re.M | re.S)
    assert len(blocks) > 8
    code = "".join(f"{block}\nprint({END!r})\n" for block, _ in blocks)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for (block, expected), shown in zip(blocks, done.stdout.split(f"{END}\n"), strict=False):
        assert shown == expected, block


# --- every reader ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ALL if name.endswith("adjusted")])
def test_adjusted_readers_do_what_we_do(name: str, tmp_path: Path) -> None:
    need("nir", "nirtorch", "torch", name.partition(":")[0])
    import nir

    for graph, shape in ((nir_nets.layered(nir), (6,)), (nir_nets.residual(nir), (2, 6, 6))):
        found = comparison(name, graph, shape, tmp_path)
        assert (found.verdict, found.causes, found.output_error) == ("identical", (), 0)


@pytest.mark.parametrize("name", readers.NAMES)
def test_a_target_refuses_conv1d_where_its_reader_does_not_read_it(
    name: str, tmp_path: Path
) -> None:
    need("nir", "nirtorch", "torch", name)
    import nir

    rng = np.random.default_rng(0)
    weight, bias = nir_nets.on_grid(rng, 4, 3, 3), nir_nets.on_grid(rng, 4)
    nodes = {
        "input": nir.Input({"input": np.array([3, 8])}),
        "conv": nir.Conv1d(8, weight, 1, 1, 1, 1, bias),
        "n1": nir_nets.neurons(nir, (4, 8)),
        "flatten": nir_nets.flatten(nir, (4, 8)),
        "readout": nir_nets.affine(nir, rng, 5, 32),
        "output": nir.Output({"output": np.array([5])}),
    }
    graph = nir.NIRGraph(nodes, nir_nets.chain(*nodes), nir_nets.METADATA.copy())
    verdict = comparison(f"{name}:adjusted", graph, (3, 8), tmp_path).verdict
    conv = Node("Conv1d", (3, 8), (4, 8), onnx="conv")
    network = NirNetwork({"conv": conv}, (), "x", {}, {})
    if verdict == "fails":
        with pytest.raises(NotConvertible, match="does not read Conv1d"):
            targets.refuse_unreadable(network, name)
    else:
        assert verdict == "identical"
        targets.refuse_unreadable(network, name)


TWICE = "subtracts once more before it fires where the membrane stayed above the threshold"


@pytest.mark.parametrize(
    ("beta", "causes"),
    [
        (0.9, [TWICE, "leak: 0.9 of the membrane is left after a step"]),  # no ties where it leaks
        (1.0, [TWICE, "fires above the threshold, not at it"]),
    ],
)
def test_snntorch_that_only_runs(beta: float, causes: list[str], tmp_path: Path) -> None:
    """As it is read it cannot run; with `init_hidden` its neuron shows."""
    need("nir", "nirtorch", "torch", "snntorch")
    import nir
    from snntorch.import_nir import import_from_nir

    from na_convert.nir_readers import torch_modules

    def run(path: Path, inputs: Any, neurons: Any) -> Any:
        with torch_modules.quietly():
            net = import_from_nir(nir.read(path, type_check=False))
            for name, op in neurons.items():
                layer: Any = net.get_submodule(torch_modules.module_name(name))
                layer.init_hidden, layer.mem = True, torch_modules.membrane(op, inputs.shape[1])
                layer.beta.fill_(beta)
            seen = torch_modules.watch(net, neurons)
            return torch_modules.recording(seen, torch_modules.step_by_step(net, inputs))

    path = tmp_path / "net.nir"
    nir.write(path, nir_nets.residual(nir))
    network = read_back.read(path)
    reference = reference_for(network, [nir_nets.images((2, 6, 6))])
    found = compare(path, network, readers.Reader("snntorch", version("snntorch"), run), reference)
    assert [cause.what for cause in found.causes] == causes
    assert all(layer.unexplained == 0 for layer in found.layers)


def test_a_file_reads_as_the_graph_that_was_written(tmp_path: Path) -> None:
    need("nir")
    import nir

    nir.write(tmp_path / "net.nir", nir_nets.residual(nir))
    inputs = nir_nets.images((2, 6, 6))
    found = simulate(read_back.read(tmp_path / "net.nir"), inputs)
    expected = simulate(read_back.from_graph(nir_nets.residual()), inputs)
    np.testing.assert_array_equal(found.output, expected.output)


@pytest.mark.parametrize("content", [b"", b"no hdf5 at all", b"\x89HDF\r\n\x1a\n" + bytes(64)])
def test_a_file_that_is_no_nir_is_said_to_be_so(content: bytes, tmp_path: Path) -> None:
    need("nir")
    path = tmp_path / "net.nir"
    path.write_bytes(content)
    with pytest.raises(Exception, match=r"net\.nir: not a NIR file that can be read"):
        read_back.read(path)


def test_arrays_too_large_for_the_memory_are_refused_unread(tmp_path: Path) -> None:
    need("nir")
    import h5py
    import nir

    path = tmp_path / "net.nir"
    nir.write(path, nir_nets.layered(nir))
    with h5py.File(path, "a") as opened:
        opened.create_dataset("node/nodes/n1/r2", (1 << 20, 1 << 20), "f4", compression="gzip")
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ModelError, match=r"net\.nir: its arrays take 4096\.0 GiB"):
        read_back.read(path)


# --- from ONNX ------------------------------------------------------------------------------------


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an ANN, its NIR file by way of an exact SNN, and samples."""
    need("nir", "nirtorch", "torch", *readers.NAMES)
    onnx.save(build.low_bit_ann(), tmp_path / "ann.onnx")
    np.savez(tmp_path / "data.npz", x=build.images(4))
    monkeypatch.chdir(tmp_path)
    assert (
        cli._run(["ann.onnx", "-o", "snn.onnx", "--exact", "-T", "4", "-q", "--data", "data.npz"])
        == 0
    )
    assert cli._run(["export", "snn.onnx", "-o", "net.nir", "-q", "--data", "data.npz"]) == 0
    return tmp_path


def test_counts_are_ours_from_onnx_to_every_simulator(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ",".join(f"{name}:adjusted" for name in readers.NAMES)
    line = f"check ann.onnx net.nir --data data.npz --reader {names} --json"
    assert cli._run(line.split()) == 0
    found = json.loads(capsys.readouterr().out)
    validate(found, "check_nir")
    assert [each["verdict"] for each in found["readers"]] == ["identical"] * 4
    assert sum(layer["spikes"] for layer in found["readers"][0]["layers"]) > 100
    assert found["reference"]["agreement"] == found["readers"][0]["agreement"]


def test_without_a_name_every_reader_is_checked_as_it_is(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli._run(["check", "ann.onnx", "net.nir", "--data", "data.npz", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [each["reader"] for each in found["readers"]] == list(readers.NAMES)
    assert {each["verdict"] for each in found["readers"]} == {"deviates", "fails"}
    for each in found["readers"]:
        assert sum(layer["unexplained"] for layer in each["layers"]) == 0


def test_the_file_of_another_ann_is_refused(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build.low_bit_ann()
    model.producer_name = "another"
    onnx.save(model, "other.onnx")
    assert cli._run(["check", "other.onnx", "net.nir", "--data", "data.npz"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: net.nir: is made of another ANN than other.onnx: export this")


def test_a_quantiser_of_the_input_is_run_in_front_of_every_simulator(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(quantised_input_ann(), "ann.onnx")
    assert cli._run(["ann.onnx", "-o", "net.nir", "-q", "--data", "data.npz"]) == 0
    names = ",".join(f"{name}:adjusted" for name in readers.NAMES)
    assert cli._run(f"check ann.onnx net.nir --data data.npz --reader {names} --json".split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["verdict"] for each in found["readers"]] == ["identical"] * 4
    assert [each["agreement"] for each in found["readers"]] == [1.0] * 4


@pytest.mark.parametrize("pool", [False, True])
def test_the_pulse_starts_membranes_in_every_simulator(
    pool: bool, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And starts the neurons of a max-pool, whose membranes start at other shares."""
    if pool:
        body = (
            "c = Conv <pads: ints = [1,1,1,1]> (x, w1)\n" + build.quantised("c", "a")
            + "p = MaxPool <kernel_shape: ints = [2,2], strides: ints = [2,2]> (a)\n"
            + "d = Conv <pads: ints = [1,1,1,1]> (p, w2)\n" + build.quantised("d", "b")
            + "m = GlobalAveragePool (b)\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, v)"
        )  # fmt: skip
        weights = {**build.PLAIN, "w1": (4, 3, 3, 3), "w2": (6, 4, 3, 3), "v": (5, 6)}
        onnx.save(build.model(body, weights), "ann.onnx")
    convert = "ann.onnx -o net.nir -q --data data.npz -T 4 --initial-membrane pulse"
    assert cli._run(convert.split()) == 0
    network = read_back.read(Path("net.nir"))
    assert not any(op.initial.any() for op in network.neurons.values())
    names = ",".join(f"{name}:adjusted" for name in readers.NAMES)
    assert cli._run(f"check ann.onnx net.nir --data data.npz --reader {names} --json".split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["verdict"] for each in found["readers"]] == ["identical"] * 4
    assert found["reference"]["agreement"] == 1


def test_with_the_membrane_in_the_biases_there_is_nothing_to_set(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = "export snn.onnx -o net.nir -q --data data.npz --initial-membrane bias"
    assert cli._run(export.split()) == 0
    assert not any(op.initial.any() for op in read_back.read(Path("net.nir")).neurons.values())
    line = "check ann.onnx net.nir --data data.npz --reader spikingjelly:adjusted"
    assert cli._run(line.split()) == 0
