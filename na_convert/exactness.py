"""Networks on grids (`passes.snap`): what their files say of it, and what rounding did to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .errors import ModelError
from .graph import Computed, Names, constant, is_constant, is_ours, is_standard
from .graph import node as make_node
from .neurons import NEURON_OPS
from .results import Exactness, SnappedLayer
from .snn import Snn, parameters, recorded

EXACT = "na_convert.exact"  # metadata: the proof, and the grid of each constant


@dataclass(frozen=True)
class Grids:
    """Where a network on grids was rounded.

    Attributes:
        constants: the exponents of their grids, by name.
        rounds: names of the Round nodes that put analog values on a grid.
        fine: names of the operators that add the fine parts of a stem (`passes.stem_parts`),
            beside the one that is its own.
    """

    constants: Mapping[str, int] = field(default_factory=dict)
    rounds: frozenset[str] = frozenset()
    fine: frozenset[str] = frozenset()


def with_exactness(snn: Snn, exactness: Exactness, grids: Grids) -> Snn:
    """``snn``, whose metadata tell the proof and the grids."""
    stored = {
        "timesteps": exactness.timesteps,
        "bounds": exactness.bounds,
        "layers": [asdict(layer) for layer in exactness.layers],
        "grids": dict(grids.constants),
        "rounds": sorted(grids.rounds),
        "fine": sorted(grids.fine),
    }
    return recorded(snn, {EXACT: json.dumps(stored, sort_keys=True)})


def exactness_of(snn: Snn) -> Exactness | None:
    """What `with_exactness` stored; None for a network that is not on grids."""
    stored = _stored(snn)
    if not stored:
        return None
    layers = tuple(SnappedLayer(**layer) for layer in stored["layers"])
    return Exactness(True, stored["timesteps"], stored["bounds"], layers)


def grids_of(snn: Snn) -> Grids:
    """What `with_exactness` stored; without any grid for a network that is on none."""
    stored = _stored(snn)
    if not stored:
        return Grids()
    return Grids(stored["grids"], frozenset(stored["rounds"]), frozenset(stored["fine"]))


def _stored(snn: Snn) -> dict[str, Any]:
    """What `with_exactness` stored; empty for a network that is not on grids.

    Raises ModelError where it is not as it was written.
    """
    if EXACT not in snn.carried.metadata:
        return {}
    stored = json.loads(snn.carried.metadata[EXACT])
    if not isinstance(stored, dict):
        raise _damaged()
    lists = (stored.get("rounds"), stored.get("fine"))
    grids, bounds = stored.get("grids"), stored.get("bounds")
    sound = (
        all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in lists)
        and isinstance(grids, dict)
        and all(type(k) is int and abs(k) < _MOST_EXPONENT for k in grids.values())
        and isinstance(bounds, dict)
        and all(type(b) in (int, float) for b in bounds.values())
        and type(stored.get("timesteps")) is int
        and isinstance(stored.get("layers"), list)
    )
    if not sound:
        raise _damaged()
    return stored


_MOST_EXPONENT = 1100


def _damaged() -> ModelError:
    return ModelError(
        f"the SNN's description is damaged: {EXACT} is not as it was written",
        remedy="convert the ANN again",
    )


def moved_off_grid(snn: Snn, rng: np.random.Generator) -> gs.Graph:
    """The graph of ``snn`` with constants anywhere within half a unit, and inputs not rounded: as
    far from ``snn`` as the network was before its rounding. The same graph where none was.
    """
    grids = grids_of(snn)
    if grids == Grids():
        return snn.graph
    graph = snn.graph.copy()
    moved: dict[str, Computed] = {}
    for node in graph.nodes:
        if is_standard(node, "Round") and node.name in grids.rounds:
            node.op = "Identity"
        for position, tensor in enumerate(list(node.inputs)):
            if not is_constant(tensor) or tensor.name not in grids.constants:
                continue
            if tensor.name not in moved:
                unit = 2.0 ** grids.constants[tensor.name]
                moved[tensor.name] = _moved(tensor, unit, rng)
            node.inputs[position] = moved[tensor.name]
    return graph


def _moved(tensor: gs.Constant, unit: float, rng: np.random.Generator) -> Computed:
    """``tensor`` moved by up to half a ``unit``; ``rng`` goes on as if it had been drawn from."""
    state = rng.bit_generator.state
    rng.bit_generator.advance(tensor.values.size)  # type: ignore[attr-defined]

    def values() -> NDArray[np.float64]:
        drawn = np.random.Generator(np.random.PCG64())
        drawn.bit_generator.state = state
        return np.asarray(tensor.values + drawn.uniform(-0.5, 0.5, tensor.values.shape) * unit)

    return Computed(tensor.name, tensor.values.shape, np.float64, values)


def as_ann(snn: Snn) -> gs.Graph:
    """The ANN that ``snn`` stands for: every neuron layer the activation that it converts."""
    graph = snn.graph.copy()
    names, levels = Names(graph), {n.name: n.levels for n in snn.neurons}
    for node in list(graph.nodes):
        if is_ours(node, *NEURON_OPS):
            _activate(graph, node, levels[node.name], names)
        elif is_ours(node, "Encode", "Decode"):
            node.op, node.domain, node.attrs = "Identity", None, {}
        elif is_ours(node, "MaxPoolCounts"):
            pool = {name: value for name, value in node.attrs.items() if name != "unit"}
            node.op, node.domain, node.attrs = "MaxPool", None, pool
    graph.cleanup().toposort()
    return graph


def _activate(graph: gs.Graph, node: gs.Node, levels: int | None, names: Names) -> None:
    found = parameters(node)
    theta = np.asarray(found.threshold, np.float32)
    amplitude = np.asarray(found.amplitude, np.float32)
    zero = np.zeros((), np.float32)
    if levels is None:
        op = "Ramp"
        attrs: dict[str, object] = {"kind": "clip"}
        values = [zero, theta, zero, amplitude / theta]
    else:
        op, attrs = "Staircase", {"levels": levels, "tie_rule": "half_up"}
        values = [theta / levels, amplitude / levels, zero, np.asarray(0.5, np.float32)]
    constants = [
        constant(names.fresh(f"{node.name}_{position}"), np.asarray(value, np.float32))
        for position, value in enumerate(values)
    ]
    output = node.outputs[0]
    node.outputs.clear()
    made = make_node(op, [node.inputs[0], *constants], [output], node.name, attrs, "na_convert")
    graph.nodes.append(made)
