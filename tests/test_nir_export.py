"""NIR files: what is written, that it does what the SNN does, and what is refused."""

from __future__ import annotations

import json
import tarfile
from contextlib import nullcontext
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from na_convert.passes import snap

import na_convert
from na_convert import forms
from na_convert.cli import main
from na_convert.errors import CheckFailed, ModelError, NotConvertible, UsageError
from na_convert.nir_file import export, read_back, verification
from na_convert.nir_file.read_back import from_graph
from na_convert.nir_file.simulate import simulate
from na_convert.nir_file.timesteps import timesteps_for
from na_convert.result_json import to_json
from na_convert.results import Figure, NirExport
from na_convert.simulation import numpy_engine
from na_convert.snn import Snn

from . import build, nir_nets, spiking

nir = pytest.importorskip("nir", reason="the package nir is not installed (extra nir)")
pytestmark = pytest.mark.nir

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples/resnet8-cifar10.onnx"
SCHEMA = json.loads((ROOT / "docs/result.schema.json").read_text())


def snn_file(snn: Snn, folder: Path) -> Path:
    path = folder / "net.snn.onnx"
    onnx.save(forms.FORMS["folded"].parts(snn).whole(), path)
    return path


def exported(snn: Snn, folder: Path, **options: object) -> NirExport:
    feeds = spiking.samples(snn, 4)
    file = snn_file(snn, folder)
    return na_convert.export(file, output=folder / "net.nir", data=feeds, **options)


def on_grid(name: str) -> Snn:
    snn, found = snap.run(spiking.NETWORKS[name](), {"x": 4.0}, 8)
    assert found.exact
    return snn


def counted(path: Path, x: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """Spike counts by IF node of the file at ``path``, as readers are judged by."""
    inputs = np.repeat(x[None].astype(np.float64), steps, axis=0)
    spikes = simulate(read_back.read(path), inputs).spikes
    return {name: fired.sum(axis=0) for name, fired in spikes.items()}


# --- the same spikes ------------------------------------------------------------------------------


@pytest.mark.parametrize("membrane", ["metadata", "pulse"])
@pytest.mark.parametrize("grids", [False, True])
@pytest.mark.parametrize("name", ["residual", "concat", "depthwise", "per_channel", "mlp"])
def test_the_file_counts_the_spikes_of_the_snn(
    name: str, grids: bool, membrane: str, tmp_path: Path
) -> None:
    snn = on_grid(name) if grids else spiking.NETWORKS[name]()
    found = exported(snn, tmp_path, timesteps=5, initial_membrane=membrane)
    assert [f.name for f in found.figures] == ["NIR spikes", "NIR counts", "NIR outputs"]
    assert found.other_counts == 0
    assert found.agreement == 1
    x = spiking.samples(snn, 4)["x"]
    names = [layer.name for layer in found.layers]
    wanted = numpy_engine(snn, 5, names, np.float64)({"x": x}).spikes
    counts = counted(tmp_path / "net.nir", x, 5)
    for layer in found.layers:
        np.testing.assert_array_equal(
            counts[layer.node], np.count_nonzero(wanted[layer.name], axis=0)
        )


def test_a_bias_per_step_is_not_the_same_and_its_difference_is_told(tmp_path: Path) -> None:
    found = exported(spiking.residual(), tmp_path, timesteps=3, initial_membrane="bias")
    assert all(figure.passed for figure in found.figures)
    assert found.other_counts > 0.01
    assert any("made for exactly 3 time steps" in text for text in found.statements)
    with pytest.raises(UsageError, match="is made for exactly 3 time steps"):
        timesteps_for(read_back.read(tmp_path / "net.nir"), "net.nir", 2)
    counts = counted(tmp_path / "net.nir", spiking.samples(spiking.residual(), 4)["x"], 3)
    snn = spiking.residual()
    first = snn.neurons[0].name  # under a constant current the count at T is the same
    wanted = numpy_engine(snn, 3, [first], np.float64)(spiking.samples(snn, 4)).spikes[first]
    np.testing.assert_array_equal(counts[found.layers[0].node], np.count_nonzero(wanted, axis=0))


RESNET = (
    "c1 = Conv <pads: ints = [1,1,1,1]> (x, w1, b1)\n"
    + build.quantised("c1", "a1")
    + "c2 = Conv <pads: ints = [1,1,1,1]> (a1, w2)\ns2 = Add (c2, a1)\n"
    + build.quantised("s2", "a2", step="step2")
    + "c3 = Conv <pads: ints = [1,1,1,1], strides: ints = [2,2]> (a2, w3)\n"
    + "d3 = Conv <strides: ints = [2,2]> (a2, w4)\ns3 = Add (d3, c3)\n"
    + build.quantised("s3", "last")
    + spiking.HEAD
)
DEPTHWISE = (
    "c1 = Conv <pads: ints = [1,1,1,1], strides: ints = [2,2]> (x, w1, b1)\n"
    + build.quantised("c1", "a1")
    + "c2 = Conv <pads: ints = [1,1,1,1], group: int = 4> (a1, w5)\n"
    + build.quantised("c2", "a2")
    + "c3 = Conv (a2, w4)\n"
    + build.quantised("c3", "last")
    + spiking.HEAD
)
MLP = (
    "f = Flatten (x)\nc1 = Gemm <transB: int = 1> (f, m1)\n"
    + build.quantised("c1", "a1")
    + "c2 = MatMul (a1, m2)\ns2 = Add (c2, b2)\n"
    + build.quantised("s2", "a2", step="step2")
    + "y = Gemm (a2, m3)"
)
WEIGHTS = {
    "w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "w3": (4, 4, 3, 3), "w4": (4, 4, 1, 1),
    "w5": (4, 1, 3, 3), "v": (5, 4), "m1": (8, 192), "m2": (8, 7), "b2": (7,), "m3": (7, 5),
    "step2": 0.3,
}  # fmt: skip


@pytest.mark.parametrize("body", [RESNET, DEPTHWISE, MLP], ids=["resnet", "depthwise", "mlp"])
@pytest.mark.parametrize("exact", [False, True], ids=["float", "exact"])
def test_from_ann_to_snn_to_nir(body: str, exact: bool, tmp_path: Path) -> None:
    used = {name: value for name, value in WEIGHTS.items() if name in body}
    path, snn, to = tmp_path / "ann.onnx", tmp_path / "snn.onnx", tmp_path / "net.nir"
    onnx.save(build.model(body, {**build.PLAIN, **used}), path)
    data = {"x": build.images(6)}
    result = na_convert.convert(path, output=to, data=data, exact=exact)
    assert result.nir is not None
    assert nir.read(to).metadata["ann_sha256"] == result.model.sha256
    assert result.equivalence is not None
    assert [f.name for f in result.equivalence.figures[-3:]] == [f.name for f in result.nir.figures]
    assert result.nir.other_counts == 0
    assert result.output is not None
    assert result.output.path == str(to)
    na_convert.convert(path, output=snn, data=data, exact=exact, check=False)
    again = na_convert.export(snn, output=tmp_path / "again.nir", data=data)
    assert again.output.nodes == result.output.nodes
    assert again.output.sha256 == result.output.sha256
    jsonschema.validate(to_json(result), SCHEMA)


def from_corpus(name: str, to: Path) -> None:
    with tarfile.open(ROOT / "tests/corpus.tar.xz") as archive:
        (member,) = [m for m in archive.getmembers() if Path(m.name).name == f"{name}.onnx"]
        to.write_bytes(archive.extractfile(member).read())


@pytest.mark.parametrize(
    "name",
    [
        "dorefa_net1d_dynamo",  # one dimension, a mean behind an Unsqueeze, a max-pool in front
        "noiseadaptor_resnet_legacy",  # a global average along one axis after the other
        "ortq_qdq_u8_resnet_asym",  # input and output are quantised
        "relu6_mobilev2_legacy",  # linear bottlenecks
        "qcfs_varied_incep_legacy",  # a max-pool of spikes beside convolutions
        "brevitas_qonnx_bnn_legacy",  # levels that start below zero
        "tcl_vgg_legacy",  # grids that are not made for spikes of 1 give a sum that is rounded
        "fxint8_resnet_legacy",  # a quantiser of the input, on grids
    ],
)
def test_real_exports(name: str, tmp_path: Path) -> None:
    from_corpus(name, tmp_path / "ann.onnx")
    result = na_convert.convert(tmp_path / "ann.onnx", output=tmp_path / "net.nir", check=False)
    assert result.nir is not None
    assert result.nir.other_counts == 0


def test_an_snn_on_grids_for_other_spikes_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path, snn = tmp_path / "ann.onnx", tmp_path / "net.snn.onnx"
    from_corpus("tcl_vgg_legacy", path)
    na_convert.convert(path, output=snn, check=False)
    with pytest.raises(NotConvertible, match="convert the ANN with --unit-spikes, or with -o NAME"):
        na_convert.export(snn)
    na_convert.convert(path, output=snn, check=False, unit_spikes=True)
    assert na_convert.export(snn).other_counts == 0


def test_the_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    path, snn = tmp_path / "ann.onnx", tmp_path / "net.snn.onnx"
    onnx.save(build.low_bit_ann(), path)
    made = na_convert.convert(path, output=tmp_path / "NET.NIR", check=False)
    assert made.nir is not None
    na_convert.convert(path, output=snn, check=False)
    found = na_convert.export(snn, output=tmp_path / "AGAIN.NIR")
    assert found.output.nodes == made.nir.output.nodes


def test_the_example(tmp_path: Path) -> None:
    to = tmp_path / "net.nir"
    result = na_convert.convert(EXAMPLE, output=to, check=False, nir_target="sinabs")
    assert result.nir is not None
    assert result.nir.other_counts == 0
    assert len(result.nir.layers) == 7
    nodes = nir.read(to).nodes
    assert {type(node).__name__ for node in nodes.values()} == {
        "Input", "Conv2d", "IF", "SumPool2d", "Flatten", "Affine", "Output",
    }  # fmt: skip


# --- what is in the file --------------------------------------------------------------------------


def test_neurons_have_unit_thresholds_in_full_shape(tmp_path: Path) -> None:
    found = exported(spiking.residual(), tmp_path)
    nodes = nir.read(tmp_path / "net.nir").nodes
    for layer in found.layers:
        node = nodes[layer.node]
        assert type(node).__name__ == "IF"
        assert node.v_threshold.shape == node.r.shape == node.v_reset.shape == layer.shape
        assert np.all(node.v_threshold == 1)
        assert np.all(node.r == 1)
        assert not np.any(node.v_reset)
        assert node.metadata["initial_membrane"] == 0.5


def test_metadata_say_what_the_file_is(tmp_path: Path) -> None:
    found = exported(
        spiking.residual(), tmp_path, target="norse", timesteps=4, initial_membrane="bias"
    )
    said = nir.read(tmp_path / "net.nir").metadata
    texts = {k: v.decode() if isinstance(v, bytes) else v for k, v in said.items()}
    assert texts["target"] == "norse"
    assert texts["timesteps"] == 4
    assert texts["initial_membrane"] == "bias"
    assert texts["statements"].split("\n") == list(found.statements)
    assert any("hard reset" in text for text in found.statements)


@pytest.mark.parametrize(
    ("network", "membrane", "same"),
    [
        ("residual", "metadata", True),
        ("residual", "pulse", True),
        ("residual", "bias", False),
        ("max_pool", "metadata", False),
        ("max_pool", "pulse", False),
    ],
)
def test_what_t_changes_in_a_file(network: str, membrane: str, same: bool, tmp_path: Path) -> None:
    graphs = []
    for timesteps in (2, 4):
        exported(
            spiking.NETWORKS[network](), tmp_path, initial_membrane=membrane, timesteps=timesteps
        )
        graphs.append(read_back.read(tmp_path / "net.nir"))
    assert [graph.metadata["timesteps"] for graph in graphs] == [2, 4]
    one, other = ({n: vars(op) for n, op in graph.ops.items()} for graph in graphs)
    assert same is (
        one.keys() == other.keys()
        and all(np.array_equal(one[n][key], other[n][key]) for n in one for key in one[n])
    )


def test_help_says_what_t_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "T of its max-pools, of bias and of the check" in shown


def test_a_target_says_where_two_branches_meet(tmp_path: Path) -> None:
    said = exported(spiking.residual(), tmp_path, target="sinabs").statements
    assert any("runs nodes depth first" in text and "'Staircase_4'" in text for text in said)
    said = exported(spiking.mlp(), tmp_path, target="sinabs").statements
    assert not any("runs nodes depth first" in text for text in said)


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    first = exported(on_grid("residual"), tmp_path).output.sha256
    assert exported(on_grid("residual"), tmp_path).output.sha256 == first


def test_slashes_in_names_are_no_paths(tmp_path: Path) -> None:
    snn = spiking.residual()
    for node in snn.graph.nodes:
        node.name = f"/block/{node.name}.act"
    renamed = tuple(type(n)(**{**n.__dict__, "name": f"/block/{n.name}.act"}) for n in snn.neurons)
    from dataclasses import replace

    from na_convert.snn import described

    found = exported(described(replace(snn, neurons=renamed)), tmp_path)
    assert all("/" not in layer.node and "." not in layer.node for layer in found.layers)
    assert all(layer.name.startswith("/block/") for layer in found.layers)
    node = nir.read(tmp_path / "net.nir").nodes[found.layers[0].node]
    assert node.metadata["onnx"] in (found.layers[0].name, found.layers[0].name.encode())


# --- refused, or wrong ----------------------------------------------------------------------------


def test_a_file_that_does_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*stages: object, **options: object) -> verification.Compared:
        figure = Figure("NIR counts", 3.0, 0.0, False, "3 of 9 counts differ")
        return verification.Compared((figure,), {}, {})

    monkeypatch.setattr(verification, "compare", wrong)
    with pytest.raises(CheckFailed, match="3 of 9 counts differ"):
        exported(spiking.residual(), tmp_path)
    assert not (tmp_path / "net.nir").exists()


@pytest.mark.parametrize("node", ["weight", "bias", "v_threshold"])
def test_a_change_in_the_file_is_found(
    node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = export.file.read

    def changed(path: Path) -> object:
        graph = read(path)
        one = next(n for n in graph.nodes.values() if hasattr(n, node))
        setattr(one, node, getattr(one, node) * np.float32(1.05))
        return graph

    monkeypatch.setattr(export.file, "read", changed)
    with pytest.raises(CheckFailed, match="NIR"):
        exported(spiking.residual(), tmp_path)


def test_other_thresholds_with_weights_to_match_are_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = export.file.read

    def doubled(path: Path) -> object:
        graph = read(path)
        for source, target in graph.edges:
            if hasattr(graph.nodes[target], "v_threshold"):
                graph.nodes[source].weight = graph.nodes[source].weight * np.float32(2)
                graph.nodes[source].bias = graph.nodes[source].bias * np.float32(2)
                graph.nodes[target].v_threshold = graph.nodes[target].v_threshold * np.float32(2)
        return graph

    monkeypatch.setattr(export.file, "read", doubled)
    assert exported(spiking.mlp(), tmp_path).other_counts == 0


def test_a_tie_excuses_its_own_sample_and_what_is_behind_it_alone() -> None:
    network = from_graph(nir_nets.layered())
    layers = {"first": "n1", "last": "n2"}
    ties = {"n1": np.array([0, 0, 0]), "n2": np.array([0, 1, 0])}
    seen = {name: verification.Layer(0, ties[name], 0.0) for name in ties}
    reached = verification.reached_by_ties(network, layers, seen)
    assert {name: each.tolist() for name, each in reached.items()} == {
        "first": [False, False, False], "last": [False, True, False],
    }  # fmt: skip
    spikes = {"first": np.ones((4, 3, 12)), "last": np.ones((4, 3, 8))}
    for layer, sample, passed in (("last", 1, True), ("last", 0, False), ("first", 1, False)):
        counts = {name: fired.sum(axis=0) for name, fired in spikes.items()}
        counts[layer][sample, 0] = 3
        assert verification.counts_figure(counts, spikes, reached).passed == passed
    seen["n1"] = verification.Layer(0, np.array([1, 0, 0]), 0.0)
    reached = verification.reached_by_ties(network, layers, seen)
    assert reached["last"].tolist() == [True, True, False]


def test_nodes_that_nir_cannot_hold_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = spiking.FIRST + "c2 = ConvTranspose (a1, w2)\n" + build.stair("c2", "last")
    file = snn_file(spiking.network(body + spiking.HEAD, spiking.SHAPES), tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(file), "-o", str(tmp_path / "net.nir")])
    assert stopped.value.code == 1
    shown = capsys.readouterr().err
    assert "Not in NIR" in shown
    assert "error: 'ConvTranspose_2' (ConvTranspose) cannot be written to NIR" in shown
    assert not (tmp_path / "net.nir").exists()


def test_what_a_target_does_not_read_is_refused(tmp_path: Path) -> None:
    body = (
        "c1 = Conv <pads: ints = [1,1]> (x, w)\n" + build.quantised("c1", "last")
        + "f = Flatten (last)\ny = Gemm <transB: int = 1> (f, v)"
    )  # fmt: skip
    path = tmp_path / "ann.onnx"
    weights = {**build.PLAIN, "w": (4, 3, 3), "v": (5, 32)}
    onnx.save(build.model(body, weights, inputs="float[N,3,8] x"), path)
    na_convert.convert(path, output=tmp_path / "generic.nir")
    with pytest.raises(NotConvertible, match=r"'Conv_0' \(Conv1d\).* for sinabs") as error:
        na_convert.convert(path, output=tmp_path / "net.nir", nir_target="sinabs")
    assert error.value.refused[0].op == "Conv1d"


@pytest.mark.parametrize(
    ("target", "node", "reason"),
    [
        ("lava", "Conv_0", "it reads no bias of a Conv2d"),
        ("spinnaker2", "x", "its Input is a list of spikes"),
        ("spinnaker2", "Gemm_11", "its Output is spikes"),
    ],
)
def test_hardware_is_refused_what_its_converter_does_not_read(
    target: str, node: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(NotConvertible) as error:
        exported(spiking.residual(), tmp_path, target=target)
    reasons = {refusal.node: refusal.reason for refusal in error.value.refused}
    assert reason in reasons[node]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nir_target": "sinabs"}, "are for NIR files"),
        ({"output": "net.nir", "form": "unrolled"}, "has no --form"),
        ({"output": "net.nir", "weights": "int8"}, "has no --form"),
        (
            {"output": "net.nir", "nir_target": "brian"},
            "--target brian: no such choice",
        ),
        (
            {"output": "net.nir", "initial_membrane": "zero"},
            "choose from metadata, pulse, bias",
        ),
    ],
)
def test_options_that_do_not_fit(options: dict[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "ann.onnx"
    onnx.save(build.low_bit_ann(), path)
    given = {k: str(tmp_path / v) if k == "output" else v for k, v in options.items()}
    with pytest.raises(UsageError, match=message):
        na_convert.convert(path, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("membrane", ["metadata", "pulse"])
def test_max_pools_are_neurons_for_up_to_t_steps(membrane: str, tmp_path: Path) -> None:
    found = exported(spiking.max_pool(), tmp_path, initial_membrane=membrane, timesteps=4)
    assert found.other_counts == 0
    assert "made for up to 4 time steps" in found.statements[0]


@pytest.mark.parametrize("membrane", ["metadata", "pulse"])
def test_a_file_with_max_pools_counts_otherwise_at_each_t_that_it_is_not_run_for(
    membrane: str, tmp_path: Path
) -> None:
    snn, path = spiking.max_pool(), tmp_path / "net.nir"
    x = spiking.samples(snn, 4)["x"]
    found = exported(snn, tmp_path, initial_membrane=membrane, timesteps=4)
    network, behind = read_back.read(path), found.layers[-1]
    for steps in range(1, 9):
        wanted = numpy_engine(snn, steps, [behind.name], np.float64)({"x": x}).spikes[behind.name]
        counts = counted(path, x, steps)[behind.node]
        same = np.array_equal(counts, np.count_nonzero(wanted, axis=0))
        assert same == (steps <= 4)
        with nullcontext() if same else pytest.raises(UsageError, match="for up to 4 time steps"):
            assert timesteps_for(network, path, steps) == steps


def test_a_bias_would_make_them_fire_again(tmp_path: Path) -> None:
    with pytest.raises(NotConvertible, match="a bias would make fire again"):
        exported(spiking.max_pool(), tmp_path, initial_membrane="bias")


def test_an_int8_file_is_refused(tmp_path: Path) -> None:
    path, snn = tmp_path / "ann.onnx", tmp_path / "snn.onnx"
    onnx.save(build.low_bit_ann(), path)
    na_convert.convert(path, output=snn, weights="int8", check=False)
    with pytest.raises(NotConvertible, match="computes on counts of spikes"):
        na_convert.export(snn)


@pytest.mark.parametrize("form", ["unrolled", "step"])
def test_any_form_of_a_file_is_written(form: str, tmp_path: Path) -> None:
    path, snn = tmp_path / "ann.onnx", tmp_path / "net.snn.onnx"
    onnx.save(build.low_bit_ann(), path)
    na_convert.convert(path, output=snn, form=form, exact=True, check=False)
    assert na_convert.export(snn).other_counts == 0
    assert (tmp_path / "net.nir").is_file()


def test_a_pulse_does_not_last_for_ever(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="up to 1023 steps"):
        exported(spiking.mlp(), tmp_path, timesteps=1024, initial_membrane="pulse")
    found = exported(spiking.mlp(), tmp_path, timesteps=3, initial_membrane="pulse")
    assert "up to 1,023 time steps" in found.statements[0]
    network = read_back.read(tmp_path / "net.nir")
    assert timesteps_for(network, "net.nir", 1023) == 1023
    with pytest.raises(UsageError, match="lasts for up to 1,023 time steps, and T is 1,024"):
        timesteps_for(network, "net.nir", 1024)


def test_a_nir_file_is_not_read_as_a_model(tmp_path: Path) -> None:
    exported(spiking.mlp(), tmp_path)
    for read in (na_convert.convert, na_convert.inspect, na_convert.export):
        with pytest.raises(ModelError, match="writes NIR and reads ONNX") as error:
            read(tmp_path / "net.nir")
        assert error.value.exit_code == 2


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_what_a_reader_has_to_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = snn_file(spiking.residual(), tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(file), "--target", "snntorch", "-T", "4"])
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "net.nir").exists()
    assert "beta = 0.9" in shown
    assert "measured: 0.0 % of the counts differ" in shown
    assert "for snntorch, all checks passed" in shown


def test_json_fits_the_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = snn_file(spiking.residual(), tmp_path)
    with pytest.raises(SystemExit):
        main(["export", str(file), "--json", "-o", str(tmp_path / "net.nir")])
    entries = json.loads(capsys.readouterr().out)
    jsonschema.validate(entries, {**SCHEMA, "oneOf": [{"$ref": "#/$defs/export"}]})
    jsonschema.validate(entries, SCHEMA)
    assert entries["output"]["nodes"]["IF"] == 3


def test_without_the_package_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nir", None)
    with pytest.raises(UsageError, match=r"pip install 'na-convert\[nir\]'"):
        exported(spiking.mlp(), tmp_path)
