"""A reader's deviations are caught and named: readers that deviate by construction."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from na_convert.choices import NIR_TARGETS
from na_convert.errors import ModelError, UsageError
from na_convert.nir_file import file, read_back, targets
from na_convert.nir_file.law import OURS, Law, describe, fire
from na_convert.nir_file.read_back import Network, from_graph
from na_convert.nir_file.simulate import Deviation, Recording, simulate
from na_convert.nir_readers import readers
from na_convert.nir_readers.compare import Comparison, compare, reference_for
from na_convert.nir_readers.law_search import candidates
from na_convert.nir_readers.readers import Reader

from . import nir_nets

FILE = Path("net.nir")


def fake(network: Network, deviation: Deviation) -> Reader:
    """A reader that differs from ours by ``deviation`` alone."""

    def run(path: Path, inputs: Any, neurons: Mapping[str, Any]) -> Recording:
        return simulate(network, inputs, deviation, dtype=np.float32)

    return Reader("fake", "1.0", run)


def outcome(graph: Any, shape: tuple[int, ...], reader: Any, steps: int = 4) -> Comparison:
    """What `compare` says of ``reader``, a deviation or a function from network to Reader."""
    network = from_graph(graph)
    reference = reference_for(network, [nir_nets.images(shape, steps)])
    made = fake(network, reader) if isinstance(reader, Deviation) else reader(network)
    return compare(FILE, network, made, reference)


# --- neurons --------------------------------------------------------------------------------------


def test_our_own_neurons_are_identical() -> None:
    found = outcome(nir_nets.residual(), (2, 6, 6), Deviation())
    assert (found.verdict, found.causes, found.output_error) == ("identical", (), 0)
    assert [layer.layer for layer in found.layers] == ["n1", "n2", "n3"]
    assert all(layer.counts == 3 * 4 * 6 * 6 and layer.spikes > 0 for layer in found.layers)
    assert all(layer.differ == layer.own == layer.unexplained == 0 for layer in found.layers)


LAWS = {
    "reset to zero, not by subtraction": Law(reset="zero"),
    "subtracts once more before it fires where the membrane stayed above the threshold": Law(
        reset="twice"
    ),
    "fires above the threshold, not at it": Law(strict=True),
    "several spikes in one step": Law(many=True),
    "membrane clipped below at 0 thresholds": Law(floor=0.0),
    "membrane clipped below at -1 thresholds": Law(floor=-1.0),
    "leak: 0.9 of the membrane is left after a step": Law(leak=0.9),
    "starts at 0, not at the membrane that the file asks for": Law(blank=True),
}


@pytest.mark.parametrize("words", LAWS)
def test_a_neuron_that_deviates_is_named(words: str) -> None:
    found = outcome(nir_nets.residual(), (2, 6, 6), Deviation(LAWS[words]))
    assert found.verdict == "deviates"
    assert [cause.what for cause in found.causes] == [words]
    assert found.causes[0].alone == sum(layer.differ for layer in found.layers) > 0
    assert sum(layer.own for layer in found.layers) > 0
    assert all(layer.unexplained == 0 for layer in found.layers)


def test_every_deviation_has_words_of_its_own() -> None:
    laws = [law for law in candidates() if len(law.deviations) == 1]
    words = {describe(law, law.deviations[0]) for law in laws}
    assert len(words) == len(laws)
    assert words >= set(LAWS)


@pytest.mark.parametrize(
    "law",
    [Law(reset="zero", strict=True), Law(many=True, floor=-1.0), Law(reset="twice", leak=0.9)],
)
def test_deviations_together_are_all_named(law: Law) -> None:
    found = outcome(nir_nets.residual(), (2, 6, 6), Deviation(law))
    words = [describe(law, name) for name in law.deviations]
    assert [cause.what for cause in found.causes] == words
    assert all(layer.unexplained == 0 for layer in found.layers)


def test_a_deviation_that_few_neurons_show_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties are rare: the law is looked for on neurons that the law up to then does not explain."""
    monkeypatch.setattr("na_convert.nir_readers.law_search._SHOWN", 5)
    law = Law(reset="zero", strict=True)
    found = outcome(nir_nets.residual(), (2, 6, 6), Deviation(law))
    assert [cause.what for cause in found.causes] == [describe(law, n) for n in law.deviations]


def test_a_neuron_unlike_any_known_is_said_to_be_so() -> None:
    def refractory(network: Network) -> Reader:
        def run(path: Path, inputs: Any, neurons: Mapping[str, Any]) -> Recording:
            seen = simulate(network, inputs, dtype=np.float32)
            spikes = {name: fired.copy() for name, fired in seen.spikes.items()}
            for fired in spikes.values():
                fired[1:] *= 1 - fired[:-1]  # silent after a spike
            return replace(simulate(network, inputs, given=spikes, dtype=np.float32), spikes=spikes)

        return Reader("fake", "1.0", run)

    found = outcome(nir_nets.layered(), (6,), refractory)
    assert found.verdict == "deviates"
    assert any("none of those known here" in cause.what for cause in found.causes)
    assert sum(layer.unexplained for layer in found.layers) > 0


def test_float_sums_in_another_order_are_no_deviation() -> None:
    """Ten times 0.1 reaches 1 in float32, not in float64: neuron and current are ours."""
    nir = nir_nets.STAND_IN
    nodes = {
        "input": nir.Input(),
        "first": nir.Affine(weight=np.full((1, 1), 0.1, np.float32), bias=np.zeros(1)),
        "n1": nir_nets.neurons(nir, (1,), initial=0.0),
        "output": nir.Output(),
    }
    nodes["first"].weight = np.full((1, 1), 0.1)
    network = from_graph(nir.NIRGraph(nodes, nir_nets.chain(*nodes)))
    reference = reference_for(network, [np.ones((10, 1, 1))])
    found = compare(FILE, network, fake(network, Deviation()), reference)
    assert (found.verdict, found.causes) == ("rounding", ())
    assert (found.layers[0].spikes, found.layers[0].reader_spikes) == (0, 1)


def test_what_a_rounded_first_current_does_behind_it_is_explained() -> None:
    """A spike that float moves in the first layer moves others, and nothing is unexplained."""
    network = from_graph(nir_nets.layered())
    reference = reference_for(network, [nir_nets.images((6,))])

    def nudged(path: Path, inputs: Any, neurons: Mapping[str, Any]) -> Recording:
        plain = simulate(network, inputs, dtype=np.float32)
        stem = {"n1": plain.currents["n1"] * np.float32(1 - 1e-6)}  # ties become misses
        return simulate(network, inputs, stem=stem, dtype=np.float32)

    found = compare(FILE, network, Reader("fake", "1.0", nudged), reference)
    assert (found.verdict, found.causes) == ("rounding", ())
    assert all(layer.differ > 0 for layer in found.layers)
    assert [layer.rounded > 0 for layer in found.layers] == [True, False]
    assert all(layer.unexplained == layer.own == 0 for layer in found.layers)


def test_laws_by_hand() -> None:
    """Threshold 1, start 1/2: what each law fires under 1, 1, 3/2, -3, 3/2, 3/2 is worked out."""
    currents = np.array([1, 1, 1.5, -3, 1.5, 1.5])
    expected = {
        OURS: [1, 1, 1, 0, 0, 1],
        Law(reset="zero"): [1, 1, 1, 0, 0, 0],
        Law(strict=True, blank=True): [0, 1, 1, 0, 0, 1],
        Law(many=True): [1, 1, 2, 0, 0, 0],
        Law(floor=0.0): [1, 1, 1, 0, 1, 1],
        Law(leak=0.5): [1, 1, 1, 0, 0, 1],
    }
    for law, fired in expected.items():
        found = fire(law, currents[:, None], np.ones(1), np.full(1, 0.5))
        assert found[:, 0].tolist() == fired, law


# --- the graph ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["left_out", "late"])
def test_two_branches_that_are_lost_are_both_named(how: str) -> None:
    graph = nir_nets.residual()
    graph.nodes["more"] = nir_nets.conv(nir_nets.STAND_IN, np.random.default_rng(5), 4, 4, 1)
    graph.edges += [("n2", "more"), ("more", "n3")]
    edges: dict[str, Any] = {how: frozenset([("shortcut", "n3"), ("more", "n3")])}
    found = outcome(graph, (2, 6, 6), Deviation(**edges))
    assert [cause.what.split(" gives ")[0] for cause in found.causes] == [
        "what 'more'", "what 'shortcut'"
    ]  # fmt: skip
    assert all(layer.unexplained == 0 for layer in found.layers)


@pytest.mark.parametrize(("how", "words"), [("left_out", "is left out"), ("late", "a step late")])
def test_a_branch_that_is_lost_is_named(how: str, words: str) -> None:
    edges: dict[str, Any] = {how: frozenset([("shortcut", "n3")])}
    found = outcome(nir_nets.residual(), (2, 6, 6), Deviation(**edges))
    (cause,) = found.causes
    assert cause.what.startswith("what 'shortcut' gives 'n3'")
    assert words in cause.what
    assert (cause.node, cause.alone) == ("n3", found.layers[2].differ)
    assert [layer.own for layer in found.layers] == [0, 0, 0]
    assert [layer.differ > 0 for layer in found.layers] == [False, False, True]
    assert found.layers[2].unexplained == 0


def test_an_edge_that_might_be_left_out_is_late_where_another_is() -> None:
    """On a single step nothing tells the two apart; a second batch does."""
    network = from_graph(nir_nets.residual())
    reader = fake(network, Deviation(late=frozenset([("shortcut", "n3")])))
    inputs = nir_nets.images((2, 6, 6))
    for batches in ([inputs[:1], inputs], [inputs, inputs[:1]]):
        found = compare(FILE, network, reader, reference_for(network, batches))
        assert [c.what for c in found.causes] == ["what 'shortcut' gives 'n3' arrives a step late"]
        assert all(layer.unexplained == 0 for layer in found.layers)


def test_other_weights_show_as_other_currents() -> None:
    def doubled(network: Network) -> Reader:
        op: Any = network.ops["second"]
        ops = {**network.ops, "second": replace(op, weight=op.weight * 2)}
        return fake(replace(network, ops=ops), Deviation())

    found = outcome(nir_nets.layered(), (6,), doubled)
    (cause,) = found.causes
    assert cause.what.startswith("the currents of 'n2' are others, by ")
    assert cause.node == "n2"
    assert found.layers[1].current_error > 0.1


def test_an_output_of_another_node_is_named() -> None:
    def early(network: Network) -> Reader:
        def run(path: Path, inputs: Any, neurons: Mapping[str, Any]) -> Recording:
            seen = simulate(network, inputs, dtype=np.float32)
            return replace(seen, output=seen.values["second"])

        return Reader("fake", "1.0", run)

    found = outcome(nir_nets.layered(), (6,), early)
    assert [cause.what for cause in found.causes] == ["returns what 'second' gives"]
    assert (found.output_error, found.outputs) == (None, None)


def test_a_reader_that_raises_fails_with_what_it_said() -> None:
    def run(path: Path, inputs: Any, neurons: Mapping[str, Any]) -> Recording:
        raise TypeError("linear(): argument 'input'\nmust be Tensor, not tuple")

    found = outcome(nir_nets.layered(), (6,), lambda network: Reader("fake", "1.0", run))
    assert found.verdict == "fails"
    assert found.error == "TypeError: linear(): argument 'input' must be Tensor, not tuple"


def test_layers_of_another_shape_fail_by_name() -> None:
    def run(path: Path, inputs: Any, neurons: Mapping[str, Any]) -> Recording:
        seen = simulate(from_graph(nir_nets.layered()), inputs, dtype=np.float32)
        return replace(seen, spikes={**seen.spikes, "n2": seen.spikes["n2"][..., :-1]})

    found = outcome(nir_nets.layered(), (6,), lambda network: Reader("fake", "1.0", run))
    assert found.error == "ValueError: spikes of 'n2' have the shape [7], not [8]"


def test_batches_add_up() -> None:
    network = from_graph(nir_nets.residual())
    inputs = nir_nets.images((2, 6, 6), samples=5)
    parts = [inputs[:, :2], inputs[:, 2:4], inputs[:, 4:]]
    reader = fake(network, Deviation(Law(reset="zero")))
    whole = compare(FILE, network, reader, reference_for(network, [inputs]))
    split = compare(FILE, network, reader, reference_for(network, parts))
    assert split.layers == whole.layers
    assert split.causes == whole.causes
    assert whole.outputs is not None
    np.testing.assert_array_equal(split.outputs, whole.outputs)


# --- files ----------------------------------------------------------------------------------------


def test_layers_are_called_as_in_the_snn() -> None:
    graph = nir_nets.layered()
    graph.nodes["n1"].metadata["onnx"] = "/act/first"
    assert from_graph(graph).neurons["n1"].layer == "/act/first"
    graph.nodes["n1"].metadata["onnx"] = b"/act/first"  # as some versions of nir read it
    assert from_graph(graph).neurons["n1"].layer == "/act/first"
    assert from_graph(graph).neurons["n2"].layer == "n2"


def _with_scale(graph: Any) -> None:
    graph.nodes["second"] = nir_nets.STAND_IN.Scale(scale=np.ones(12))


def _with_cycle(graph: Any) -> None:
    graph.edges.append(("n2", "first"))


def _with_groups(graph: Any) -> None:
    weight = np.ones((8, 12, 1), np.float32)
    graph.nodes["second"] = nir_nets.STAND_IN.Conv1d(
        weight=weight, bias=np.zeros(8), stride=1, padding=0, dilation=1, groups=2
    )


def _without_input(graph: Any) -> None:
    del graph.nodes["input"]
    graph.edges = [edge for edge in graph.edges if "input" not in edge]


def _with_edge_twice(graph: Any) -> None:
    graph.edges.append(("n2", "readout"))


def _with_edge_to_nowhere(graph: Any) -> None:
    graph.edges.append(("n2", "gone"))


def _with_resistance(graph: Any) -> None:
    graph.nodes["n2"].r = np.full(8, 0.5)


def _with_half_flatten(graph: Any) -> None:
    graph.nodes["second"] = nir_nets.STAND_IN.Flatten(start_dim=2, end_dim=-1)


def test_thresholds_that_are_not_above_zero_are_refused() -> None:
    graph = nir_nets.layered()
    graph.nodes["n2"].v_threshold = np.zeros(8)
    with pytest.raises(ModelError, match="'n2' has thresholds that are not above 0"):
        from_graph(graph, "net.nir")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_with_scale, "'second' is a Scale"),
        (_with_cycle, "its nodes form a cycle"),
        (_without_input, "0 Input and 1 Output nodes"),
        (_with_groups, "'second' has groups or dilation"),
        (_with_edge_twice, "an edge stands there twice"),
        (_with_edge_to_nowhere, "an edge to 'gone', which is no node"),
        (_with_resistance, "'n2' has r other than 1"),
        (_with_half_flatten, "'second' flattens some axes alone"),
    ],
)
def test_files_of_others_are_refused(change: Any, words: str) -> None:
    graph = nir_nets.layered()
    change(graph)
    with pytest.raises(ModelError, match="only files of `na-convert export` are read") as found:
        from_graph(graph, "net.nir")
    assert str(found.value).startswith(f"net.nir: {words}")


def test_without_the_package_nir_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(UsageError, match=r"need the package nir \(.*\): pip install 'na-"):
        read_back.read(FILE)


def test_a_package_nir_that_is_too_old_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nir", SimpleNamespace(version="1.0.4"))
    with pytest.raises(
        UsageError, match=r"nir 1\.0\.4 is older than 1\.0\.8, which NIR files need: pip install"
    ):
        read_back.read(FILE)


def test_the_oldest_nir_is_the_one_that_the_extra_asks_for() -> None:
    asked = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    assert f'"nir>={file.OLDEST}"' in asked


# --- which readers --------------------------------------------------------------------------------


def test_the_targets_are_those_that_options_know() -> None:
    assert tuple(targets.TARGETS) == NIR_TARGETS


def test_a_reader_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="no such reader: did you mean sinabs"):
        readers.find("sinab")
    with pytest.raises(UsageError, match="--reader lava: no such reader: choose from norse, "):
        readers.find("lava")


def test_a_reader_that_is_missing_is_an_error_when_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readers, "find_spec", lambda name: None if name == "sinabs" else name)
    with pytest.raises(UsageError, match="--reader sinabs: sinabs not installed: pip install"):
        readers.find("sinabs")
    monkeypatch.setattr(readers, "find_spec", lambda name: None)
    assert readers.installed() == ([], list(readers.NAMES))
