"""The ladder: what passes, and sabotage, each caught at its layer and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from na_convert.passes import fold_batchnorm, reorder_maxpool, to_spiking

from na_convert import batches
from na_convert.activation import Staircase
from na_convert.data import Samples
from na_convert.errors import CheckFailed, PassFailed
from na_convert.forms.folded import to_folded
from na_convert.graph import Carried
from na_convert.layers import in_groups, match_layers
from na_convert.results import Equivalence
from na_convert.round_trip import round_trip
from na_convert.shapes import of_one_sample
from na_convert.snn import Snn
from na_convert.teacher_forcing import teacher_forced_error

from . import build
from .verifying import verify

T = 3


class Stages:
    """A network at each stage of its conversion."""

    def __init__(self, ann: gs.Graph, carried: Carried, folded: gs.Graph | None = None) -> None:
        self.ann = ann
        self.staircase_ann = self._passes(ann.copy())
        graph = self._passes(ann.copy() if folded is None else folded)
        names = [a.outputs[0].name for a in to_spiking.choose_neurons(graph)[0]]
        shapes = of_one_sample(graph, carried, {"x": build.images()}, names)
        found = to_spiking.run(graph, shapes)
        assert not found.report.refused
        self.snn = Snn(graph, found.neurons, T, carried)

    @staticmethod
    def _passes(graph: gs.Graph) -> gs.Graph:
        fold_batchnorm.run(graph)
        reorder_maxpool.run(graph)
        return graph

    def verify(self, count: int = 8, **kwargs: object) -> Equivalence:
        x = build.images(count, seed=5)
        labels = np.arange(count) % 5
        samples = Samples({"x": x}, labels, "random numbers")
        folded = to_folded(self.snn)
        return verify(self.ann, self.staircase_ann, self.snn, folded, samples, **kwargs)  # type: ignore[arg-type]


def network() -> tuple[gs.Graph, Carried]:
    """Stem with max-pool, a residual block with a max-pool on its spikes, and a readout."""
    rng = np.random.default_rng(3)
    weights: dict = {**build.PLAIN, "w1": (6, 3, 3, 3), "w2": (6, 6, 3, 3), "w3": (6, 6, 3, 3)}
    weights |= {"w4": (5, 6), "b4": rng.normal(size=5).astype(np.float32)}
    for i in (1, 2, 3):
        weights |= {
            f"g{i}": rng.uniform(0.5, 1.5, 6).astype(np.float32),
            f"b{i}": rng.normal(0.1, 0.3, 6).astype(np.float32),
            f"m{i}": rng.normal(0, 0.3, 6).astype(np.float32),
            f"v{i}": rng.uniform(0.1, 1, 6).astype(np.float32),
        }
    body = (
        "c1 = Conv <pads: ints = [1,1,1,1]> (x, w1)\n"
        "n1 = BatchNormalization (c1, g1, b1, m1, v1)\n"
        + build.stair("n1", "a1")
        + "p1 = MaxPool <kernel_shape: ints = [2,2], strides: ints = [1,1]> (a1)\n"
        "c2 = Conv <pads: ints = [1,1,1,1]> (p1, w2)\n"
        "n2 = BatchNormalization (c2, g2, b2, m2, v2)\nr2 = Add (n2, p1)\n"
        + build.stair("r2", "a2")
        + "p2 = MaxPool <kernel_shape: ints = [2,2], strides: ints = [2,2]> (a2)\n"
        "c3 = Conv <pads: ints = [1,1,1,1]> (p2, w3)\n"
        "n3 = BatchNormalization (c3, g3, b3, m3, v3)\n"
        + build.stair("n3", "a3")
        + "m = GlobalAveragePool (a3)\nf = Flatten (m)\ny = Gemm <transB: int = 1> (f, w4, b4)"
    )
    return build.graph(body, weights)


@pytest.fixture
def stages() -> Stages:
    return Stages(*network())


def test_a_correct_conversion_climbs_the_ladder(stages: Stages) -> None:
    shares: list[float] = []
    found = stages.verify(40, timesteps=(1, 2, 8), progress=shares.append)
    assert all(figure.passed for figure in found.figures)
    assert found.replay_mismatches == 0
    assert found.engine_differences == 0
    assert [row.T for row in found.by_timestep] == [1, 2, 3, 8]
    assert [layer.name for layer in found.layers] == [n.name for n in stages.snn.neurons]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    names = [figure.name for figure in found.figures]
    for rung in (
        "replay",
        "replay currents",
        "round trip",
        "engines",
        "charge",
        "constant current",
    ):
        assert rung in names


def test_layers_are_described(stages: Stages) -> None:
    found = stages.verify()
    for layer in found.layers:
        assert layer.exercised
        assert layer.at_lowest + layer.between + layer.at_highest == pytest.approx(1)
        assert 0 < layer.spike_rate < 1
    first, *later = found.layers
    assert (first.unevenness, first.occasional) == (0, 0)  # its current is constant
    assert first.mean_error == pytest.approx(0, abs=1e-6)  # and T is its number of levels
    assert any(layer.unevenness > 0 for layer in later)


def test_a_network_too_large_to_be_recorded_at_once_is_checked_in_groups(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = match_layers(stages.snn, stages.staircase_ann)
    assert [len(g) for g in in_groups(layers, layers[0].size + layers[1].size)] == [2, 1]
    whole = stages.verify(3)
    monkeypatch.setattr(batches, "MEMORY", 1)
    groups = stages.verify(3)
    assert len(in_groups(layers, batches.neurons_at_once(copies=1))) == 3
    assert groups.replay_mismatches == groups.engine_differences == 0
    assert groups.by_class == whole.by_class
    for one, other in zip(whole.figures, groups.figures, strict=True):
        assert one.name == other.name
        assert other.passed
        assert other.limit == pytest.approx(one.limit, rel=0.5)  # measured with other random noise


def test_in_groups_sabotage_is_named_too(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MEMORY", 1)
    drop_bias(stages.snn)
    with pytest.raises(CheckFailed, match="replay: ") as caught:
        stages.verify()
    assert caught.value.node == stages.snn.neurons[1].name


def test_longer_runs_are_closer(stages: Stages) -> None:
    rows = stages.verify(timesteps=(1, 64)).by_timestep
    assert rows[-1].logit_rmse < rows[0].logit_rmse
    assert all(row.ann_accuracy == rows[0].ann_accuracy for row in rows)


def test_without_labels_there_is_no_accuracy(stages: Stages) -> None:
    samples = Samples({"x": build.images(4)}, None, "random numbers")
    found = verify(stages.ann, stages.staircase_ann, stages.snn, to_folded(stages.snn), samples)
    assert found.by_timestep[0].ann_accuracy is None
    assert found.by_timestep[0].snn_accuracy is None


def test_a_layer_without_levels_between_is_not_exercised() -> None:
    graph, carried = network()
    step = graph.tensors()["step"]
    step.values = np.asarray(1000.0, np.float32)  # nothing ever reaches the first level
    found = Stages(graph, carried).verify()
    assert not any(layer.exercised for layer in found.layers)
    replay = next(f for f in found.figures if f.name == "replay")
    assert "not exercised" in replay.detail


# --- sabotage: each is caught by the replay, and the layer is named -------------------------------


def weights_of(graph: gs.Graph, output: str, position: int) -> gs.Constant:
    """A constant of its own for an input of the node that computes ``output``."""
    (node,) = graph.tensors()[output].inputs
    copy = gs.Constant(f"{output}_sabotaged", np.array(node.inputs[position].values))
    node.inputs[position] = copy
    return copy


def neuron_node(snn: Snn, index: int) -> gs.Node:
    return next(n for n in snn.graph.nodes if n.name == snn.neurons[index].name)


def drop_bias(snn: Snn) -> None:
    weights_of(snn.graph, "n2", 2).values *= 0


def scale_weights(snn: Snn) -> None:
    weights_of(snn.graph, "n2", 1).values *= np.float32(1.5)


def nudge_weights(snn: Snn) -> None:
    weights_of(snn.graph, "n2", 1).values *= np.float32(1 + 1e-5)


def empty_membrane(snn: Snn) -> None:
    neuron_node(snn, 1).attrs["initial"] = 0.0


def halve_threshold(snn: Snn) -> None:
    neuron_node(snn, 1).attrs["threshold"] /= 2


def double_amplitude(snn: Snn) -> None:
    neuron_node(snn, 1).attrs["amplitude"] *= 2


SABOTAGE: dict[str, tuple[Callable[[Snn], None], str]] = {
    "bias dropped": (drop_bias, "replay: "),
    "weights times 1.5": (scale_weights, "replay: "),
    "weights off by 1e-5": (nudge_weights, "replay"),
    "initial membrane 0": (empty_membrane, "replay: "),
    "threshold halved": (halve_threshold, "replay: "),
    "amplitude doubled": (double_amplitude, "neuron parameters: "),
}


@pytest.mark.parametrize("case", SABOTAGE)
def test_sabotage_is_caught_at_its_layer(stages: Stages, case: str) -> None:
    sabotage, rung = SABOTAGE[case]
    sabotage(stages.snn)
    with pytest.raises(CheckFailed) as caught:
        stages.verify()
    name = stages.snn.neurons[1].name
    assert caught.value.node == name
    assert caught.value.message.startswith(rung)
    assert repr(name) in caught.value.message


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_batchnorm_folded_without_its_epsilon_is_caught(layer: int) -> None:
    graph, carried = network()
    wrong = graph.copy()
    (node,) = wrong.tensors()[f"n{layer + 1}"].inputs
    node.attrs["epsilon"] = 0.0
    stages = Stages(graph, carried, wrong)
    with pytest.raises(CheckFailed, match="replay") as caught:
        stages.verify()
    assert caught.value.node == stages.snn.neurons[layer].name


def test_a_wrong_readout_is_caught(stages: Stages) -> None:
    weights_of(stages.snn.graph, "y", 2).values *= 0
    with pytest.raises(CheckFailed, match="readout: ") as caught:
        stages.verify()
    assert caught.value.node == "y"


def test_a_wrong_staircase_is_caught(stages: Stages) -> None:
    """The SNN and the staircases agree with each other, and not with the ANN."""
    graph, carried = network()
    (node,) = graph.tensors()["a2"].inputs
    node.attrs["levels"] = 2
    wrong = Stages(graph, carried)
    wrong.ann = stages.ann
    with pytest.raises(CheckFailed) as caught:
        wrong.verify()
    assert caught.value.node == stages.snn.neurons[1].name


def test_the_round_trip_counts_flips(stages: Stages) -> None:
    layers = match_layers(stages.snn, stages.staircase_ann)
    feeds = [{"x": build.images(8)}]
    given = (stages.ann, stages.staircase_ann, stages.snn.carried)
    assert round_trip(*given, layers, feeds).passed
    function = layers[1].function
    assert isinstance(function, Staircase)
    shifted = replace(layers[1], function=replace(function, phase=function.phase + 0.125))
    figure = round_trip(*given, [layers[0], shifted, layers[2]], feeds)
    assert figure.value > 0
    assert not figure.passed
    assert figure.node == shifted.name


def test_a_file_that_differs_from_its_description_is_caught(stages: Stages) -> None:
    model = to_folded(stages.snn)
    node = next(n for n in model.graph.node if n.name == stages.snn.neurons[1].name)
    threshold = next(a for a in node.attribute if a.name == "threshold")
    threshold.f *= 1.25
    samples = Samples({"x": build.images(8)}, None, "random numbers")
    with pytest.raises(CheckFailed, match="engines: ") as caught:
        verify(stages.ann, stages.staircase_ann, stages.snn, model, samples)
    assert caught.value.node == stages.snn.neurons[1].name


def test_another_networks_snn_is_refused(stages: Stages) -> None:
    strange = tuple(replace(n, output=f"other_{n.output}") for n in stages.snn.neurons)
    stages.snn = replace(stages.snn, neurons=strange)
    with pytest.raises(CheckFailed, match="no activation 'other_") as caught:
        stages.verify()
    assert caught.value.node == strange[0].name


# --- one pass: before and after -------------------------------------------------------------------


def test_folding_is_within_rounding() -> None:
    graph, carried = network()
    folded = graph.copy()
    fold_batchnorm.run(folded)
    found = teacher_forced_error(graph, folded, carried, {"x": build.images()})
    assert 0 < found.max_rel < 1e-5


def test_a_change_is_found_where_it_is() -> None:
    graph, carried = network()
    changed = graph.copy()
    weights_of(changed, "c2", 1).values *= np.float32(1.01)
    found = teacher_forced_error(graph, changed, carried, {"x": build.images()})
    assert found.where == "r2"
    assert 1e-3 < found.max_rel < 0.1


def test_a_flip_does_not_cascade() -> None:
    """One activation jumps elsewhere; what follows is fed the former value, and is unchanged."""
    graph, carried = network()
    changed = graph.copy()
    (node,) = changed.tensors()["a1"].inputs
    node.inputs[4] = gs.Constant("phase", np.asarray(0.45, np.float32))
    found = teacher_forced_error(graph, changed, carried, {"x": build.images()})
    assert found.max_abs == 0


def test_a_lost_output_is_an_error() -> None:
    graph, carried = network()
    changed = graph.copy()
    changed.outputs[0].name = "z"
    with pytest.raises(PassFailed, match="output 'y' is missing"):
        teacher_forced_error(graph, changed, carried, {"x": build.images()})


def test_another_shape_is_an_error() -> None:
    graph, carried = network()
    changed = graph.copy()
    (node,) = changed.tensors()["f"].inputs
    node.attrs["axis"] = 0
    (gemm,) = changed.tensors()["y"].inputs
    gemm.op, gemm.attrs, gemm.inputs = "Identity", {}, [gemm.inputs[0]]
    with pytest.raises(PassFailed, match="'y' had shape"):
        teacher_forced_error(graph, changed, carried, {"x": build.images()})


def test_quantisers_that_onnxruntime_lacks_are_run_in_numpy() -> None:
    x, q, y = (gs.Variable(n, np.float32, ["N", 4]) for n in "xqy")
    values = {"s": 0.5, "z": 0.0, "b": 2.0, "two": 2.0}
    s, z, b, two = (gs.Constant(n, np.asarray(v, np.float32)) for n, v in values.items())
    attrs = {"signed": 0, "narrow": 0, "rounding_mode": "ROUND"}
    quant = gs.Node("Quant", "q", attrs, [x, s, z, b], [q], domain="qonnx.custom_op.general")
    graph = gs.Graph([quant, gs.Node("Mul", "m", {}, [q, two], [y])], [x], [y], opset=17)
    changed = graph.copy()
    changed.nodes[1].op = "Add"
    carried = Carried(9, "", "", "", {})
    feeds = {"x": build.images(2, (4,))}
    assert teacher_forced_error(graph, graph.copy(), carried, feeds).max_abs == 0
    assert teacher_forced_error(graph, changed, carried, feeds).where == "y"
