"""Parts of a model, run in onnxruntime with the values of chosen inner tensors given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from .errors import ModelError
from .runtime import session

Array: TypeAlias = NDArray[Any]
Runner: TypeAlias = Callable[[Mapping[str, Array]], dict[str, Array]]

_COMPUTED = "/computed"


def cut_model(model: onnx.ModelProto, cuts: Collection[str], outputs: Sequence[str]) -> Runner:
    """A function from values of the inputs and of the tensors ``cuts`` to the tensors ``outputs``.

    Only what lies between is run. An output that is also cut is computed by its node, while its
    readers get the value that was fed. Values that are not needed may be given too. The session
    is made at the first call.

    Raises ModelError (at the first call) where a value is missing, or onnxruntime does not take
    the part.
    """
    runner: list[Callable[[Mapping[str, Array]], dict[str, Array]]] = []

    def run(values: Mapping[str, Array]) -> dict[str, Array]:
        if not outputs:
            return {}
        if not runner:
            runner.append(_prepare(model, set(cuts), list(dict.fromkeys(outputs)), values))
        return runner[0](values)

    return run


def _prepare(
    model: onnx.ModelProto, cuts: set[str], outputs: list[str], values: Mapping[str, Array]
) -> Runner:
    nodes = _between(model.graph, cuts, outputs)
    computed = {name: name + _COMPUTED for name in outputs if name in cuts}
    part = onnx.ModelProto()
    part.CopyFrom(_without_graph(model))
    part.graph.name = model.graph.name or "part"
    for node in nodes:
        copy = part.graph.node.add()
        copy.CopyFrom(node)
        copy.output[:] = [computed.get(name, name) for name in node.output]
    made = {name for node in part.graph.node for name in node.output}
    read = {name for node in nodes for name in _reads(node)} | set(outputs)
    part.graph.initializer.extend(
        i for i in model.graph.initializer if i.name in read and i.name not in cuts
    )
    stored = {i.name for i in part.graph.initializer}
    inputs = {i.name: i for i in model.graph.input}
    for name in sorted(read - made - set(computed)) + sorted(set(computed) & read):
        if name in stored and name not in inputs:
            continue
        if name in inputs and name not in cuts:
            part.graph.input.append(inputs[name])
        elif name in values:
            part.graph.input.append(_value_info(name, np.asarray(values[name])))
        elif name not in computed:
            raise ModelError(f"tensor {name!r} has no value", node=name)
    part.graph.output.extend(onnx.ValueInfoProto(name=computed.get(n, n)) for n in outputs)
    runner = session(part)
    wanted = [i.name for i in part.graph.input]
    names = [computed.get(name, name) for name in outputs]

    def run(values: Mapping[str, Array]) -> dict[str, Array]:
        feeds = {name: np.asarray(values[name]) for name in wanted if name in values}
        return dict(zip(outputs, runner.run(names, feeds), strict=True))

    return run


def _between(
    graph: onnx.GraphProto, cuts: set[str], outputs: Sequence[str]
) -> list[onnx.NodeProto]:
    """The nodes that ``outputs`` need, in order, down to ``cuts``."""
    needed, chosen = set(outputs), []
    computed = needed & cuts  # wanted although cut
    for node in reversed(graph.node):
        made = set(node.output) & needed
        if made and (made - cuts or made & computed):
            chosen.append(node)
            needed.update(_reads(node))
    return chosen[::-1]


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that ``node`` reads; those its subgraphs take from outside included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            body = attribute.g
            local = {i.name for i in [*body.input, *body.initializer]}
            local |= {name for inner in body.node for name in inner.output}
            inner_reads = [name for inner in body.node for name in _reads(inner)]
            outer = [*inner_reads, *(o.name for o in body.output)]
            yield from (name for name in outer if name not in local)


def _without_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    shell = onnx.ModelProto(ir_version=model.ir_version)
    shell.opset_import.extend(model.opset_import)
    shell.functions.extend(model.functions)
    return shell


def _value_info(name: str, value: Array) -> onnx.ValueInfoProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return onnx.helper.make_tensor_value_info(name, kind, [None] * value.ndim)
