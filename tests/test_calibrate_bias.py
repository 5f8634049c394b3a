"""The bias fold: what it promises, on small networks, and that a wrong shift does not pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from na_convert.passes import calibrate_bias
from na_convert.passes.bias_shifts import Match, measure

import na_convert
from na_convert import model_io, pipeline
from na_convert.data import Samples
from na_convert.errors import CheckFailed, DataError
from na_convert.evaluate import evaluate
from na_convert.forms.folded import from_folded, to_folded
from na_convert.layers import match_layers
from na_convert.results import Equivalence
from na_convert.simulation import simulate
from na_convert.snn import Snn, recorded

from . import build
from .verifying import verify

T = 2
STEP = build.PLAIN

CHAIN = (
    "z1 = Conv <pads = [1,1,1,1]> (x, w1)\n"
    + build.stair("z1", "a1")
    + "z2 = Conv <pads = [1,1,1,1]> (a1, w2, b2)\n"
    + build.stair("z2", "a2")
    + "z3 = Conv (a2, w3)\n"
    + build.stair("z3", "a3")
    + "f = Flatten (a3)\ny = Gemm (f, v)\n"
)
CHAIN_WEIGHTS: dict = {
    **STEP, "w1": (6, 3, 3, 3), "w2": (6, 6, 3, 3), "w3": (4, 6, 3, 3), "v": (144, 5),
    "b2": np.linspace(-0.3, 0.3, 6, dtype=np.float32),
}  # fmt: skip

RESIDUAL = (
    "z1 = Conv <pads = [1,1,1,1]> (x, w1)\n"
    + build.stair("z1", "a1")
    + "z2 = Conv <pads = [1,1,1,1]> (a1, w2)\nr2 = Add (z2, a1)\n"
    + build.stair("r2", "a2")
    + "z3 = Conv <pads = [1,1,1,1]> (a2, w2)\nr3 = Add (z3, r2)\n"
    + build.stair("r3", "a3")
    + build.stair("r3", "b3", step="wide")
    + "s = Add (a3, b3)\nf = Flatten (s)\ny = Gemm (f, v)\n"
)
RESIDUAL_WEIGHTS: dict = {
    **STEP, "wide": 0.7, "w1": (6, 3, 3, 3), "w2": (6, 6, 3, 3), "v": (384, 5),
}  # fmt: skip

PER_CHANNEL = CHAIN.replace("step", "steps")
PER_CHANNEL_WEIGHTS: dict = {
    **CHAIN_WEIGHTS,
    "steps": np.linspace(0.2, 0.6, 6, dtype=np.float32).reshape(6, 1, 1),
    "w3": (6, 6, 3, 3),
    "v": (216, 5),
}

# Signed levels with a falling staircase: a gain of -1 and an offset on current and spikes.
SIGNED = CHAIN.replace("zero, half", "lowest, half").replace("step, step", "falling, step")
SIGNED_WEIGHTS: dict = {**CHAIN_WEIGHTS, "lowest": -1.0, "falling": -0.4}

MLP = (
    "m1 = MatMul (x, w1)\nz1 = Add (m1, b1)\n"
    + build.stair("z1", "a1")
    + "m2 = MatMul (a1, w2)\nz2 = Add (b1, m2)\n"
    + build.stair("z2", "a2")
    + "z3 = Gemm <beta = 2.0, transB = 1> (a2, w3, b1)\n"
    + build.stair("z3", "a3")
    + "z4 = MatMul (a3, w2)\n"
    + build.stair("z4", "a4")
    + "y = Gemm (a4, v)\n"
)
MLP_WEIGHTS: dict = {
    **STEP, "w1": (12, 16), "w2": (16, 16), "w3": (16, 16), "v": (16, 5),
    "b1": np.linspace(-0.2, 0.4, 16, dtype=np.float32),
}  # fmt: skip

# Max-pools on spikes, and activations without levels, whose neurons are exact only in the limit.
POOLS = (
    "z1 = Conv <pads = [1,1,1,1]> (x, w1)\n"
    + build.stair("z1", "a1")
    + "p1 = MaxPool <kernel_shape = [2,2], strides = [1,1]> (a1)\n"
    "z2 = Conv <pads = [1,1,1,1]> (p1, w2, b2)\n"
    'a2 = na_convert.Ramp <kind: string = "clip"> (z2, zero, top, zero, one)\n'
    "p2 = MaxPool <kernel_shape = [2,2], strides = [1,1]> (a2)\n"
    "z3 = Conv <pads = [1,1,1,1]> (p2, w3)\n"
    'a3 = na_convert.Ramp <kind: string = "clip"> (z3, zero, top, zero, one)\n'
    "f = Flatten (a3)\ny = Gemm (f, v)\n"
)
POOLS_WEIGHTS: dict = {**CHAIN_WEIGHTS, "top": 1.2, "one": 1.0}

NETWORKS = {
    "pools and ramps": (POOLS, POOLS_WEIGHTS, (3, 8, 8)),
    "chain": (CHAIN, CHAIN_WEIGHTS, (3, 8, 8)),
    "residual": (RESIDUAL, RESIDUAL_WEIGHTS, (3, 8, 8)),
    "per channel": (PER_CHANNEL, PER_CHANNEL_WEIGHTS, (3, 8, 8)),
    "signed": (SIGNED, SIGNED_WEIGHTS, (3, 8, 8)),
    "mlp": (MLP, MLP_WEIGHTS, (12,)),
}


def images(count: int, shape: tuple[int, ...], seed: int = 4) -> np.ndarray:
    """Smooth images of a few kinds: closer to data than noise is."""
    rng = np.random.default_rng(seed)
    kinds = np.repeat(rng.standard_normal((5, *shape)), -(-count // 5), axis=0)[:count]
    return (kinds + 0.3 * rng.standard_normal((count, *shape))).astype(np.float32)


class Case:
    """A network, converted, and the samples it is calibrated on."""

    def __init__(self, name: str, tmp_path: Path, count: int = 40) -> None:
        body, weights, shape = NETWORKS[name]
        inputs = f"float[N,{','.join(map(str, shape))}] x"
        self.path = tmp_path / "model.onnx"
        onnx.save(build.model(body, weights, inputs=inputs), self.path)
        self.feeds = {"x": images(count, shape)}
        options = pipeline.Options(timesteps=T)
        self.converted = pipeline.convert(model_io.load(self.path), self.feeds, options, check=True)
        assert self.converted.snn is not None
        self.plain = self.converted.snn
        self.layers = match_layers(self.plain, self.converted.staircase_ann)

    def calibrated(self, match: Match = "current") -> Snn:
        """With its shifts, whatever the held-out samples say."""
        fit, _ = calibrate_bias.split(self.feeds)
        shifts = measure(self.plain, self.converted.staircase_ann, fit, match)
        return calibrate_bias.apply(self.plain, self.layers, shifts)

    def verify(self, network: Snn, folded: onnx.ModelProto | None = None) -> Equivalence:
        samples = Samples(self.feeds, None, "random images")
        found = self.converted
        file = to_folded(network) if folded is None else folded
        return verify(found.ann, found.staircase_ann, network, file, samples)

    def mean_gaps(self, network: Snn, feeds: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Largest difference, over channels, of the mean currents of SNN and ANN, in thresholds."""
        names = [layer.name for layer in self.layers]
        run = simulate(network, feeds, T, record=names)
        roots = [layer.root for layer in self.layers]
        ann = evaluate(self.converted.staircase_ann, feeds, roots)
        gaps = {}
        for layer in self.layers:
            axes = tuple(a for a in range(ann[layer.root].ndim) if a != 1)
            expected = layer.expected
            wanted = ann[layer.root] * expected.current_gain + expected.current_offset
            found = run.currents[layer.name].mean(0, dtype=np.float64)
            gap = (found.mean(axes) - wanted.mean(axes)) / np.ravel(layer.fired.threshold)
            gaps[layer.name] = float(np.abs(gap).max())
        return gaps

    def output_gaps(self, network: Snn, feeds: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Largest difference, over channels, of the mean outputs, as shares of full output."""
        run = simulate(network, feeds, T, record=[layer.name for layer in self.layers])
        outputs = [layer.neuron.output for layer in self.layers]
        ann = evaluate(self.converted.staircase_ann, feeds, outputs)
        gaps = {}
        for layer in self.layers:
            wanted = layer.unit_output(ann[layer.neuron.output])
            axes = tuple(a for a in range(wanted.ndim) if a != 1)
            found = (run.spikes[layer.name] != 0).mean(0)
            gaps[layer.name] = float(np.abs(found.mean(axes) - wanted.mean(axes)).max())
        return gaps


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_gets_the_anns_mean_current(name: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path)
    fit, _ = calibrate_bias.split(case.feeds)
    before, after = case.mean_gaps(case.plain, fit), case.mean_gaps(case.calibrated(), fit)
    assert max(before.values()) > 2e-3
    assert max(after.values()) < 2e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_or_every_layer_gives_out_the_anns_mean(name: str, tmp_path: Path) -> None:
    """As nearly as a layer's jumps allow: in an MLP a channel has one neuron, many fire at once."""
    case = Case(name, tmp_path, count=40 if name != "mlp" else 400)
    limit = 2e-3 if name != "mlp" else 3e-2
    fit, _ = calibrate_bias.split(case.feeds)
    before = case.output_gaps(case.plain, fit)
    after = case.output_gaps(case.calibrated("output"), fit)
    shifted = [layer.name for layer in case.layers if not layer.neuron.constant_input]
    assert max(before[name] for name in shifted) > limit
    assert max(after[name] for name in shifted) < limit


@pytest.mark.parametrize("name", NETWORKS)
def test_replay_holds_for_the_calibrated_network_and_its_file(name: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path)
    network = case.calibrated()
    assert case.verify(network).replay_mismatches == 0
    again = from_folded(to_folded(network))
    assert again.neurons == network.neurons
    assert case.verify(again).replay_mismatches == 0


def with_shift(network: Snn, index: int, change: float) -> Snn:
    """``network`` whose recorded shift in channel 1 of a layer is off by ``change`` thresholds."""
    neuron = network.neurons[index]
    assert neuron.bias_shift is not None
    wrong = list(neuron.bias_shift)
    wrong[1] += change * float(np.max(neuron.threshold))
    neurons = list(network.neurons)
    neurons[index] = replace(neuron, bias_shift=wrong)
    return recorded(replace(network, neurons=tuple(neurons)))


@pytest.mark.parametrize("change", [0.01, -0.3, 1e-4])
def test_a_shift_that_is_not_the_recorded_one_fails_the_replay(
    change: float, tmp_path: Path
) -> None:
    case = Case("residual", tmp_path)
    wrong = with_shift(case.calibrated(), 1, change)
    with pytest.raises(CheckFailed) as failure:
        case.verify(wrong)
    assert failure.value.node == wrong.neurons[1].name


def test_a_shift_in_the_wrong_layer_or_twice_fails_the_replay(tmp_path: Path) -> None:
    case = Case("chain", tmp_path)
    network = case.calibrated()
    twice = calibrate_bias.apply(
        network, case.layers, {n.name: np.ravel(n.bias_shift or 0.0) for n in network.neurons}
    )
    with pytest.raises(CheckFailed, match="Staircase_3"):
        case.verify(twice)
    unshifted = replace(network, neurons=case.plain.neurons)
    with pytest.raises(CheckFailed, match="Staircase_3"):
        case.verify(unshifted)


def test_a_shift_that_others_read_too_fails_the_replay(tmp_path: Path) -> None:
    """As if the bias of a current had been changed that the residual path reads as well."""
    case = Case("residual", tmp_path)
    network = case.calibrated()
    graph = network.graph.copy()
    add = next(node for node in graph.nodes if node.name == "Staircase_4_shift")
    shifted, current = add.outputs[0], add.inputs[0]
    for reader in [n for n in current.outputs if n is not add]:
        reader.inputs = [shifted if t is current else t for t in reader.inputs]
    graph.toposort()
    with pytest.raises(CheckFailed, match="Staircase_7"):
        case.verify(replace(network, graph=graph))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_given_is_not_touched(name: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path)
    before = to_folded(case.plain).SerializeToString(deterministic=True)
    case.calibrated()
    assert to_folded(case.plain).SerializeToString(deterministic=True) == before


def ops(network: Snn) -> list[str]:
    return sorted(node.op for node in network.graph.nodes)


def test_a_shift_goes_into_the_bias_if_only_the_neurons_read_it(tmp_path: Path) -> None:
    case = Case("chain", tmp_path)
    assert ops(case.calibrated()) == ops(case.plain)


def test_a_shared_bias_is_not_edited(tmp_path: Path) -> None:
    """`b1` is the bias of the first layer, which has no shift, and of two others, which have."""
    case = Case("mlp", tmp_path)
    network = case.calibrated()
    assert ops(network) == sorted([*ops(case.plain), "Add"])  # of the MatMul without a bias
    first = next(node for node in network.graph.nodes if node.outputs[0].name == "z1")
    np.testing.assert_array_equal(first.inputs[1].values, MLP_WEIGHTS["b1"])


def test_currents_with_other_readers_and_sums_get_an_add(tmp_path: Path) -> None:
    case = Case("residual", tmp_path)
    assert ops(case.calibrated()) == sorted([*ops(case.plain), "Add", "Add", "Add"])


def test_the_first_layer_has_no_shift(tmp_path: Path) -> None:
    case = Case("chain", tmp_path)
    first, *others = case.calibrated().neurons
    assert first.constant_input
    assert first.bias_shift is None
    assert all(other.bias_shift is not None for other in others)


def test_a_network_of_one_layer_is_left_as_it_was(tmp_path: Path) -> None:
    body = "z = Conv (x, w1)\n" + build.stair("z", "a") + "f = Flatten (a)\ny = Gemm (f, v)\n"
    path, plain, same = (tmp_path / name for name in ("m.onnx", "plain.onnx", "same.onnx"))
    onnx.save(build.model(body, {**STEP, "w1": (6, 3, 3, 3), "v": (216, 5)}), path)
    feeds = {"x": images(16, (3, 8, 8))}
    na_convert.convert(path, output=plain, timesteps=T)
    result = na_convert.convert(path, output=same, timesteps=T, calibrate_bias=feeds)
    assert result.bias_calibration is not None
    assert not result.bias_calibration.kept
    assert [t.layers[0].largest for t in result.bias_calibration.trials] == [0, 0]
    assert plain.read_bytes() == same.read_bytes()


@pytest.mark.parametrize("timesteps", [3, 5])
def test_at_the_number_of_levels_only_deeper_layers_are_shifted(
    timesteps: int, tmp_path: Path
) -> None:
    """At T = p the first layer's mean output is the ANN's, so that the second lacks nothing."""
    case = Case("chain", tmp_path)
    network = replace(case.plain, timesteps=timesteps)
    shifts = measure(network, case.converted.staircase_ann, case.feeds)
    moved = [bool(shift.any()) for shift in shifts.values()]
    assert moved == [False, timesteps != 3, True]


def test_held_out_samples_decide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    case = Case("chain", tmp_path)
    fold = calibrate_bias.run(case.plain, case.converted.staircase_ann, case.feeds)
    assert fold.found.samples == 30
    assert fold.found.held_out == 10
    assert fold.found.kept
    assert fold.found.trial is not None
    assert fold.found.trial.held_out.logit_rmse < fold.found.plain.logit_rmse

    def worse(*args: object) -> dict[str, np.ndarray]:
        return {name: shift + 5.0 * shift.any() for name, shift in measure(*args).items()}  # type: ignore[arg-type]

    monkeypatch.setattr(calibrate_bias, "measure", worse)
    fold = calibrate_bias.run(case.plain, case.converted.staircase_ann, case.feeds)
    assert not fold.found.kept
    assert fold.network is case.plain
    assert fold.report.changed == 0


def test_fit_and_held_out_samples_are_apart() -> None:
    fit, held_out = calibrate_bias.split({"x": np.arange(40)})
    assert len(held_out["x"]) == 10
    assert sorted([*fit["x"], *held_out["x"]]) == list(range(40))


def test_data_larger_than_memory_are_read_in_parts(tmp_path: Path) -> None:
    """A memory-mapped file, and of it only the rows that are wanted."""
    case = Case("chain", tmp_path)
    np.save(tmp_path / "images.npy", case.feeds["x"])
    arrays, mapped = (
        na_convert.convert(case.path, output=tmp_path / "s.onnx", timesteps=T, calibrate_bias=data)
        for data in (case.feeds, tmp_path / "images.npy")
    )
    assert mapped.bias_calibration == arrays.bias_calibration
    assert mapped.neurons == arrays.neurons


def test_too_few_samples_are_refused(tmp_path: Path) -> None:
    case = Case("chain", tmp_path)
    with pytest.raises(DataError, match="at least 8"):
        na_convert.convert(
            case.path, output=tmp_path / "s.onnx", calibrate_bias={"x": images(7, (3, 8, 8))}
        )
    assert not (tmp_path / "s.onnx").exists()


def test_check_takes_a_calibrated_file(tmp_path: Path) -> None:
    case = Case("chain", tmp_path)
    snn = tmp_path / "s.onnx"
    result = na_convert.convert(
        case.path, output=snn, timesteps=T, data=case.feeds, calibrate_bias=case.feeds
    )
    assert result.bias_calibration is not None
    assert result.bias_calibration.kept
    assert any("biases calibrated at T = 2 on 30 samples" in note for note in result.notes)
    checked = na_convert.check(case.path, snn, data=case.feeds)
    assert checked.passed
    assert any("calibrated at T = 2" in note for note in checked.notes)
    np.testing.assert_equal(
        [row for row in checked.equivalence.by_timestep if row.T == T],  # type: ignore[union-attr]
        [row for row in result.equivalence.by_timestep if row.T == T],  # type: ignore[union-attr]
    )


def test_exact_weights_and_the_step_form_take_a_calibrated_network(tmp_path: Path) -> None:
    case = Case("chain", tmp_path)
    snn = tmp_path / "s.onnx"
    result = na_convert.convert(
        case.path, output=snn, timesteps=T, data=case.feeds, calibrate_bias=case.feeds,
        exact=True, form="step",
    )  # fmt: skip
    assert result.passed
    assert result.bias_calibration is not None
    assert result.bias_calibration.kept
    assert na_convert.check(case.path, snn, data=case.feeds).passed


def test_a_network_in_double_is_calibrated_in_numpy(tmp_path: Path) -> None:
    body, weights, _ = NETWORKS["chain"]
    double = {
        k: v if isinstance(v, tuple) else np.asarray(v, np.float64) for k, v in weights.items()
    }
    model = build.model(body, double, inputs="double[N,3,8,8] x", outputs="double[N,M] y")
    for stored in model.graph.initializer:
        values = onnx.numpy_helper.to_array(stored).astype(np.float64)
        stored.CopyFrom(onnx.numpy_helper.from_array(values, stored.name))
    onnx.save(model, tmp_path / "m.onnx")
    feeds = {"x": images(16, (3, 8, 8)).astype(np.float64)}
    result = na_convert.convert(tmp_path / "m.onnx", timesteps=T, data=feeds, calibrate_bias=feeds)
    assert result.passed
    assert result.bias_calibration is not None
