"""What an int8 file says of itself, so that it can be read again: `describe` and `restore`.

The metadata entry ``na_convert.integer`` is JSON: the operations of a step in order, with the names
of the initialisers that hold their weights. Numbers are read from these initialisers, from the file
itself; that the graph computes what they say is checked by running it (`integer_check`).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from ..errors import ModelError
from ..graph import import_graph
from ..integer import Analog, IntegerNetwork, Layer, Mean, Product, Shortcut, Window
from ..integer_bounds import INT32, LARGEST_THRESHOLD
from ..integer_moves import Move
from ..protos import array_of
from ..snn import Snn, neurons_from
from .int8_nodes import StepBuilder, unit_key
from .int8_schema import DESCRIPTION, conforms

KEY = "na_convert.integer"

Array: TypeAlias = NDArray[Any]
Entry: TypeAlias = dict[str, Any]


def describe(builder: StepBuilder, outside: StepBuilder | None = None) -> str:
    """The JSON of the network that ``builder`` has written the steps of.

    ``outside``: what wrote the rest, where the steps are in a Loop.
    """
    network, around = builder.network, outside or builder
    operations = [
        _layer_entry(op, builder, around) if isinstance(op, Layer) else _move_entry(op)
        for op in network.operations
    ]
    means = [
        {
            "output": m.output,
            "source": m.source,
            "scale": around.name_of(m.output, "scale"),
            "offset": around.name_of(m.output, "offset"),
        }
        for m in network.means
    ]
    graph = network.snn.graph
    found = {
        "inputs": [t.name for t in graph.inputs],
        "outputs": [t.name for t in graph.outputs],
        "operations": operations,
        "means": means,
        "timesteps": network.timesteps,
    }
    return json.dumps(found)


def restore(model: onnx.ModelProto) -> IntegerNetwork:
    """The integer network behind an int8 file; raises ModelError if it is none of ours."""
    props = {p.key: p.value for p in model.metadata_props}
    if KEY not in props or "na_convert.neurons" not in props:
        raise ModelError(
            "this is no int8 SNN (its metadata says otherwise)",
            remedy="give the file that na-convert --weights int8 wrote",
        )
    found = json.loads(props[KEY])
    neurons = neurons_from(props) if conforms(found, DESCRIPTION) else ()
    shapes = {neuron.name: list(neuron.shape) for neuron in neurons}
    layers = [op for op in found["operations"] if "layer" in op] if neurons else []
    if not neurons or any(shapes.get(op["layer"]) != op["shape"] for op in layers):
        raise _damaged(f"{KEY} is not as it was written")
    reader = _Reader(model)
    operations = tuple(reader.operation(entry) for entry in found["operations"])
    means = tuple(
        Mean(m["output"], m["source"], reader.values(m["scale"]), reader.values(m["offset"]))
        for m in found["means"]
    )
    graph, carried = import_graph(model)
    steps = int(props["na_convert.timesteps"])
    snn = Snn(_without_state(graph, found), neurons, steps, carried)
    return IntegerNetwork(snn, operations, means, int(found["timesteps"]))


# --- writing --------------------------------------------------------------------------------------


def _layer_entry(layer: Layer, builder: StepBuilder, around: StepBuilder) -> Entry:
    name = layer.name
    products = [
        {
            "source": p.source,
            "weight": builder.name_of(name, f"weight{i}" if layer.wide else "weight"),
            "window": None if p.window is None else asdict(p.window),
        }
        for i, p in enumerate(layer.products)
    ]
    analogs = [
        {"tensor": a.tensor}
        | {k: around.name_of(unit_key(layer, i), k) for k in ("gain", "low", "high")}
        for i, a in enumerate(layer.analogs)
    ]
    entry: Entry = {
        "layer": name,
        "output": layer.output,
        "shape": list(layer.shape),
        "products": products,
        "analogs": analogs,
        "shortcuts": [{"source": s.source, "weight": _short(s.weight)} for s in layer.shortcuts],
        "threshold": builder.name_of(name, "scale", "theta", "theta_1"),
        "resolution": layer.resolution,
        "zero_point": layer.zero_point,
        "wide": layer.wide,
        "pool": dict(layer.pool) if layer.pool is not None else None,
    }
    if not layer.constant:
        entry["bias"] = builder.name_of(name, "bias", "bias_1")
    return entry


def _move_entry(move: Move) -> Entry:
    return {
        "move": move.op,
        "output": move.output,
        "sources": list(move.sources),
        "attributes": dict(move.attributes),
        "constants": [c.tolist() for c in move.constants],
    }


def _short(values: NDArray[np.int64]) -> Any:
    """Whole numbers, as one where they are all alike."""
    return int(values.flat[0]) if np.all(values == values.flat[0]) else values.ravel().tolist()


# --- reading --------------------------------------------------------------------------------------


class _Reader:
    def __init__(self, model: onnx.ModelProto) -> None:
        bodies = [a.g for n in model.graph.node if n.op_type == "Loop" for a in n.attribute
                  if a.name == "body"]  # fmt: skip
        graphs = [model.graph, *bodies]
        self._initialisers = {i.name: i for graph in graphs for i in graph.initializer}

    def values(self, name: str) -> Array:
        if name not in self._initialisers:
            raise ModelError(f"the file lacks {name!r}, which its metadata names", node=name)
        found = array_of(self._initialisers[name])
        if not np.isfinite(found).all():
            raise _damaged(f"{name!r} holds a number that is not finite", name)
        return found

    def whole(self, name: str) -> NDArray[np.int64]:
        found = self.values(name)
        if (found != np.rint(found)).any() or (np.abs(found.astype(np.float64)) > INT32).any():
            raise _damaged(f"{name!r} holds a number that is no int32", name)
        return found.astype(np.int64)

    def operation(self, entry: Entry) -> Layer | Move:
        return self._move(entry) if "move" in entry else self._layer(entry)

    def _move(self, entry: Entry) -> Move:
        constants = tuple(np.asarray(c, np.int64) for c in entry["constants"])
        return Move(entry["output"], entry["move"], tuple(entry["sources"]), entry["attributes"],
                    constants)  # fmt: skip

    def _layer(self, entry: Entry) -> Layer:
        shape = tuple(entry["shape"])
        channels = (-1, *[1] * (len(shape) - 1))
        resolution, wide = int(entry["resolution"]), bool(entry["wide"])
        products = tuple(self._product(p) for p in entry["products"])
        inverted = bool(products or entry["shortcuts"]) and not wide
        threshold = self._threshold(entry["threshold"], resolution if inverted else None)
        bias = self.whole(entry["bias"]) if "bias" in entry else np.zeros((), np.int64)
        return Layer(
            entry["layer"],
            entry["output"],
            shape,
            products,
            tuple(self._analog(a) for a in entry["analogs"]),
            tuple(
                Shortcut(s["source"], _per_channel(s["weight"], channels))
                for s in entry["shortcuts"]
            ),
            bias.reshape(channels) if bias.ndim == 1 else bias,
            threshold.reshape(channels),
            resolution,
            int(entry["zero_point"]),
            wide,
            entry["pool"],
        )

    def _threshold(self, name: str, resolution: int | None) -> NDArray[np.int64]:
        """Held as it is, or as ``resolution / threshold``, the scale of a QLinearConv."""
        held = self.values(name).astype(np.float64)
        if (held <= 0).any():
            raise _damaged(f"{name!r} holds a number that is not above 0", name)
        found = held if resolution is None else np.rint(resolution / held)
        if (found > LARGEST_THRESHOLD).any() or (found % 2 != 1).any():
            raise _damaged(
                f"{name!r} holds a threshold that is no odd number up to {LARGEST_THRESHOLD}", name
            )
        return found.astype(np.int64)

    def _product(self, entry: Entry) -> Product:
        weight = self.values(entry["weight"])
        if weight.dtype != np.int8:
            raise _damaged(f"the weights {entry['weight']!r} are not int8", entry["weight"])
        window = entry["window"]
        if window is None:
            return Product(entry["source"], weight.reshape(weight.shape[:2]), None)
        sizes = {k: tuple(window[k]) for k in ("strides", "pads", "dilations")}
        return Product(entry["source"], weight, Window(**sizes, group=int(window["group"])))

    def _analog(self, entry: Entry) -> Analog:
        low, high = (self.whole(entry[k]) for k in ("low", "high"))
        return Analog(entry["tensor"], self.values(entry["gain"]), low, high)


def _damaged(what: str, node: str | None = None) -> ModelError:
    return ModelError(
        f"the SNN's description is damaged: {what}", node=node, remedy="convert the ANN again"
    )


def _per_channel(weight: int | list[int], channels: tuple[int, ...]) -> NDArray[np.int64]:
    values = np.asarray(weight, np.int64)
    return values.reshape(channels) if values.ndim else values


def _without_state(graph: gs.Graph, found: Entry) -> gs.Graph:
    """The network's own inputs and outputs; the state that a form adds is none of the network's."""
    graph.inputs = [t for t in graph.inputs if t.name in found["inputs"]]
    graph.outputs = [t for t in graph.outputs if t.name in found["outputs"]]
    return graph
