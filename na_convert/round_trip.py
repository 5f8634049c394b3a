"""Do the activations that the passes found fire the levels of the ANN as exported?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .activation import Staircase
from .graph import Carried
from .layers import Layer, split_by_owner
from .results import Figure
from .rungs import FLOAT_NOISE, Entry, rung
from .teacher_forcing import runner, runs_in_onnxruntime

Array: TypeAlias = NDArray[Any]


def round_trip(
    ann: gs.Graph,
    staircase_ann: gs.Graph,
    carried: Carried,
    layers: Sequence[Layer],
    batches: Sequence[Mapping[str, Array]],
) -> Figure:
    """Level flips between ``ann`` and ``staircase_ann``, which gets the former's activations.

    In onnxruntime, in the model's own float type; in numpy where onnxruntime lacks an operator.
    Flips within float error of an edge are ties.
    """
    inside, _ = split_by_owner(ann, [layer.neuron.output for layer in layers])
    checked = [
        layer
        for layer in layers
        if layer.neuron.output in inside and isinstance(layer.function, Staircase)
    ]
    run_ann = runner(ann, carried, (), inside)
    run_roots = runner(staircase_ann, carried, inside, [layer.root for layer in checked])
    flips, ties, elements = dict.fromkeys((layer.name for layer in checked), 0), 0, 0
    for feeds in batches:
        values = run_ann(feeds)
        found = run_roots({**feeds, **values})
        for layer in checked:
            output = values[layer.neuron.output]
            far, near = _flips(layer, output, found[layer.root])
            flips[layer.name] += far
            ties += near
            elements += output.size
    engine = "onnxruntime" if runs_in_onnxruntime(ann, carried) else "numpy"
    detail = f"of {elements} levels, {ties} ties left out; by {engine}"
    entries = [
        Entry(count, 0, f"layer {name!r}: {count} levels flip, {detail}", name)
        for name, count in flips.items()
    ]
    figure = rung("round trip", entries)
    if not figure.passed or not entries:
        return figure
    return Figure("round trip", 0.0, 0.0, True, f"no flips {detail}")


def _flips(layer: Layer, output: Array, root: Array) -> tuple[int, int]:
    """Levels that differ: away from the edges, and within float error of one."""
    function = layer.function
    assert isinstance(function, Staircase)
    eps = float(np.finfo(root.dtype).eps)
    x = np.asarray(root, np.float64)
    level = np.round(layer.unit_output(np.asarray(output, np.float64)) * function.levels)
    differs = level != function.level(x)
    reach = float(np.max(np.abs(x / function.input_step), initial=0)) + function.levels
    tie = function.distance_to_edge(x) <= FLOAT_NOISE * eps * reach
    return int(np.count_nonzero(differs & ~tie)), int(np.count_nonzero(differs & tie))
