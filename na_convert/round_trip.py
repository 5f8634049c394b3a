"""Do the activations that the passes found fire the levels of the ANN as exported?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .activation import Staircase
from .graph import Carried
from .input_quantisers import input_quantisers
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
    Flips within float error of an edge are ties. So are the quantisers of the input compared.
    """
    stairs = [
        *((q.name, q.root, q.output, q.function) for q in input_quantisers(staircase_ann, layers)),
        *((each.name, each.root, each.neuron.output, each.function) for each in layers),
    ]
    inside, _ = split_by_owner(ann, [output for _, _, output, _ in stairs])
    checked = [
        (name, root, output, function)
        for name, root, output, function in stairs
        if output in inside and isinstance(function, Staircase)
    ]
    run_ann = runner(ann, carried, (), inside)
    run_roots = runner(staircase_ann, carried, inside, [root for _, root, _, _ in checked])
    flips, ties, elements = dict.fromkeys((name for name, _, _, _ in checked), 0), 0, 0
    for feeds in batches:
        values = run_ann(feeds)
        found = run_roots({**feeds, **values})
        for name, root, output, function in checked:
            root_values = feeds[root] if root in feeds else found[root]
            far, near = _flips(function, values[output], root_values)
            flips[name] += far
            ties += near
            elements += values[output].size
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


def _flips(function: Staircase, output: Array, root: Array) -> tuple[int, int]:
    """Levels that differ: away from the edges, and within float error of one."""
    expected = function.neuron()
    unit = (np.asarray(output, np.float64) - expected.output_offset) / expected.amplitude
    eps = float(np.finfo(root.dtype).eps)
    x = np.asarray(root, np.float64)
    level = np.round(unit * function.levels)
    differs = level != function.level(x)
    reach = float(np.max(np.abs(x / function.input_step), initial=0)) + function.levels
    tie = function.distance_to_edge(x) <= FLOAT_NOISE * eps * reach
    return int(np.count_nonzero(differs & ~tie)), int(np.count_nonzero(differs & tie))
