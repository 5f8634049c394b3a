"""The checks of an int8 file, beside those of the float network that it was made from.

=================  =================================================================================
bounds             no number can overflow, no rounding can decide a spike (`integer_bounds`)
int8 engines       onnxruntime, with and without its optimisations, and numpy: the same counts
int8 replay        each layer on the levels of the ANN with the quantised weights: its levels
int8 currents      those of the ANN's own activations, beside the ANN's: what quantising changed
int8 readout       the outputs behind the ANN's own activations
=================  =================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from . import compare
from .batches import rows
from .behaviour import Elsewhere
from .checks import SELECTABLE
from .compare import Progress
from .connectivity import count_work
from .data import Samples
from .energy import DEFAULT, Constants, estimate
from .evaluate import evaluate
from .forms.int8_file import restore
from .graph import is_ours
from .input_range import proven_inputs, ranges_of
from .integer import Counts, IntegerNetwork, Layer, current_units, fire, run, total_current
from .integer_bounds import bounds, largest_counts
from .integer_moves import move
from .integer_running import counts_in_onnxruntime
from .integer_view import view
from .layers import Layer as Match
from .layers import match_layers, reference_values, split_by_owner
from .neurons import ACTIVATION_OPS
from .replay import relative_error
from .results import Energy, Equivalence, Figure
from .rungs import Entry, of_check, rung
from .snn import Snn, neuron_nodes, parameters

Array: TypeAlias = NDArray[Any]

MOST_SAMPLES = 32
WORK = 4e9  # multiplications in numpy, about
CURRENT_LIMIT = 0.1  # relative, root of the mean square: int8 weights make about 0.01
READOUT_LIMIT = 1e-5


def prove_and_measure(
    ann: gs.Graph,
    staircase_ann: gs.Graph,
    network: Snn,
    file: onnx.ModelProto,
    samples: Samples,
    *,
    timesteps: Sequence[int] = (),
    unrounded: Snn | None = None,
    progress: Progress = lambda share: None,
) -> Equivalence:
    """The proof of the float ``network``, and then what `measure_file` finds of the int8 file."""
    proof = frozenset({"replay", "round-trip"})
    proved = compare.measure(
        ann, staircase_ann, network, file, samples,
        checks=proof, unrounded=unrounded, progress=lambda share: progress(0.4 * share),
    )  # fmt: skip
    found = measure_file(
        ann, staircase_ann, network, file, samples,
        timesteps=timesteps, progress=lambda share: progress(0.4 + 0.6 * share),
    )  # fmt: skip
    return replace(
        found,
        replay_mismatches=(proved.replay_mismatches or 0) + (found.replay_mismatches or 0),
        replay_ties=proved.replay_ties,
        figures=(*proved.figures, *found.figures),
    )


def measure_file(
    ann: gs.Graph,
    staircase_ann: gs.Graph,
    network: Snn,
    file: onnx.ModelProto,
    samples: Samples,
    *,
    timesteps: Sequence[int] = (),
    checks: frozenset[str] = frozenset(SELECTABLE),
    constants: Constants = DEFAULT,
    elsewhere: Elsewhere | None = None,
    progress: Progress = lambda share: None,
) -> Equivalence:
    """What `compare.measure` is for float files, of an int8 ``file``, which is read anew.

    ``network`` stands where `compare.measure` has the description; what counts is the file's own.
    Raises CheckFailed where a layer has no counterpart in the ANN, UsageError for more time steps
    than the file makes.
    """
    integer = restore(file)
    seen_as = view(integer)
    few = rows(samples.feeds, 0, affordable(integer))
    figures: list[Figure] = []
    mismatches = differences = None
    if "replay" in checks:
        replayed = _replay(integer, few, quantised_ann(integer, few))
        mismatches = int(replayed.value)
        layers = match_layers(seen_as, staircase_ann)
        beside = _against_ann(ann, staircase_ann, integer, layers, few)
        figures += of_check("replay", [replayed, *beside])
    progress(0.2)
    if "engines" in checks:
        differences, engines = _engines(integer, file, few)
        figures += of_check("engines", [_bounds(integer), engines])
    progress(0.4)
    observed = compare.measure(
        ann, staircase_ann, seen_as, file, samples,
        timesteps=timesteps, checks=checks & _OBSERVED, constants=constants, elsewhere=elsewhere,
        progress=lambda share: progress(0.4 + 0.6 * share),
    )  # fmt: skip
    energy = observed.energy
    if energy is not None:
        one = rows(samples.feeds, 0, 1)
        energy = _beside_the_ann(energy, staircase_ann, seen_as, one, constants)
    return replace(
        observed,
        energy=energy,
        replay_mismatches=mismatches,
        replay_ties=None if mismatches is None else 0,
        engine_differences=differences,
        figures=(*figures, *observed.figures),
    )


def _beside_the_ann(
    energy: Energy,
    staircase_ann: gs.Graph,
    network: Snn,
    feeds: Mapping[str, Array],
    constants: Constants,
) -> Energy:
    """``energy`` with the ANN's figures from its own operators: in integers several are joined."""
    graph = staircase_ann.copy()
    names = {neuron.output: neuron.name for neuron in network.neurons}
    for node in graph.nodes:
        if is_ours(node, *ACTIVATION_OPS) and node.outputs[0].name in names:
            node.op, node.name = "IF", names[node.outputs[0].name]
    silent = {neuron.name: np.zeros((1, *neuron.shape), np.int64) for neuron in network.neurons}
    plain = replace(network, graph=graph, carried=replace(network.carried, metadata={}))
    work = count_work(plain, silent, {}, 1, feeds)
    own = estimate(work, constants, network.timesteps, len(network.neurons))
    return replace(
        energy, ann_macs=own.ann_macs, ann_nj=own.ann_nj, bit_matched_nj=own.bit_matched_nj
    )


_OBSERVED = frozenset({"constant-current", "end-to-end"})


def affordable(network: IntegerNetwork) -> int:
    """Samples that numpy can count in reasonable time: at least one."""
    work = sum(
        product.weight.size * float(np.prod(layer.shape[1:], dtype=np.float64))
        for layer in network.layers
        for product in layer.products
    )
    return int(max(1, min(MOST_SAMPLES, WORK // max(1.0, work * network.timesteps))))


def _bounds(network: IntegerNetwork) -> Figure:
    most = largest_counts(network)
    found = [b for layer in network.layers for b in bounds(layer, most, network.timesteps)]
    entries = [
        Entry(b.worst / b.limit, 1.0, f"layer {b.layer!r}: {b.what} up to {b.worst} in the worst "
              f"case, allowed {b.limit}", b.layer)
        for b in found
    ]  # fmt: skip
    figure = rung("int8 bounds", entries)
    if not figure.passed:
        return figure
    return Figure("int8 bounds", figure.value, 1.0, True,
                  f"{len(found)} bounds of {len(network.layers)} layers hold for every input; "
                  f"closest: {figure.detail}", figure.node)  # fmt: skip


_ENGINES = (
    ("1 thread", True, 1),
    ("2 threads", True, 2),
    ("optimisations off", False, 1),
)
_SETTINGS = "optimisations on and off, 1 and 2 threads"


def _engines(
    network: IntegerNetwork, file: onnx.ModelProto, feeds: Mapping[str, Array]
) -> tuple[int, Figure]:
    """numpy and onnxruntime, counts at the last step and before; from the input on where the analog
    part is on grids for it, else under the same analog currents."""
    entries, total = [], 0
    ranges = ranges_of(proven_inputs(network.snn), feeds)
    whole = bool(ranges) and not any(each.beyond for each in ranges)
    expected: dict[str, NDArray[np.uint8]] = {}
    for engine, optimise, threads in _ENGINES:
        found, analog = counts_in_onnxruntime(
            file, network, feeds, optimise=optimise, threads=threads
        )
        if not (whole and expected):
            given = None if whole else analog
            expected = run(network, feeds, network.timesteps, given).counts
        for layer in network.layers:
            differ = int(np.count_nonzero(found[layer.name] != expected[layer.name]))
            total += differ
            entries.append(
                Entry(differ, 0, f"layer {layer.name!r}: {differ} counts differ between numpy and "
                      f"onnxruntime ({engine})", layer.name)
            )  # fmt: skip
    figure = rung("int8 engines", entries)
    if not figure.passed:
        return total, figure
    count = sum(int(np.prod(each.shape)) for each in expected.values())
    detail = f"0 of {count} counts differ between numpy and onnxruntime, {_SETTINGS}"
    detail += ", from the input on" if whole else ", under the same analog currents"
    return total, Figure("int8 engines", 0.0, 0.0, True, detail)


# --- the replay -----------------------------------------------------------------------------------


def _replay(
    network: IntegerNetwork, feeds: Mapping[str, Array], levels: Mapping[str, Array]
) -> Figure:
    """Each layer on the levels of the ANN with the quantised weights, T levels in every layer."""
    steps = network.timesteps
    counts: Counts = {}
    entries, between = [], 0
    analog = evaluate(network.snn.graph, feeds, network.analogs, dtype=np.float32)
    totals = {key: steps * current for key, current in current_units(network, analog).items()}
    for operation in network.operations:
        if not isinstance(operation, Layer):
            values = [counts[s] for s in operation.sources]
            counts[operation.output] = move(operation, values)
            continue
        level = levels[operation.name]
        counts[operation.output] = level.astype(np.uint8)
        current = total_current(operation, counts, totals, steps)
        wrong = _decided_wrongly(operation, current, counts, level, steps)
        between += int(np.count_nonzero((level > 0) & (level < steps)))
        entries.append(
            Entry(
                wrong,
                0,
                f"layer {operation.name!r}: {wrong} of {level.size} neurons do not fire at the "
                "quantised ANN's level",
                operation.name,
            )
        )
    figure = rung("int8 replay", entries)
    if not figure.passed:
        return figure
    size = sum(level.size for level in levels.values())
    detail = (
        f"{len(levels)} layers, {size} neurons fire at the level of the ANN with the quantised "
        f"weights, {between} of them between the lowest and the highest"
    )
    return Figure("int8 replay", 0.0, 0.0, True, detail)


def quantised_ann(network: IntegerNetwork, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Levels 0 .. T of every layer in the ANN with the quantised weights, by name, in float64.

    Its activations are ``clip(floor(T z / theta + 1/2), 0, T) / T`` of the current z.
    """
    steps = network.timesteps
    seen_as = view(network)
    levels: dict[str, Array] = {}

    def activation(node: gs.Node, z: Array) -> Array:
        if node.op == "MaxPoolCounts":
            pooled = evaluate(seen_as.graph, {node.inputs[0].name: z}, [node.outputs[0].name])
            return pooled[node.outputs[0].name]
        theta = parameters(node).threshold
        level = np.clip(np.floor(steps * z / theta + 0.5), 0, steps)
        levels[node.name] = level
        return np.asarray(level / steps)

    last = [node.outputs[0].name for node in neuron_nodes(seen_as.graph)]
    analog = evaluate(network.snn.graph, feeds, network.analogs, dtype=np.float32)
    # Units are rounded in float32, as the network does: in float64 some would be others.
    encoded = [n.inputs[0].name for n in seen_as.graph.nodes if is_ours(n, "Encode")]
    units = evaluate(seen_as.graph, {**feeds, **analog}, encoded, dtype=np.float32)
    evaluate(seen_as.graph, {**feeds, **units}, last, stateful=activation)
    return levels


def _decided_wrongly(layer: Layer, current: Array, counts: Counts, level: Array, steps: int) -> int:
    """Neurons that do not stop at ``level``: from one below they fire, from there they do not."""
    below = np.maximum(level - 1, 0)
    reached = fire(layer, current, counts, below) == np.maximum(level, below)
    reached |= (level == 0) & (fire(layer, current, counts, below) == 0)
    stopped = (fire(layer, current, counts, level) == level) | (level >= steps)
    return int(np.count_nonzero(~(reached & stopped)))


# --- beside the ANN -------------------------------------------------------------------------------


def _against_ann(
    ann: gs.Graph,
    staircase_ann: gs.Graph,
    network: IntegerNetwork,
    layers: Sequence[Match],
    feeds: Mapping[str, Array],
) -> list[Figure]:
    """The quantised network's currents and outputs under the ANN's own activations."""
    names = [name for layer in layers for name in (layer.neuron.output, layer.root)]
    outputs = [t.name for t in ann.outputs]
    inside, others = split_by_owner(ann, names)
    values = reference_values(
        lambda given: evaluate(ann, given, [*inside, *outputs]),
        lambda given: evaluate(staircase_ann, given, others),
        feeds,
    )
    seen_as = view(network)
    given = {layer.spikes: _spikes(layer, values) for layer in layers}
    wanted = [*(layer.current for layer in layers), *outputs]
    found = evaluate(seen_as.graph, {**feeds, **given}, wanted)
    entries = []
    for layer in layers:
        if layer.neuron.constant_input:
            continue
        expected = layer.expected
        current = values[layer.root] * expected.current_gain + expected.current_offset
        own = found[layer.current] - layer.bias_shift  # what calibration added is no error
        error = float(np.sqrt(np.mean((own - current) ** 2)))
        size = float(np.sqrt(np.mean(current**2))) or 1.0
        entries.append(
            Entry(error / size, CURRENT_LIMIT, f"layer {layer.name!r}: currents differ from the "
                  f"ANN's by {error / size:.2%}, root of the mean square", layer.name)
        )  # fmt: skip
    errors = [Entry(relative_error(values[n], found[n]), READOUT_LIMIT,
                    "outputs behind the ANN's own last activations, relative", n)
              for n in outputs]  # fmt: skip
    return [rung("int8 currents", entries), rung("int8 readout", errors)]


def _spikes(layer: Match, values: Mapping[str, Array]) -> Array:
    """The ANN's activation as a share of what one spike is worth; more than 1: beyond its reach."""
    worth = np.asarray(layer.neuron.amplitude, np.float64)
    if worth.ndim:
        worth = worth.reshape(-1, *[1] * (len(layer.neuron.shape) - 1))
    return np.asarray((values[layer.neuron.output] - layer.expected.output_offset) / worth)
