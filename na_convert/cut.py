"""Parts of a model, run in onnxruntime with the values of chosen inner tensors given.

A session holds the weights once more, and some of them twice, in the order that its kernels like.
So a model of more than `MOST_AT_ONCE` bytes of weights is run in pieces, one after the other, each
in a session of its own that is gone before the next is made; the pieces of a model are the same
whatever is run.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from .errors import ModelError
from .graph import Parts
from .protos import array_of, size_of
from .runtime import HEAVY, Backend, Model, engine_of, session, taken_beside, values_of

Array: TypeAlias = NDArray[Any]
Runner: TypeAlias = Callable[[Mapping[str, Array]], dict[str, Array]]


MOST_AT_ONCE = 1 << 29  # bytes of weights in one session
PIECE = 1 << 27  # bytes of weights of one piece, as far as its nodes can be divided


def cut_model(
    model: Model,
    cuts: Collection[str],
    outputs: Sequence[str],
    threads: int = 0,
    added: Sequence[onnx.NodeProto] = (),
    backend: Backend | None = None,
) -> Runner:
    """A function from values of the inputs and of the tensors ``cuts`` to the tensors ``outputs``.

    Only what lies between is run. Values that are not needed may be given too. The session is made
    at the first call, with ``threads`` threads (0: as onnxruntime likes); those of a model in
    pieces are made anew at each call. ``added`` nodes, in order, may read any tensor of the model;
    their results can be among ``outputs``. ``backend`` makes the sessions instead.

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


def takes(model: Model) -> bool:
    """Whether onnxruntime takes ``model``: it lacks many operators in double."""
    try:
        session(model)
    except ModelError:
        return False
    return True


def runs_in_onnxruntime(file: Model) -> bool:
    """Whether the SNN ``file`` does: always, but in double, where many operators are missing."""
    kinds = {value.type.tensor_type.elem_type for value in light_of(file).graph.input}
    return onnx.TensorProto.DOUBLE not in kinds or takes(file)


def part_of(
    model: Model,
    cuts: set[str],
    outputs: Sequence[str],
    values: Mapping[str, Array],
    added: Sequence[onnx.NodeProto] = (),
) -> tuple[Parts, list[str]]:
    """What lies between the inputs and ``cuts`` and the ``outputs``, as a model of its own; and
    the names of the inputs it was given, whose types are those of ``values``.

    Raises ModelError where a value is missing.
    """
    nodes = _between([*light_of(model).graph.node, *added], cuts, outputs)
    return _part(model, nodes, cuts, outputs, values)


def _part(
    model: Model,
    nodes: Sequence[onnx.NodeProto],
    cuts: set[str],
    outputs: Sequence[str],
    values: Mapping[str, Array],
) -> tuple[Parts, list[str]]:
    light = light_of(model)
    read = {name for node in nodes for name in reads(node)} | set(outputs)
    inputs = {i.name: i for i in light.graph.input if i.name in read and i.name not in cuts}
    part = onnx.ModelProto(ir_version=light.ir_version)
    part.opset_import.extend(light.opset_import)
    part.functions.extend(light.functions)
    part.graph.name = "part"
    weights = _take_weights(part, model, read - cuts)
    made = {name for node in nodes for name in node.output}
    stored = {i.name for i in part.graph.initializer} | set(weights)
    fed = sorted(read - made - stored - set(inputs))
    missing = [name for name in fed if name not in values]
    if missing:
        raise ModelError(f"tensor {missing[0]!r} has no value", node=missing[0])
    given = [_value_info(name, np.asarray(values[name])) for name in fed]
    part.graph.node.extend(nodes)
    part.graph.input.extend([*inputs.values(), *given])
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return Parts(part, weights), [*inputs, *fed]


def _take_weights(
    part: onnx.ModelProto, model: Model, names: Collection[str]
) -> dict[str, NDArray[np.generic]]:
    """Give ``part`` those weights of ``model`` that ``names`` has; returned are the large ones."""
    stored = [i for i in light_of(model).graph.initializer if i.name in names]
    if isinstance(model, onnx.ModelProto):
        return taken_beside(part, stored)
    part.graph.initializer.extend(stored)
    return {name: values for name, values in model.weights.items() if name in names}


def light_of(model: Model) -> onnx.ModelProto:
    """``model`` as far as it is a protobuf: all of it but for large weights."""
    return model.light if isinstance(model, Parts) else model


def _prepare(
    model: Model,
    cuts: set[str],
    outputs: list[str],
    values: Mapping[str, Array],
    make: Backend,
    added: Sequence[onnx.NodeProto],
) -> Runner:
    nodes = _between([*light_of(model).graph.node, *added], cuts, outputs)
    pieces = _pieces(nodes, _sizes(model, cuts))
    if len(pieces) > 1:
        return partial(_run_pieces, model, pieces, cuts, outputs, make)
    part, wanted = _part(model, nodes, cuts, outputs, values)
    runner = make(part)

    def run(values: Mapping[str, Array]) -> dict[str, Array]:
        feeds = {name: np.asarray(values[name]) for name in wanted if name in values}
        return dict(zip(outputs, values_of(runner, outputs, feeds), strict=True))

    return run


# --- in pieces ------------------------------------------------------------------------------------

Piece: TypeAlias = list[onnx.NodeProto]


def _sizes(model: Model, cuts: set[str]) -> dict[str, int]:
    """Bytes of each weight."""
    inside = {i.name: size_of(i) for i in light_of(model).graph.initializer}
    beside = {k: v.nbytes for k, v in model.weights.items()} if isinstance(model, Parts) else {}
    return {name: size for name, size in (inside | beside).items() if name not in cuts}


def _pieces(nodes: Sequence[onnx.NodeProto], sizes: Mapping[str, int]) -> list[Piece]:
    """``nodes`` in as many pieces as they need: each begins with a node that has large weights, so
    that what onnxruntime makes one of (a convolution, its bias, a sum) stays together."""
    read = {name for node in nodes for name in reads(node)}
    if sum(size for name, size in sizes.items() if name in read) <= MOST_AT_ONCE:
        return [list(nodes)]
    pieces: list[Piece] = [[]]
    held: set[str] = set()
    for node in nodes:
        own = {name for name in reads(node) if sizes.get(name, 0) > HEAVY}
        if pieces[-1] and own - held and sum(sizes[name] for name in held | own) > PIECE:
            pieces.append([])
            held = set()
        pieces[-1].append(node)
        held |= own
    return pieces


def _run_pieces(
    model: Model,
    pieces: Sequence[Piece],
    cuts: set[str],
    outputs: Sequence[str],
    make: Backend,
    values: Mapping[str, Array],
) -> dict[str, Array]:
    """``outputs``, from pieces that are each run once; what no later piece reads is let go."""
    needed = [{name for node in piece for name in reads(node)} for piece in pieces]
    known = dict(values)
    for number, piece in enumerate(pieces):
        later = set(outputs).union(*needed[number + 1 :])
        made = [name for node in piece for name in node.output if name in later]
        part, wanted = _part(model, piece, cuts, made, known)
        runner = make(part)
        feeds = {name: np.asarray(known[name]) for name in wanted if name in known}
        found = dict(zip(made, values_of(runner, made, feeds), strict=True))
        ring = engine_of(runner) != "onnxruntime"  # onnx.reference's evaluators are
        del runner, part
        if ring:
            gc.collect()
        known = {k: v for k, v in {**known, **found}.items() if k in values or k in later}
    constant = [name for name in outputs if name not in known]
    part, _ = _part(model, [], cuts, constant, {})
    known |= {i.name: array_of(i) for i in part.light.graph.initializer}
    known |= part.weights
    return {name: np.asarray(known[name]) for name in outputs}


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
