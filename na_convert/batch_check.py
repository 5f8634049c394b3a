"""Is a network that was exported for one batch size the same for every other?

An export for a fixed batch writes that number into shapes and indices. `normalise` frees them, and
what it makes has to treat each sample as the exported network does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .errors import ModelError
from .evaluate import evaluate
from .graph import Carried
from .teacher_forcing import runner

Array: TypeAlias = NDArray[Any]
Feeds: TypeAlias = Mapping[str, Array]

_LIMIT = 4e-3  # of an output's largest value: mixed samples differ by far more than float error


def entanglement(exported: gs.Graph, freed: gs.Graph, carried: Carried, feeds: Feeds) -> str:
    """Why ``freed`` is not ``exported`` for two batches at once; empty if it is.

    Also empty where ``exported`` leaves the batch open. Compared in the network's own float type,
    and once more in float64 where that differs, so that a rounding does not decide. numpy has no
    operators of onnxruntime's own: of a network with such, ``freed`` runs on each batch alone, too,
    as the check of the pass has compared it with ``exported`` at that size.
    """
    first = next((t.shape[0] for t in exported.inputs if t.shape), None)
    if not isinstance(first, int) or first < 1:
        return ""
    halves = _two_batches(feeds, first)
    both = {name: np.concatenate([half[name] for half in halves]) for name in halves[0]}
    outputs = [t.name for t in exported.outputs]
    try:
        run = runner(exported, carried, (), outputs)
        gap = _gap(outputs, [run(h) for h in halves], runner(freed, carried, (), outputs)(both))
        if gap > _LIMIT:
            own = any(node.domain == "com.microsoft" for node in exported.nodes)
            alone = freed if own else exported
            apart = [evaluate(alone, half, outputs) for half in halves]
            gap = _gap(outputs, apart, evaluate(freed, both, outputs))
    except ModelError as error:
        return f"it was exported for batch {first} and does not run with {2 * first}: {error}"
    if gap <= _LIMIT:
        return ""
    return (
        f"it was exported for batch {first}, and with {2 * first} samples an output differs by "
        f"{gap:.2g} relative (limit {_LIMIT:g}; {gap:.2g} would have passed)"
    )


def _two_batches(feeds: Feeds, size: int) -> list[dict[str, Array]]:
    """Two batches of ``size`` samples of ``feeds`` each, unlike each other."""
    halves: list[dict[str, Array]] = [{}, {}]
    for name, values in feeds.items():
        rows = np.resize(values, (2 * size, *values.shape[1:]))
        halves[0][name], halves[1][name] = rows[:size], rows[size:]
        if np.array_equal(rows[:size], rows[size:]):
            halves[1][name] = np.roll(rows[size:], 1, axis=-1)
    return halves


def _gap(outputs: list[str], apart: list[dict[str, Array]], together: dict[str, Array]) -> float:
    """Largest difference of an output, relative to its largest value."""
    worst = 0.0
    for name in outputs:
        expected = np.concatenate([np.atleast_1d(values[name]) for values in apart])
        if expected.shape != together[name].shape:
            return np.inf
        a, b = np.asarray(expected, np.float64), np.asarray(together[name], np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        scale = float(np.max(np.abs(a), initial=0.0, where=np.isfinite(a)))
        gap = float(np.max(np.abs(np.where(same, 0, a - b)), initial=0.0))
        worst = max(worst, gap / scale if scale else (np.inf if gap else 0.0))
    return worst
