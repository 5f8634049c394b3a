"""ONNX protobufs to onnx-graphsurgeon graphs and back, without losing what graphsurgeon drops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import DTypeLike, NDArray
from onnx_graphsurgeon.importers.onnx_importer import OnnxImporter

from . import neurons
from .errors import ModelError
from .protos import array_of, stays_in_file

STANDARD_DOMAINS = ("", "ai.onnx")
LARGE = 1024  # bytes; larger constants travel beside a model, not inside (`Parts`)


@dataclass(frozen=True)
class Carried:
    """What graphsurgeon does not keep, to be written back by `export_graph`.

    Docs and metadata of nodes are by the name of their first output, which passes do not change.
    Nodes of ours are documented anew by each form.
    """

    ir_version: int
    producer: str
    model_doc: str
    graph_doc: str
    metadata: dict[str, str]
    node_docs: dict[str, str] = field(default_factory=dict)
    node_metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    outputs_by_node: dict[str, str] = field(default_factory=dict)
    input_docs: dict[str, str] = field(default_factory=dict)

    def with_metadata(self, extra: dict[str, str]) -> Carried:
        return replace(self, metadata={**self.metadata, **extra})


def import_graph(model: onnx.ModelProto) -> tuple[gs.Graph, Carried]:
    """A graph for the passes, and what has to be carried past it.

    Local functions other than ours must have been inlined before; ours stay nodes.
    """
    carried = Carried(
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        model_doc=model.doc_string,
        graph_doc=model.graph.doc_string,
        metadata={p.key: p.value for p in model.metadata_props},
        node_docs={
            n.output[0]: n.doc_string
            for n in model.graph.node
            if n.doc_string and n.output and n.domain != neurons.DOMAIN
        },
        node_metadata={
            n.output[0]: {p.key: p.value for p in n.metadata_props}
            for n in model.graph.node
            if n.metadata_props and n.output
        },
        outputs_by_node={n.name: n.output[0] for n in model.graph.node if n.name and n.output},
        input_docs={
            i.name: i.doc_string for i in [*model.graph.input, *model.graph.output] if i.doc_string
        },
    )
    graph = OnnxImporter.import_graph(  # as gs.import_onnx does, but for the functions
        model.graph,
        opset=OnnxImporter.get_opset(model),
        import_domains=OnnxImporter.get_import_domains(model),
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        ir_version=model.ir_version,
    )
    # Nothing may point into the protobuf: its weights stay in memory until the last pointer goes.
    graph.import_domains = [
        onnx.helper.make_opsetid(i.domain, i.version) for i in model.opset_import
    ]
    for tensor in graph.tensors().values():
        if is_constant(tensor):
            _read(tensor)
    graph.opset = next(i.version for i in model.opset_import if i.domain in STANDARD_DOMAINS)
    return graph, carried


def _read(constant: gs.Constant) -> None:
    """Have its values in an array."""
    stored = getattr(constant._values, "tensor", None)
    if isinstance(stored, onnx.TensorProto) and stays_in_file(stored):
        constant.values, constant.data_location = array_of(stored), None
    constant.values = np.asarray(constant.values)


@dataclass(frozen=True)
class Parts:
    """A model in two parts, so that large weights need not exist twice.

    Attributes:
        light: the model without its large initialisers.
        weights: those initialisers by name, in the graph's own memory.
    """

    light: onnx.ModelProto
    weights: dict[str, NDArray[np.generic]]

    def whole(self) -> onnx.ModelProto:
        """The model with copies of the weights inside; the light part is not changed."""
        model = onnx.ModelProto()
        model.CopyFrom(self.light)
        for name, values in self.weights.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        return model

    @property
    def bytes(self) -> int:
        """Of the weights beside the model."""
        return sum(values.nbytes for values in self.weights.values())

    def referring(self, location: str, offsets: Mapping[str, int]) -> onnx.ModelProto:
        """The model, its large weights external data at ``offsets`` (else 0) of ``location``."""
        model = onnx.ModelProto()
        model.CopyFrom(self.light)
        for name, values in self.weights.items():
            tensor = model.graph.initializer.add(name=name, dims=values.shape)
            tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            place = {
                "location": location,
                "offset": offsets.get(name, 0),
                "length": values.nbytes,
            }
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
        return model

    def typed(self) -> onnx.ModelProto:
        """The light model with its weights as inputs: for the checker and shape inference."""
        model = onnx.ModelProto()
        model.CopyFrom(self.light)
        for name, values in self.weights.items():
            kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
            value = onnx.helper.make_tensor_value_info(name, kind, values.shape)
            model.graph.input.append(value)
        return model


def export_graph(graph: gs.Graph, carried: Carried) -> onnx.ModelProto:
    """The model of ``graph``, with our functions added and everything carried put back.

    Raises ModelError where the graph's opset is below 17 and it holds nodes of our domain.
    """
    return export_parts(graph, carried).whole()


def export_parts(graph: gs.Graph, carried: Carried) -> Parts:
    """As `export_graph`, with the large weights beside the model instead of inside."""
    opset = int(graph.opset)
    ours = [node.op for node in all_nodes(graph) if node.domain == neurons.DOMAIN]
    if ours and opset < 17:
        raise ModelError(f"opset {opset} is too old for spiking nodes; they need opset 17")
    imports = {i.domain: i.version for i in graph.import_domains or [] if i.domain}
    if ours:
        imports[neurons.DOMAIN] = neurons.DOMAIN_VERSION
    domains = [onnx.helper.make_opsetid(d, v) for d, v in [("", opset), *sorted(imports.items())]]
    light, weights = _without_large_constants(graph)
    light.import_domains = list(domains)
    model = gs.export_onnx(light, do_type_check=False)
    del model.opset_import[:]
    model.opset_import.extend(domains)
    model.functions.extend(neurons.functions_used(ours, opset))
    model.ir_version = max(carried.ir_version, 8) if ours else max(carried.ir_version, 4)
    model.doc_string = carried.model_doc
    model.graph.doc_string = carried.graph_doc
    onnx.helper.set_model_props(model, dict(sorted(carried.metadata.items())))
    for node in model.graph.node:
        if node.output and not node.doc_string:
            node.doc_string = carried.node_docs.get(node.output[0], "")
        if node.output and not node.metadata_props:
            properties = carried.node_metadata.get(node.output[0], {})
            onnx.helper.set_metadata_props(node, dict(sorted(properties.items())))
    for value in [*model.graph.input, *model.graph.output]:
        value.doc_string = carried.input_docs.get(value.name, "")
    return Parts(model, weights)


def _without_large_constants(graph: gs.Graph) -> tuple[gs.Graph, dict[str, NDArray[np.generic]]]:
    """A copy of ``graph`` whose large constants are nameless-typed variables, and their values."""
    light = graph.copy()
    weights: dict[str, NDArray[np.generic]] = {}
    stand_ins: dict[int, gs.Variable] = {}
    outputs = {id(t) for t in light.outputs}
    for node in light.nodes:
        for position, tensor in enumerate(node.inputs):
            if not is_constant(tensor) or id(tensor) in outputs:
                continue
            values = tensor.values
            if values.nbytes <= LARGE or values.dtype.hasobject:
                continue
            if id(tensor) not in stand_ins:
                stand_ins[id(tensor)] = gs.Variable(tensor.name)
                weights[tensor.name] = values
            node.inputs[position] = stand_ins[id(tensor)]
    return light, weights


# --- questions about a graph ----------------------------------------------------------------------


def is_ours(node: gs.Node, *ops: str) -> bool:
    """Whether ``node`` belongs to the domain na_convert (and is one of ``ops``, if given)."""
    return node.domain == neurons.DOMAIN and (not ops or node.op in ops)


def is_standard(node: gs.Node, *ops: str) -> bool:
    """Whether ``node`` is one of ONNX's own operators ``ops``."""
    return (node.domain or "") in STANDARD_DOMAINS and (not ops or node.op in ops)


def producer(tensor: gs.Tensor) -> gs.Node | None:
    """The node that computes ``tensor``; None for inputs and constants."""
    return tensor.inputs[0] if tensor.inputs else None


def is_constant(tensor: gs.Tensor) -> bool:
    return isinstance(tensor, gs.Constant)


def is_missing(tensor: gs.Tensor) -> bool:
    """Whether an optional node input was left out (an empty name)."""
    return bool(tensor.is_empty())


def is_output(graph: gs.Graph, tensor: gs.Tensor) -> bool:
    return any(tensor is output for output in graph.outputs)


def sole_consumer(graph: gs.Graph, tensor: gs.Tensor) -> gs.Node | None:
    """The one node that reads ``tensor``, once; None if others do or it is a graph output.

    The one guard against rewriting a value that somebody else needs.
    """
    if is_output(graph, tensor) or len(tensor.outputs) != 1:
        return None
    return tensor.outputs[0]


def tensors_by_name(graph: gs.Graph) -> dict[str, gs.Tensor]:
    """Every tensor of the main graph by name (empty ones left out)."""
    found: dict[str, gs.Tensor] = {t.name: t for t in [*graph.inputs, *graph.outputs]}
    for node in graph.nodes:
        for tensor in [*node.inputs, *node.outputs]:
            if tensor.name:
                found[tensor.name] = tensor
    return found


def all_nodes(graph: gs.Graph) -> Iterator[gs.Node]:
    """The nodes of the graph and of its subgraphs."""
    for node in graph.nodes:
        yield node
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                yield from all_nodes(value)


def op_counts(nodes: Iterable[gs.Node]) -> dict[str, int]:
    return dict(sorted(Counter(node.op for node in nodes).items()))


def label(node: gs.Node) -> str:
    """The name under which messages speak of ``node``."""
    return str(node.name or (node.outputs[0].name if node.outputs else node.op))


# --- building -------------------------------------------------------------------------------------


class Names:
    """Fresh names for nodes and tensors of one graph."""

    def __init__(self, graph: gs.Graph) -> None:
        self._taken = set(tensors_by_name(graph)) | {node.name for node in graph.nodes}

    def fresh(self, base: str) -> str:
        name, count = base, 1
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name


def constant(name: str, values: NDArray[np.generic]) -> gs.Constant:
    """A new initialiser; shared ones are never edited, new ones take their place."""
    return gs.Constant(name, np.ascontiguousarray(values).reshape(np.shape(values)))


class Computed(gs.Constant):  # type: ignore[misc]
    """An initialiser of ``shape`` and ``dtype`` whose values are computed each time they are read:
    for a view of a network whose weights would take as much memory as the network again."""

    def __init__(
        self,
        name: str,
        shape: Sequence[int],
        dtype: DTypeLike,
        compute: Callable[[], NDArray[np.generic]],
    ) -> None:
        super().__init__(name, np.broadcast_to(np.zeros((), dtype), tuple(shape)))
        self._compute = compute

    @property
    def values(self) -> NDArray[np.generic]:
        return self._compute()

    def copy(self) -> Computed:
        return Computed(self.name, self.shape, self.dtype, self._compute)


def node(
    op: str,
    inputs: list[gs.Tensor],
    outputs: list[gs.Tensor],
    name: str,
    attrs: dict[str, object] | None = None,
    domain: str = "",
) -> gs.Node:
    return gs.Node(
        op=op, name=name, attrs=dict(attrs or {}), inputs=inputs, outputs=outputs,
        domain=domain or None,
    )  # fmt: skip


def rename(graph: gs.Graph, old: gs.Tensor, new: gs.Tensor) -> None:
    """Make every consumer of ``old``, and the graph's outputs, read ``new`` instead."""
    for consumer in list(old.outputs):
        consumer.inputs = [new if t is old else t for t in consumer.inputs]
    graph.outputs = [new if t is old else t for t in graph.outputs]
