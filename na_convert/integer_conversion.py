"""From an SNN to its int8 file: thresholds tied or not, weights quantised, the file written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .batches import rows
from .choices import TIES
from .data import Samples
from .errors import NotConvertible, UsageError
from .forms import Int8Form
from .graph import Parts
from .input_range import largest_inputs
from .integer import IntegerNetwork
from .layers import match_layers
from .passes import exact_stem, quantise_weights
from .passes.quantise_weights import Quantised
from .passes.tie_shortcuts import tie_shortcuts
from .results import Exactness, Quantisation
from .running import file_runner
from .saturation import is_probability
from .shapes import rows_per_sample
from .snn import Snn, neuron_nodes, parameters
from .statistics import predictions
from .teacher_forcing import runner

Array: TypeAlias = NDArray[Any]

TYPICAL_SAMPLES = 256  # for the mean activations
DECIDING_SAMPLES = 512  # on which `auto` compares tied and untied thresholds
_BATCH = 64


@dataclass(frozen=True)
class Int8:
    """The integer network, its file, and what is reported of it.

    ``exactness``: whether its analog part is on grids (`passes.exact_stem`); None where that was
    not asked for.
    """

    network: IntegerNetwork
    parts: Parts
    report: Quantisation
    exactness: Exactness | None


def convert(
    network: Snn,
    staircase_ann: gs.Graph,
    samples: Samples,
    form: Int8Form,
    *,
    exact: bool = True,
    tie: str = "auto",
    given: bool = False,
) -> Int8:
    """``network`` on integers, as a file of ``form``.

    Args:
        exact: the analog part is put on grids first, so that every engine computes its currents
            alike; else it stays the float sums that it is.
        tie: thresholds along identity shortcuts: "always" made equal, "never", or "auto": where
            that does not lower the accuracy (without labels: the agreement) on ``samples``.
        given: the samples are the user's, not random numbers: they decide on tying, and biases are
            corrected for their mean activations.

    Raises UsageError for another ``tie`` or T above 255, NotConvertible naming what has no integer
    form.
    """
    if tie not in TIES:
        raise UsageError(f"--tie-shortcuts {tie}: one of {', '.join(TIES)} is needed")
    _require_one_row(network, samples)
    exactness: Exactness | None = None
    if exact:
        bounds = largest_inputs(network, samples)
        network, exactness = exact_stem.run(network, bounds, network.timesteps)
    made, report = _quantised(network, staircase_ann, samples, form, tie=tie, given=given)
    return Int8(made, form.parts(made), report, exactness)


def _require_one_row(network: Snn, samples: Samples) -> None:
    for name, count in rows_per_sample(network, rows(samples.feeds, 0, 1)).items():
        if count > 1:
            raise NotConvertible(
                f"{name!r} has {count} rows for each sample (a Reshape puts tokens, or frames, "
                "into the batch): int8 counts in one",
                node=name,
                remedy="convert without --weights int8, or leave them on an axis of their own "
                "behind the batch, under convolutions with a kernel of 1",
            )


def _quantised(
    network: Snn,
    staircase_ann: gs.Graph,
    samples: Samples,
    form: Int8Form,
    *,
    tie: str,
    given: bool,
) -> tuple[IntegerNetwork, Quantisation]:
    typical = _typical(network, staircase_ann, samples) if given else None
    steps, tied = network.timesteps, tie_shortcuts(network)
    if not tied.raised or tie == "never" or (tie == "auto" and not given):
        free = quantise_weights.run(network, steps, typical)
        why = "as asked" if tie == "never" else "no data to decide on: thresholds stay"
        if not tied.raised:
            why = "no shortcut whose thresholds differ"
        return free.network, Quantisation(free.layers, False, why, {}, given)
    bound = quantise_weights.run(tied.network, steps, _of_tied(typical, network, tied.network))
    if not given:
        return bound.network, Quantisation(bound.layers, True, "as asked", tied.raised, given)
    free = quantise_weights.run(network, steps, typical)
    score = [_score(each, form, staircase_ann, network, samples) for each in (free, bound)]
    what = "accuracy" if samples.labels is not None else "agreement"
    why = f"{what} at T = {steps}: {score[0]:.1%} as they are, {score[1]:.1%} tied"
    asked = tie == "always"
    found, raised = (bound, tied.raised) if asked or score[1] >= score[0] else (free, {})
    report = Quantisation(found.layers, bool(raised), f"as asked; {why}" if asked else why, raised,
                          given, measured=what, score=score[0], tied_score=score[1])  # fmt: skip
    return found.network, report


def _typical(network: Snn, staircase_ann: gs.Graph, samples: Samples) -> dict[str, Array]:
    """Mean share of steps at which each neuron fires, from the ANN's activations, by tensor."""
    layers = match_layers(network, staircase_ann)
    names = [layer.neuron.output for layer in layers]
    run = runner(staircase_ann, network.carried, (), names)
    total: dict[str, Array] = {}
    count = min(len(samples), TYPICAL_SAMPLES)
    for start in range(0, count, _BATCH):
        values = run(rows(samples.feeds, start, min(_BATCH, count - start)))
        for layer in layers:
            share = layer.unit_output(values[layer.neuron.output].astype(np.float64))
            total[layer.spikes] = total.get(layer.spikes, 0) + share.sum(axis=0)
    return {name: value / count for name, value in total.items()}


def _of_tied(
    typical: Mapping[str, Array] | None, network: Snn, tied: Snn
) -> dict[str, Array] | None:
    """The same activations in spikes that are worth more."""
    if typical is None:
        return None
    found = {}
    for before, after in zip(neuron_nodes(network.graph), neuron_nodes(tied.graph), strict=True):
        name = before.outputs[0].name
        ratio = np.asarray(parameters(before).amplitude / parameters(after).amplitude, np.float64)
        found[name] = typical[name] * ratio
    return found


def _score(
    found: Quantised, form: Int8Form, staircase_ann: gs.Graph, network: Snn, samples: Samples
) -> float:
    """Accuracy, or agreement with the ANN, of the integer network at its T."""
    model = form.parts(found.network).whole()
    run = file_runner(model)
    output = staircase_ann.outputs[0].name
    reference = runner(staircase_ann, network.carried, (), [output])
    sigmoid = is_probability(staircase_ann)
    same, count = [], min(len(samples), DECIDING_SAMPLES)
    for start in range(0, count, _BATCH):
        feeds = rows(samples.feeds, start, min(_BATCH, count - start))
        outputs = run(feeds, network.timesteps).outputs[network.timesteps]
        made = predictions(outputs[output], sigmoid=sigmoid)
        labels = None if samples.labels is None else samples.labels[start : start + len(made)]
        if labels is None or labels.shape != made.shape:
            labels = predictions(reference(feeds)[output], sigmoid=sigmoid)
        same.append(np.ravel(made == labels))
    return float(np.mean(np.concatenate(same)))
