"""The unrolled form: T time steps one after the other in one graph of plain operators; T is fixed.

The fastest float form. Weights are stored once and read T times. Neurons of a network on grids
(`passes.snap`: threshold 1, spikes of 1) are written so that onnxruntime keeps its blocked layout
from convolution to convolution: the state is the membrane below half a threshold, negated,
``a = 1/2 - u``, which starts at 0, so that weights are negated instead of subtracted, and the
addition is fused into the convolution::

    a = Conv(s; -W, -b) + a;    s = HardSigmoid(a; alpha = -2^25, beta = 1 - 2^24);    a = a + s

The HardSigmoid is an exact step at ``a = -1/2``, that is ``u = 1``, for all multiples of 2^-24.
Terms of a sum that are spikes themselves (identity shortcuts) become 1x1 convolutions of one
channel each. All other neurons are written out as they are in `neurons`.

The file's metadata hold the network without its weights (``na_convert.network``). `from_unrolled`
puts the file's own weights into it, writes it once more, and takes it only if that gives the file.
"""

from __future__ import annotations

import base64
from collections.abc import Container

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ..errors import ModelError
from ..exactness import EXACT
from ..graph import (
    Names,
    Parts,
    constant,
    export_parts,
    is_constant,
    is_ours,
    is_standard,
    producer,
)
from ..graph import node as make_node
from ..neurons import NEURON_OPS
from ..protos import array_of
from ..regions import data_inputs, spiking_nodes
from ..shapes import annotate, of_one_step
from ..snn import Snn, float_type, neuron_nodes, parameters, require_form, written_as
from . import folded
from .documentation import document, part_doc

FORM = "unrolled"
NETWORK = "na_convert.network"
MEMBRANE, AFTER = "negated_membrane", "negated_membrane_after"
NEGATED = "_negated"
_HOW = (
    "makes exactly T time steps; what belongs to step t is called NAME/t",
    "plain operators: LAYER/spikes/t are the spikes of a neuron layer",
)
_STEEP = {"alpha": -(2.0**25), "beta": 1 - 2.0**24}


def unrolled_parts(snn: Snn) -> Parts:
    """The model of ``snn`` for ``snn.timesteps`` steps; the tensors of step t are called NAME/t."""
    graph = _Unroller(snn).unrolled()
    parts = export_parts(graph, written_as(snn, FORM))
    stored = {i.name for i in parts.light.graph.initializer} | set(parts.weights)
    _keep_network(parts.light, snn, stored)
    document(parts.light, snn, FORM, _HOW)
    _document_steps(parts.light, snn)
    annotate(parts)
    return parts


def from_unrolled(model: onnx.ModelProto) -> Snn:
    """The description behind an unrolled file; raises ModelError if it is none of ours, or not as
    it was written."""
    props = {p.key: p.value for p in model.metadata_props}
    require_form(props, FORM)
    network = network_of(model)
    known = {i.name for i in network.graph.initializer}
    for weight in model.graph.initializer:
        name = weight.name.removesuffix(NEGATED)
        if name in known or weight.name in known:
            continue
        values = array_of(weight)
        plain = values if name == weight.name else -values
        network.graph.initializer.append(onnx.numpy_helper.from_array(plain, name))
        known.add(name)
    snn = folded.from_folded(network)
    again = unrolled_parts(snn).whole()
    if _contents(again.graph) != _contents(model.graph):
        raise ModelError(
            "the time steps of this file are not those of one network",
            remedy="give the file as na-convert --form unrolled wrote it",
        )
    return snn


def network_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """The folded network in the metadata of an unrolled file, without its weights."""
    props = {p.key: p.value for p in model.metadata_props}
    network: onnx.ModelProto = onnx.ModelProto.FromString(base64.b64decode(props[NETWORK]))
    return network


def _document_steps(model: onnx.ModelProto, snn: Snn) -> None:
    """Say of each node that belongs to a neuron layer what it is: NAME/PART/STEP, or NAME/STEP."""
    by_name = {neuron.name: neuron for neuron in snn.neurons}
    layers = {n.name: parameters(n) for n in neuron_nodes(snn.graph) if n.name in by_name}
    for node in model.graph.node:
        name = _owner(node.name, layers)
        if name is None:
            continue
        part, _, t = node.name.removeprefix(f"{name}/").rpartition("/")
        what = f"{part.replace('_', ' ')}, step {t} of {snn.timesteps},"
        brief = part != "spikes" or t != "1"
        node.doc_string = part_doc(by_name[name], layers[name], what, brief=brief)
        if node.op_type == "HardSigmoid":
            node.doc_string += "\nhere an exact step, on the negated membrane a = 1/2 - u"


def _owner(name: str, layers: Container[str]) -> str | None:
    """The layer whose name, and a slash, ``name`` begins with; names may hold slashes."""
    parts = name.split("/")
    starts = ("/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
    return next((start for start in starts if start in layers), None)


def _keep_network(model: onnx.ModelProto, snn: Snn, stored: set[str]) -> None:
    """The folded network in the metadata, without what ``model`` stores itself."""
    parts = folded.folded_parts(snn)
    network = parts.light
    large = [onnx.numpy_helper.from_array(v, name) for name, v in parts.weights.items()]
    kept = [
        i
        for i in [*network.graph.initializer, *large]
        if i.name not in stored and i.name + NEGATED not in stored
    ]
    del network.graph.initializer[:]
    network.graph.initializer.extend(kept)
    text = base64.b64encode(network.SerializeToString(deterministic=True)).decode()
    model.metadata_props.add(key=NETWORK, value=text)


def _contents(graph: onnx.GraphProto) -> tuple[list[bytes], dict[str, bytes], list[bytes]]:
    """What a graph computes."""
    nodes = []
    for node in graph.node:
        plain = onnx.NodeProto()
        plain.CopyFrom(node)
        plain.ClearField("doc_string")
        nodes.append(plain.SerializeToString(deterministic=True))
    weights = {i.name: array_of(i).tobytes() for i in graph.initializer}
    ends = [v.name.encode() for v in (*graph.input, *graph.output)]
    return nodes, weights, ends


class _Unroller:
    """Writes one graph; ``_made`` holds the tensors of the step that is being written, by name."""

    def __init__(self, snn: Snn) -> None:
        self._snn = snn
        self._graph = snn.graph.copy()
        neurons = neuron_nodes(self._graph)
        self._spiking = spiking_nodes(self._graph, neurons)
        self._dtype = float_type(neurons[0])
        self._shapes = of_one_step(snn)
        self._names = Names(self._graph)
        self._on_grid = EXACT in snn.carried.metadata
        self._inside = {id(node) for node in self._spiking}
        self._made: dict[str, gs.Tensor] = {}
        self._state: dict[str, gs.Tensor] = {}
        self._total: dict[str, gs.Tensor] = {}
        self._constants: dict[str, gs.Constant] = {}
        self._once: dict[str, gs.Variable] = {}
        self._new: list[gs.Node] = []
        self._t = 0

    def unrolled(self) -> gs.Graph:
        graph = self._graph
        decodes = [n for n in graph.nodes if is_ours(n, "Decode")]
        skipped = self._only_summed()
        for t in range(1, self._snn.timesteps + 1):
            self._t, self._made = t, {}
            for node in self._spiking:
                if id(node) not in skipped:
                    self._step(node)
            for name in dict.fromkeys(decode.inputs[0].name for decode in decodes):
                total, now = self._total.get(name), self._made[name]
                if total is not None:
                    now = self._emit("Add", [total, now], name, "total")
                self._total[name] = now
        steps = np.asarray(self._snn.timesteps, self._dtype)
        count = constant(self._names.fresh("time_steps"), steps)
        for decode in decodes:
            decode.op, decode.domain, decode.attrs = "Div", None, {}
            decode.inputs = [self._total[decode.inputs[0].name], count]
        for node in graph.nodes:
            if is_ours(node, "Encode"):
                node.op, node.domain, node.attrs = "Identity", None, {}
        for node in self._spiking:
            node.outputs.clear()
            node.inputs.clear()
        graph.nodes = [n for n in graph.nodes if id(n) not in self._inside] + self._new
        graph.cleanup().toposort()
        return graph

    # --- one node, one step -----------------------------------------------------------------------

    def _step(self, node: gs.Node) -> None:
        if is_ours(node, *NEURON_OPS):
            self._fire(node)
        elif is_ours(node, "MaxPoolCounts"):
            self._pool(node)
        else:
            outputs = [gs.Variable(f"{t.name}/{self._t}", t.dtype) for t in node.outputs]
            inputs = [self._now(t) for t in node.inputs]
            copy = make_node(
                node.op, inputs, outputs, f"{node.name}/{self._t}", node.attrs, node.domain or ""
            )
            self._new.append(copy)
            for old, new in zip(node.outputs, outputs, strict=True):
                self._made[old.name] = new

    def _now(self, tensor: gs.Tensor) -> gs.Tensor:
        """The tensor at this step; the same at every step where it does not spike."""
        return self._made.get(tensor.name, tensor)

    def _emit(
        self, op: str, inputs: list[gs.Tensor], base: str, role: str = "", **attrs: object
    ) -> gs.Variable:
        name = f"{base}/{role}/{self._t}" if role else f"{base}/{self._t}"
        output = gs.Variable(name, np.bool_ if op == "GreaterOrEqual" else self._dtype)
        self._new.append(make_node(op, inputs, [output], name, attrs))
        return output

    def _fire(self, node: gs.Node) -> None:
        spikes = node.outputs[0].name
        made = self._fire_unit(node) if self._is_unit(node) else self._fire_plain(node)
        made.name = f"{spikes}/{self._t}"
        self._made[spikes] = made

    def _fire_plain(self, node: gs.Node) -> gs.Variable:
        """``v = u + z; f = v >= theta; u = v - f * theta``, in the order of `neurons`."""
        found = parameters(node)
        theta = self._stored(f"{node.name}_threshold", found.threshold)
        start = np.asarray(found.threshold, self._dtype) * self._dtype.type(found.initial)
        before = self._state.get(node.name)
        if before is None:
            before = self._stored(f"{node.name}_start", start)
        v = self._emit("Add", [before, self._now(node.inputs[0])], node.name, "reached")
        reached = self._emit("GreaterOrEqual", [v, theta], node.name, "fires")
        kind = int(onnx.helper.np_dtype_to_tensor_dtype(self._dtype))
        fired = self._emit("Cast", [reached], node.name, "fired", to=kind)
        reset = self._emit("Mul", [fired, theta], node.name, "reset")
        self._state[node.name] = self._emit("Sub", [v, reset], node.name, "membrane")
        amplitude = self._stored(f"{node.name}_amplitude", found.amplitude)
        return self._emit("Mul", [fired, amplitude], node.name, "spikes")

    def _fire_unit(self, node: gs.Node) -> gs.Variable:
        a = self._state.get(node.name)
        for term in self._terms(node.inputs[0]):
            a = self._less(a, term, node.name)
        assert a is not None
        if a in self._once.values():
            a = self._emit("Identity", [a], node.name, "first")
        a.name = f"{node.name}/{MEMBRANE}/{self._t}"
        spikes = self._emit("HardSigmoid", [a], node.name, "spikes", **_STEEP)
        self._state[node.name] = self._emit("Add", [a, spikes], node.name, AFTER)
        return spikes

    def _pool(self, node: gs.Node) -> None:
        attrs = {name: value for name, value in node.attrs.items() if name != "unit"}
        unit, x, name = float(node.attrs["unit"]), self._now(node.inputs[0]), node.name
        value = self._stored(f"{name}_unit", np.asarray(unit))
        counts = x if unit == 1 else self._emit("Div", [x, value], name, "counts")
        total = self._total.get(f"{name}/sum")
        total = counts if total is None else self._emit("Add", [total, counts], name, "sum")
        self._total[f"{name}/sum"] = total
        pooled = self._emit("MaxPool", [total], name, "pooled", **attrs)
        before = self._state.get(name)
        self._state[name] = pooled
        grown = pooled if before is None else self._emit("Sub", [pooled, before], name, "grown")
        if unit != 1:
            grown = self._emit("Mul", [grown, value], name, "scaled")
        self._made[node.outputs[0].name] = grown

    # --- the sum that a neuron integrates, negated ------------------------------------------------

    def _is_unit(self, node: gs.Node) -> bool:
        found = parameters(node)
        plain = found.threshold.size == 1 and found.amplitude.size == 1
        return bool(
            self._on_grid
            and self._dtype == np.float32
            and plain
            and found.threshold == 1
            and found.amplitude == 1
            and found.initial == 0.5
        )

    def _terms(self, tensor: gs.Tensor) -> list[gs.Tensor]:
        """The tensors that add up to ``tensor``, where nothing else reads the sums in between."""
        node = producer(tensor)
        if node is None or not is_standard(node, "Add") or not self._is_private(node):
            return [tensor]
        if any(is_constant(t) for t in node.inputs):
            return [tensor]
        return [term for t in node.inputs for term in self._terms(t)]

    def _is_private(self, node: gs.Node) -> bool:
        """Runs at each step, for one reader."""
        return id(node) in self._inside and len(node.outputs[0].outputs) == 1

    def _only_summed(self) -> set[int]:
        """Nodes that are written by the neurons that read them: private sums, and their weights."""
        found: set[int] = set()
        for neuron in self._spiking:
            if not (is_ours(neuron, *NEURON_OPS) and self._is_unit(neuron)):
                continue
            waiting = [neuron.inputs[0]]
            while waiting:
                node = producer(waiting.pop())
                if node is None or not self._is_private(node):
                    continue
                if is_standard(node, "Add") and not any(is_constant(t) for t in node.inputs):
                    found.add(id(node))
                    waiting += node.inputs
                elif self._negatable(node):
                    found.add(id(node))
        return found

    def _negatable(self, node: gs.Node) -> bool:
        if is_standard(node, "Conv"):
            return all(is_constant(t) for t in node.inputs[1:])
        return is_standard(node, "Mul") and self._channels(node) is not None

    def _channels(self, node: gs.Node) -> int | None:
        """Of a Mul of an image by a constant, one number or one per channel."""
        tensor, factor = node.inputs[0], node.inputs[1]
        size = self._shapes.get(tensor.name)
        if size is None or len(size) != 3 or size[0] is None or is_constant(tensor):
            return None
        if not is_constant(factor) or factor.values.size not in (1, size[0]):
            return None
        whole = factor.values.size == 1 or factor.values.shape[-3:] == (size[0], 1, 1)
        return size[0] if whole else None

    def _less(self, a: gs.Variable | None, term: gs.Tensor, layer: str) -> gs.Variable:
        """``a - term``."""
        negated = self._negated(term, layer)
        if negated is None:
            size = self._shapes.get(term.name)
            if size is not None and len(size) == 3 and size[0] is not None and self._spikes(term):
                minus = np.full((size[0], 1, 1, 1), -1.0)
                negated = self._depthwise(self._now(term), minus, layer, f"{layer}_shortcut")
            elif a is not None:
                return self._emit("Sub", [a, self._now(term)], layer, f"less_{term.name}")
            else:
                return self._emit("Neg", [self._now(term)], layer, f"minus_{term.name}")
        if a is None:
            return negated
        return self._emit("Add", [negated, a], layer, f"with_{term.name}")

    def _spikes(self, term: gs.Tensor) -> bool:
        node = producer(term)
        return node is not None and is_ours(node, *NEURON_OPS)

    def _negated(self, term: gs.Tensor, layer: str) -> gs.Variable | None:
        """Minus ``term``, from weights that are negated; None where there are none."""
        node = producer(term)
        if node is not None and is_ours(node, "Encode"):
            return self._minus_constant(term)
        if node is None or not self._is_private(node) or not self._negatable(node):
            return None
        x = self._now(data_inputs(node)[0])
        if is_standard(node, "Mul"):
            channels = self._channels(node) or 1
            factor = np.broadcast_to(node.inputs[1].values.ravel(), (channels,))
            minus = -factor.reshape(-1, 1, 1, 1)
            return self._depthwise(x, minus, f"{layer}/{term.name}", node.inputs[1].name)
        weights: list[gs.Tensor] = [
            self._stored(f"{t.name}{NEGATED}", -t.values) for t in node.inputs[1:]
        ]
        return self._emit("Conv", [x, *weights], term.name, "negated", **node.attrs)

    def _depthwise(self, x: gs.Tensor, values: np.ndarray, base: str, name: str) -> gs.Variable:
        weight = self._stored(f"{name}/depthwise", values)
        attrs = {"group": len(values), "kernel_shape": [1, 1]}
        return self._emit("Conv", [x, weight], base, "negated", **attrs)

    def _minus_constant(self, term: gs.Tensor) -> gs.Variable:
        """Minus a tensor that is the same at every step: computed once."""
        if term.name not in self._once:
            output = gs.Variable(f"{term.name}/negated", self._dtype)
            self._new.append(make_node("Neg", [term], [output], output.name))
            self._once[term.name] = output
        return self._once[term.name]

    def _stored(self, name: str, values: np.ndarray) -> gs.Constant:
        if name not in self._constants:
            self._constants[name] = constant(name, np.asarray(values, self._dtype))
        return self._constants[name]
