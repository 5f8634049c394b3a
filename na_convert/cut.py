"""Parts of a model, run in onnxruntime with the values of chosen inner tensors given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from .errors import ModelError
from .runtime import Backend, session, values_of

Array: TypeAlias = NDArray[Any]
Runner: TypeAlias = Callable[[Mapping[str, Array]], dict[str, Array]]


def cut_model(
    model: onnx.ModelProto,
    cuts: Collection[str],
    outputs: Sequence[str],
    threads: int = 0,
    added: Sequence[onnx.NodeProto] = (),
    backend: Backend | None = None,
) -> Runner:
    """A function from values of the inputs and of the tensors ``cuts`` to the tensors ``outputs``.

    Only what lies between is run. Values that are not needed may be given too. The session is made
    at the first call, with ``threads`` threads (0: as onnxruntime likes). ``added`` nodes, in
    order, may read any tensor of the model; their results can be among ``outputs``. ``backend``
    makes the session instead.

    Raises ModelError (at the first call) where a value is missing, or onnxruntime does not take
    the part.
    """
    given = [name for name in outputs if name in cuts]
    computed = [name for name in dict.fromkeys(outputs) if name not in cuts]
    make = backend or partial(session, threads=threads)
    runner: list[Runner] = []

    def run(values: Mapping[str, Array]) -> dict[str, Array]:
        if not computed:
            return {name: np.asarray(values[name]) for name in outputs}
        if not runner:
            runner.append(_prepare(model, set(cuts), computed, values, make, added))
        return {**{name: np.asarray(values[name]) for name in given}, **runner[0](values)}

    return run


def takes(model: onnx.ModelProto) -> bool:
    """Whether onnxruntime takes ``model``: it lacks many operators in double."""
    try:
        session(model)
    except ModelError:
        return False
    return True


def runs_in_onnxruntime(file: onnx.ModelProto) -> bool:
    """Whether the SNN ``file`` does: always, but in double, where many operators are missing."""
    kinds = {value.type.tensor_type.elem_type for value in file.graph.input}
    return onnx.TensorProto.DOUBLE not in kinds or takes(file)


def part_of(
    model: onnx.ModelProto,
    cuts: set[str],
    outputs: Sequence[str],
    values: Mapping[str, Array],
    added: Sequence[onnx.NodeProto] = (),
) -> tuple[onnx.ModelProto, list[str]]:
    """What lies between the inputs and ``cuts`` and the ``outputs``, as a model of its own; and
    the names of the inputs it was given, whose types are those of ``values``.

    Raises ModelError where a value is missing.
    """
    graph = model.graph
    nodes = _between([*graph.node, *added], cuts, outputs)
    read = {name for node in nodes for name in reads(node)} | set(outputs)
    inputs = {i.name: i for i in graph.input if i.name in read and i.name not in cuts}
    stored = [i for i in graph.initializer if i.name in read and i.name not in cuts]
    made = {name for node in nodes for name in node.output} | {i.name for i in stored}
    fed = sorted(read - made - set(inputs))
    missing = [name for name in fed if name not in values]
    if missing:
        raise ModelError(f"tensor {missing[0]!r} has no value", node=missing[0])
    given = [_value_info(name, np.asarray(values[name])) for name in fed]
    outside = [onnx.ValueInfoProto(name=name) for name in outputs]
    part = onnx.ModelProto(ir_version=model.ir_version)
    part.opset_import.extend(model.opset_import)
    part.functions.extend(model.functions)
    part.graph.CopyFrom(
        onnx.helper.make_graph(nodes, "part", [*inputs.values(), *given], outside, stored)
    )
    return part, [*inputs, *fed]


def _prepare(
    model: onnx.ModelProto,
    cuts: set[str],
    outputs: list[str],
    values: Mapping[str, Array],
    make: Backend,
    added: Sequence[onnx.NodeProto],
) -> Runner:
    part, wanted = part_of(model, cuts, outputs, values, added)
    runner = make(part)

    def run(values: Mapping[str, Array]) -> dict[str, Array]:
        feeds = {name: np.asarray(values[name]) for name in wanted if name in values}
        return dict(zip(outputs, values_of(runner, outputs, feeds), strict=True))

    return run


def _between(
    nodes: Sequence[onnx.NodeProto], cuts: set[str], outputs: Sequence[str]
) -> list[onnx.NodeProto]:
    """The nodes that ``outputs`` need, in order, down to ``cuts``."""
    needed, chosen = set(outputs) - cuts, []
    for node in reversed(nodes):
        if (needed - cuts).intersection(node.output):
            chosen.append(node)
            needed.update(reads(node))
    return chosen[::-1]


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that ``node`` reads; those its subgraphs take from outside included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            body = attribute.g
            local = {i.name for i in [*body.input, *body.initializer]}
            local |= {name for inner in body.node for name in inner.output}
            inner_reads = [name for inner in body.node for name in reads(inner)]
            outer = [*inner_reads, *(o.name for o in body.output)]
            yield from (name for name in outer if name not in local)


def _value_info(name: str, value: Array) -> onnx.ValueInfoProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return onnx.helper.make_tensor_value_info(name, kind, [None] * value.ndim)
