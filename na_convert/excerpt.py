"""What some neurons did on one sample: spikes and membranes for the report to show.

Without a choice the layers are the most active, the most uneven and the last one. Of each layer the
raster shows neurons spread evenly from the most to the least active that fire at all; traced are
the most active, the most uneven and the median one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import snn
from .cut import takes
from .data import Samples
from .forms.folded import to_folded
from .neurons import even_counts
from .results import ExcerptLayer, LayerResult, TracedNeuron
from .simulation import fixed_batch, folded_runner, membranes, numpy_engine
from .simulator import matching_layers
from .snn import Snn

Array: TypeAlias = NDArray[Any]

_RASTER, _LEAST, _MOST = 28, 16, 48  # neurons; time steps


def take_excerpt(
    network: Snn,
    samples: Samples,
    measured: Sequence[LayerResult],
    chosen: Sequence[str] | None = (),
) -> tuple[ExcerptLayer, ...]:
    """Layers ``chosen`` (names or patterns) on the first sample, for T steps and more.

    Without names the telling ones of those ``measured``; of None nothing is taken.

    Run in the folded form, whatever the file's: that runs for any number of steps.

    Raises UsageError where ``chosen`` fits no layer.
    """
    if chosen is None:
        return ()
    names = [n.name for n in network.neurons]
    reasons = dict.fromkeys(matching_layers(names, chosen), "") or _telling(measured, names)
    steps = min(_MOST, max(_LEAST, 2 * network.timesteps))
    model = to_folded(network)
    size = fixed_batch(model) or 1
    feeds = {name: np.asarray(values[:size]) for name, values in samples.feeds.items()}
    double = any(v.dtype == np.float64 for v in feeds.values())
    if double and not takes(model):  # onnxruntime lacks many operators in double
        run = numpy_engine(network, steps, list(reasons), np.float64)(feeds)
    else:
        run = folded_runner(model, list(reasons))(feeds, steps)
    nodes = {n.name: n for n in snn.neuron_nodes(network.graph)}
    return tuple(
        _excerpt(name, why, run.currents[name], run.spikes[name], snn.parameters(nodes[name]))
        for name, why in reasons.items()
    )


def _telling(measured: Sequence[LayerResult], names: Sequence[str]) -> dict[str, str]:
    """Layers worth a look, and why."""
    found: dict[str, list[str]] = {}
    if measured:
        found.setdefault(max(measured, key=lambda m: m.spike_rate).name, []).append("most active")
        uneven = max(measured, key=lambda m: m.unevenness)
        found.setdefault(uneven.name, []).append("most uneven")
    found.setdefault(names[-1], []).append("last")
    return {name: f"the {' and '.join(found[name])} layer" for name in names if name in found}


def _excerpt(
    name: str, why: str, current: Array, spikes: Array, neuron: snn.IFParameters
) -> ExcerptLayer:
    theta = np.broadcast_to(np.asarray(neuron.threshold), current.shape[2:]).reshape(-1)
    held = membranes(current, spikes, neuron)[:, 0].reshape(len(current), -1)
    fired = (spikes[:, 0] != 0).reshape(len(current), -1)
    z = np.asarray(current[:, 0], np.float64).reshape(len(current), -1)
    counts = fired.sum(axis=0)
    surplus = np.abs(counts - even_counts(z.mean(axis=0), theta, len(z)))
    order = np.argsort(-counts, kind="stable")
    active = order[: max(1, int(np.count_nonzero(counts)))]
    shown = active[np.unique(np.linspace(0, len(active) - 1, _RASTER).astype(int))]
    reasons: dict[int, str] = {}
    for index, reason in (
        (int(order[0]), "most active"),
        (int(np.argmax(surplus)), "most uneven"),
        (int(active[len(active) // 2]), "median"),
    ):
        reasons.setdefault(index, reason)
    rows = [int(i) for i in dict.fromkeys([*reasons, *shown.tolist()])]
    rows.sort(key=lambda i: (-int(counts[i]), i))
    start = np.full((1, held.shape[1]), neuron.initial)
    reached = np.concatenate([start, (held + fired * theta) / theta])
    return ExcerptLayer(
        name=name,
        why=why,
        timesteps=len(z),
        neurons=tuple(rows),
        spikes=tuple(tuple(bool(f) for f in fired[:, i]) for i in rows),
        traced=tuple(
            TracedNeuron(
                i,
                tuple(int(k) for k in np.unravel_index(i, current.shape[2:])),
                why_neuron,
                tuple(float(v) for v in reached[:, i]),
            )
            for i, why_neuron in reasons.items()
        ),
    )
