"""Every tensor between neurons as counts, or as a weighted sum of counts.

`read` walks the spiking part of an `Snn` and says of each of its tensors which of the two it is, in
real numbers (float64); `quantise_weights` makes integers of them. Cases:

* the output of a neuron: counts, each worth the amplitude;
* Concat, Slice, Split, Gather, Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Pad with zeros,
  DepthToSpace, SpaceToDepth, Identity of counts: counts again, moved; each keeps what it is worth;
* MaxPool of counts that are worth the same, or of a sum in front of a neuron;
* AveragePool, GlobalAveragePool and ReduceMean over the image of counts: their sums, worth
  ``1 / k^2`` as much;
* Mul, Div, Neg by constants per channel: worth more or less, of a sum as well;
* Conv, Gemm, MatMul of counts with constant weights: a sum; Add and Sub of sums and counts: a sum;
* Add of a constant per channel: an offset, part of the next layer's bias; behind a padding of zeros
  it is a map, not a bias;
* an Encode'd tensor: an analog current.

Anything else is refused by name: two linear operators in a row, sums over more than 255 spikes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert import kernels
from na_convert.graph import is_constant, is_missing, is_ours, is_standard, label
from na_convert.integer import Move, Window
from na_convert.integer import move as apply
from na_convert.results import Refusal
from na_convert.shapes import of_one_step
from na_convert.snn import Snn, neuron_nodes, parameters

Array: TypeAlias = NDArray[np.float64]

MOST = 255  # a count is a uint8
FOLDED = "use the folded form with float weights (--weights float)"


@dataclass(frozen=True)
class Counts:
    """A uint8 tensor. In one sample it is worth ``scale * N + t * offset`` after t steps.

    Attributes:
        shape: of one sample.
        scale, offset: broadcast against one sample.
        most: no count is larger after the last step.
    """

    name: str
    shape: tuple[int, ...]
    scale: Array
    offset: Array
    most: int


@dataclass(frozen=True)
class Term:
    """Real weights [O, I / group, ...] times what the counts `source` are worth.

    ``window`` is None for a dense layer.
    """

    source: Counts
    weight: Array
    window: Window | None


@dataclass(frozen=True)
class Sum:
    """Terms, counts times a gain, analog tensors times a gain, and a bias per step.

    Gains and bias broadcast against one sample. ``pool``: attributes of a max-pool over the sum.
    """

    terms: tuple[Term, ...] = ()
    identities: tuple[tuple[Counts, Array], ...] = ()
    analogs: tuple[tuple[str, Array], ...] = ()
    bias: Array = field(default_factory=lambda: np.zeros(()))
    pool: dict[str, object] | None = None


Value: TypeAlias = Counts | Sum


@dataclass(frozen=True)
class Reading:
    """What `read` found.

    Attributes:
        order: moves of counts, and names of neuron nodes, in the order of the graph.
        currents: of each neuron, by node name.
        values: by tensor name.
        refused: nodes that integers cannot do; the others are still read.
    """

    order: tuple[Move | str, ...]
    currents: dict[str, Sum]
    values: dict[str, Value]
    refused: tuple[Refusal, ...]


class _Refused(Exception):
    def __init__(self, reason: str, remedy: str = FOLDED) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


def read(network: Snn, timesteps: int) -> Reading:
    """Read every neuron's current in ``network``; counts reach at most ``timesteps``."""
    reader = _Reader(network, timesteps)
    for node in network.graph.nodes:
        reader.visit(node)
    return Reading(tuple(reader.order), reader.currents, reader.values, tuple(reader.refused))


class _Reader:
    def __init__(self, network: Snn, timesteps: int) -> None:
        self.shapes = {neuron.name: neuron.shape for neuron in network.neurons}
        self.sizes = of_one_step(network)
        self.neurons = {id(node) for node in neuron_nodes(network.graph)}
        self.timesteps = timesteps
        self.order: list[Move | str] = []
        self.currents: dict[str, Sum] = {}
        self.values: dict[str, Value] = {}
        self.refused: list[Refusal] = []

    def visit(self, node: gs.Node) -> None:
        if is_ours(node, "Encode"):
            encoded = Sum(analogs=((node.inputs[0].name, np.ones(())),))
            self.values[node.outputs[0].name] = encoded
        elif id(node) in self.neurons:
            self._neuron(node)
        elif not is_ours(node, "Decode") and any(t.name in self.values for t in node.inputs):
            if is_standard(node, "Shape", "Size"):
                return
            try:
                self._operator(node)
            except _Refused as why:
                self.refused.append(Refusal(label(node), node.op, why.reason, why.remedy))

    def _neuron(self, node: gs.Node) -> None:
        current = self.values.get(node.inputs[0].name)
        if current is not None:
            self.currents[node.name] = _as_sum(current)
            self.order.append(node.name)
        amplitude = np.asarray(parameters(node).amplitude, np.float64)
        name = node.outputs[0].name
        nothing = np.zeros(())
        self.values[name] = Counts(name, self.shapes[node.name], amplitude, nothing, self.timesteps)

    def _operator(self, node: gs.Node) -> None:
        rule = _MAX_POOL if is_ours(node, "MaxPoolCounts") else _RULES.get(node.op)
        if rule is None or not (is_ours(node) or is_standard(node)):
            raise _Refused(f"{node.op} of counts has no integer form here")
        for tensor, value in zip(node.outputs, rule(self, node), strict=False):
            self.values[tensor.name] = value

    # --- what the rules need ----------------------------------------------------------------------

    def value(self, tensor: gs.Tensor) -> Value:
        if tensor.name not in self.values:
            raise _Refused(f"its input {tensor.name!r} was refused")
        return self.values[tensor.name]

    def rank(self, node: gs.Node) -> int:
        """Number of axes of the node's output, the batch included."""
        size = self.sizes.get(node.outputs[0].name)
        if size is None:
            raise _Refused("its number of axes is not known", "export with static image sizes")
        return len(size) + 1

    def counts(self, tensor: gs.Tensor) -> Counts:
        value = self.value(tensor)
        if isinstance(value, Sum):
            raise _Refused(
                "works on a sum of currents, with no neurons in between",
                f"put a quantised activation before it, or {FOLDED}",
            )
        return value

    def moved(self, output: str, move: Move, sources: Sequence[Counts]) -> Counts:
        """Counts after ``move``; what they are worth moves with them."""
        self.order.append(move)
        scale = apply(move, [_whole(c.scale, c.shape) for c in sources])[0]
        offset = apply(move, [_whole(c.offset, c.shape) for c in sources])[0]
        shape = scale.shape
        most = max(c.most for c in sources)
        return Counts(output, shape, _narrow(scale), _narrow(offset), most)


# --- moves ----------------------------------------------------------------------------------------


def _identity(reader: _Reader, node: gs.Node) -> list[Value]:
    return [reader.value(node.inputs[0])]


def _concat(reader: _Reader, node: gs.Node) -> list[Value]:
    sources = [reader.counts(t) for t in node.inputs]
    rank = len(sources[0].shape) + 1
    if int(node.attrs["axis"]) % rank != 1:
        raise _Refused("joins counts along another axis than the channels")
    name = node.outputs[0].name
    move = Move(name, "Concat", tuple(c.name for c in sources), {"axis": 1})
    return [reader.moved(name, move, sources)]


def _reshape(reader: _Reader, node: gs.Node) -> list[Value]:
    source = reader.counts(node.inputs[0])
    shape = _reshaped(node, source.shape)
    name = node.outputs[0].name
    target = np.asarray([-1, *shape], np.int64)
    return [reader.moved(name, Move(name, "Reshape", (source.name,), {}, (target,)), [source])]


def _reshaped(node: gs.Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    """One sample's shape behind a Reshape, Flatten, Squeeze or Unsqueeze that keeps the batch."""
    if node.op == "Flatten":
        axis = int(node.attrs.get("axis", 1))
        if axis != 1:
            raise _Refused("flattens more than each sample by itself")
        return (int(np.prod(shape)),)
    rank = len(shape) + 1
    if node.op in ("Squeeze", "Unsqueeze"):
        axes = _constant_ints(node, 1, "axes")
        if node.op == "Squeeze":
            gone = {a % rank for a in axes}
            return tuple(n for i, n in enumerate(shape, 1) if i not in gone)
        wide = [0, *shape]
        for axis in sorted(a % (rank + len(axes)) for a in axes):
            wide.insert(axis, 1)
        return tuple(wide[1:])
    target = node.inputs[1]
    if is_constant(target):
        sizes = [int(n) for n in target.values][1:]
        kept = [shape[i] if n == 0 and i < len(shape) else n for i, n in enumerate(sizes)]
        return np.empty(shape, np.bool_).reshape(kept).shape
    known = node.outputs[0].shape
    if known and all(isinstance(n, int) for n in known[1:]):
        return tuple(int(n) for n in known[1:])
    if known is not None and len(known) == 2:
        return (int(np.prod(shape)),)
    raise _Refused("its target shape is computed at run time", "export with static image sizes")


def _transpose(reader: _Reader, node: gs.Node) -> list[Value]:
    source = reader.counts(node.inputs[0])
    order = [int(i) for i in node.attrs.get("perm") or range(len(source.shape), -1, -1)]
    name = node.outputs[0].name
    return [reader.moved(name, Move(name, "Transpose", (source.name,), {"perm": order}), [source])]


def _slice(reader: _Reader, node: gs.Node) -> list[Value]:
    source = reader.counts(node.inputs[0])
    starts, ends = _constant_ints(node, 1, "starts"), _constant_ints(node, 2, "ends")
    axes = _constant_ints(node, 3, "axes", list(range(len(starts))))
    steps = _constant_ints(node, 4, "steps", [1] * len(starts))
    return [_sliced(reader, node.outputs[0].name, source, (starts, ends, axes, steps))]


def _split(reader: _Reader, node: gs.Node) -> list[Value]:
    source = reader.counts(node.inputs[0])
    axis = int(node.attrs.get("axis", 0)) % (len(source.shape) + 1)
    parts = len(node.outputs)
    total = source.shape[axis - 1]
    even = [-(-total // parts)] * (parts - 1)
    sizes = _constant_ints(node, 1, "split", [*even, total - sum(even)])
    ends = np.cumsum(sizes).tolist()
    return [
        _sliced(reader, tensor.name, source, ([end - size], [end], [axis], [1]))
        for tensor, size, end in zip(node.outputs, sizes, ends, strict=True)
    ]


def _sliced(reader: _Reader, name: str, source: Counts, where: tuple[list[int], ...]) -> Counts:
    constants = tuple(np.asarray(each, np.int64) for each in where)
    return reader.moved(name, Move(name, "Slice", (source.name,), {}, constants), [source])


def _gather(reader: _Reader, node: gs.Node) -> list[Value]:
    source = reader.counts(node.inputs[0])
    if not is_constant(node.inputs[1]):
        raise _Refused("its indices are computed at run time")
    axis = int(node.attrs.get("axis", 0)) % (len(source.shape) + 1)
    name, indices = node.outputs[0].name, np.asarray(node.inputs[1].values, np.int64)
    move = Move(name, "Gather", (source.name,), {"axis": axis}, (indices,))
    return [reader.moved(name, move, [source])]


def _pad(reader: _Reader, node: gs.Node) -> list[Value]:
    source = reader.counts(node.inputs[0])
    value = node.inputs[2] if len(node.inputs) > 2 and not is_missing(node.inputs[2]) else None
    zero = value is None or (is_constant(value) and not np.any(value.values))
    axes = len(node.inputs) > 3 and not is_missing(node.inputs[3])
    pads = _constant_ints(node, 1, "pads")
    if node.attrs.get("mode", "constant") != "constant" or not zero or axes or min(pads) < 0:
        raise _Refused("pads with something other than zeros all around")
    if np.any(source.offset):
        raise _Refused("pads activations whose lowest level is not zero")
    name = node.outputs[0].name
    move = Move(name, "Pad", (source.name,), {}, (np.asarray(pads, np.int64),))
    moved = reader.moved(name, move, [source])
    new_channels = pads[1] or pads[len(pads) // 2 + 1]
    if new_channels or _per_channel(source.scale, source.shape) is None:
        return [moved]
    return [replace(moved, scale=source.scale)]  # a zero may be worth what its channel is


def _blocks(reader: _Reader, node: gs.Node) -> list[Value]:
    source = reader.counts(node.inputs[0])
    attributes = {"blocksize": int(node.attrs["blocksize"])}
    if node.op == "DepthToSpace":
        attributes["mode"] = node.attrs.get("mode", "DCR")
    name = node.outputs[0].name
    return [reader.moved(name, Move(name, node.op, (source.name,), attributes), [source])]


# --- pooling --------------------------------------------------------------------------------------


def _max_pool(reader: _Reader, node: gs.Node) -> list[Value]:
    attributes = {k: v for k, v in node.attrs.items() if k != "unit"}
    name, value = node.outputs[0].name, reader.value(node.inputs[0])
    if isinstance(value, Sum):
        if value.identities or value.analogs or value.pool or len(value.terms) != 1:
            raise _Refused("takes the maximum of a sum of several currents")
        return [replace(value, pool=attributes)]
    if _per_channel(value.scale, value.shape) is None or np.any(value.scale <= 0):
        raise _Refused(
            "takes the maximum of spikes that are not worth the same, or less than nothing"
        )
    move = Move(name, "MaxPool", (value.name,), attributes)
    reader.order.append(move)
    shape = apply(move, [np.zeros((1, *value.shape), np.uint8)]).shape[1:]
    return [Counts(name, shape, value.scale, value.offset, value.most)]


def _average_pool(reader: _Reader, node: gs.Node) -> list[Value]:
    source = reader.counts(node.inputs[0])
    kernel, strides, pads = _average_window(node, source.shape)
    counted = any(pads) and not int(node.attrs.get("count_include_pad", 0))
    if counted or int(node.attrs.get("ceil_mode", 0)):
        raise _Refused("averages over windows of unlike size (its padding does not count)")
    if any(pads) and np.any(source.offset):
        raise _Refused("pads activations whose lowest level is not zero")
    size = int(np.prod(kernel))
    if source.most * size > MOST:
        raise _Refused(
            f"adds up {size} counts of up to {source.most}, which a uint8 does not hold",
            f"take T up to {reader.timesteps * MOST // (source.most * size)}, or {FOLDED}",
        )
    if _per_channel(source.scale, source.shape) is None:
        raise _Refused("averages spikes that are not worth the same")
    name = node.outputs[0].name
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    move = Move(name, "SumPool", (source.name,), attributes)
    reader.order.append(move)
    shape = apply(move, [np.zeros((1, *source.shape), np.uint8)]).shape[1:]
    if node.op == "ReduceMean" and not int(node.attrs.get("keepdims", 1)):
        reader.order[-1] = replace(move, output=f"{name}_sum")
        target = np.asarray([-1, *shape[:1]], np.int64)
        reader.order.append(Move(name, "Reshape", (f"{name}_sum",), {}, (target,)))
        channels = np.zeros(shape[:1])
        scale = _channels(source.scale, source.shape) / size + channels
        offset = _channels(source.offset, source.shape) + channels
        return [Counts(name, shape[:1], scale, offset, source.most * size)]
    return [Counts(name, shape, source.scale / size, source.offset, source.most * size)]


def _average_window(
    node: gs.Node, shape: tuple[int, ...]
) -> tuple[list[int], list[int], list[int]]:
    space = list(shape[1:])
    if node.op == "AveragePool":
        kernel = [int(k) for k in node.attrs["kernel_shape"]]
        rank = len(kernel)
        if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            raise _Refused("auto_pad depends on the image size", "export with explicit pads")
        if any(int(d) != 1 for d in node.attrs.get("dilations") or []):
            raise _Refused("averages with dilations")
        strides = [int(s) for s in node.attrs.get("strides") or [1] * rank]
        return kernel, strides, [int(p) for p in node.attrs.get("pads") or [0] * 2 * rank]
    if node.op == "ReduceMean":
        axes = _constant_ints(node, 1, "axes")
        rank = len(shape) + 1
        if sorted(a % rank for a in axes) != list(range(2, rank)):
            raise _Refused("averages over something other than the whole image")
    return space, [1] * len(space), [0] * 2 * len(space)


# --- arithmetic -----------------------------------------------------------------------------------


def _add(reader: _Reader, node: gs.Node) -> list[Value]:
    signs = [1.0, -1.0] if node.op == "Sub" else [1.0] * len(node.inputs)
    known = [t for t in node.inputs if not is_constant(t)]
    values = [
        _scaled(reader.value(t), np.asarray(sign))
        for t, sign in zip(node.inputs, signs, strict=True)
        if t in known
    ]
    constant = sum(
        (
            sign * _of_one_sample(t, reader.rank(node))
            for t, sign in zip(node.inputs, signs, strict=True)
            if is_constant(t)
        ),
        start=np.zeros(()),
    )
    if len(values) == 1 and isinstance(values[0], Counts):
        return [replace(values[0], offset=values[0].offset + constant)]
    total = _as_sum(values[0])
    for value in values[1:]:
        total = _plus(total, _as_sum(value))
    if total.pool is not None and (len(values) > 1):
        raise _Refused("adds to the maximum of a sum of currents")
    return [replace(total, bias=total.bias + constant)]


def _plus(a: Sum, b: Sum) -> Sum:
    if a.pool is not None or b.pool is not None:
        raise _Refused("adds to the maximum of a sum of currents")
    return Sum(
        a.terms + b.terms, a.identities + b.identities, a.analogs + b.analogs, a.bias + b.bias
    )


def _mul(reader: _Reader, node: gs.Node) -> list[Value]:
    if node.op == "Neg":
        return [_scaled(reader.value(node.inputs[0]), np.asarray(-1.0))]
    data, other = node.inputs
    if is_constant(data) and node.op == "Mul":
        data, other = other, data
    if not is_constant(other):
        raise _Refused("multiplies counts by something that is computed at run time")
    value = reader.value(data)
    factor = _of_one_sample(other, reader.rank(node))
    return [_scaled(value, 1 / factor if node.op == "Div" else factor)]


def _scaled(value: Value, factor: Array) -> Value:
    if np.all(factor == 1):
        return value
    if isinstance(value, Counts):
        return replace(value, scale=value.scale * factor, offset=value.offset * factor)
    if value.pool is not None and np.any(factor <= 0):
        raise _Refused("turns the sign of a maximum of currents")
    return Sum(
        tuple(replace(t, weight=_times_outputs(t.weight, factor)) for t in value.terms),
        tuple((counts, gain * factor) for counts, gain in value.identities),
        tuple((name, gain * factor) for name, gain in value.analogs),
        value.bias * factor,
        value.pool,
    )


def _times_outputs(weight: Array, factor: Array) -> Array:
    if factor.size == 1:
        return weight * factor.reshape(())
    if factor.size != weight.shape[0] or factor.shape[0] != factor.size:
        raise _Refused("scales a current by something other than a number per channel")
    return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))


def _as_sum(value: Value) -> Sum:
    if isinstance(value, Sum):
        return value
    plain = replace(value, offset=np.zeros(()))
    return Sum(identities=((plain, np.ones(())),), bias=value.offset)


def _of_one_sample(tensor: gs.Tensor, rank: int) -> Array:
    """A constant that broadcasts against [N, ...], of ``rank`` with N, as one against a sample."""
    values = np.asarray(tensor.values, np.float64)
    if values.ndim < rank:
        return values
    if values.ndim > rank or values.shape[0] != 1:
        raise _Refused("its constant differs between samples")
    return np.asarray(values[0])


# --- weights --------------------------------------------------------------------------------------


def _conv(reader: _Reader, node: gs.Node) -> list[Value]:
    source = reader.counts(node.inputs[0])
    weight = _weight(node)
    rank = weight.ndim - 2
    kernel = weight.shape[2:]
    strides = tuple(int(s) for s in node.attrs.get("strides") or [1] * rank)
    dilations = tuple(int(d) for d in node.attrs.get("dilations") or [1] * rank)
    pairs = kernels._pads(node, source.shape[1:], kernel, strides, dilations)
    pads = (*(a for a, _ in pairs), *(b for _, b in pairs))
    group = int(node.attrs.get("group", 1))
    window = Window(strides, pads, dilations, group)
    scale = _channels_or_refuse(source, "convolves")
    per_group = scale.reshape(group, 1, weight.shape[1], *[1] * rank)
    grouped = weight.reshape(group, -1, *weight.shape[1:]) * per_group
    term = Term(source, grouped.reshape(weight.shape), window)
    bias = _bias(node).reshape(-1, *[1] * rank) + _offset_answer(source, weight, window)
    return [Sum(terms=(term,), bias=bias)]


def _offset_answer(source: Counts, weight: Array, window: Window) -> Array:
    """What the convolution makes of an offset: a number per channel, a map behind zero padding."""
    rank = weight.ndim - 2
    if not np.any(source.offset):
        return np.zeros((weight.shape[0], *[1] * rank))
    offset = _whole(source.offset, source.shape)
    node = gs.Node("Conv", attrs=window.attributes())
    answer = kernels.conv(node, [offset, weight], np.dtype(np.float64))[0]
    vector = answer.reshape(len(answer), -1)
    if not any(window.pads) and np.ptp(vector, axis=1).max() <= 1e-12 * np.abs(vector).max():
        return np.asarray(vector[:, :1].reshape(-1, *[1] * rank))
    return np.asarray(answer)


def _dense(reader: _Reader, node: gs.Node) -> list[Value]:
    source = reader.counts(node.inputs[0])
    weight = _weight(node)
    if len(source.shape) != 1 or weight.ndim != 2:
        raise _Refused("multiplies a stack of matrices")
    if node.op == "Gemm":
        if int(node.attrs.get("transA", 0)):
            raise _Refused("multiplies the transposed counts")
        weight = weight if int(node.attrs.get("transB", 0)) else weight.T
        weight = weight * float(node.attrs.get("alpha", 1.0))
        bias = _bias(node) * float(node.attrs.get("beta", 1.0))
    else:
        weight, bias = weight.T, np.zeros(1)
    offset = np.broadcast_to(source.offset, source.shape)
    scale = np.broadcast_to(source.scale, source.shape)
    return [Sum(terms=(Term(source, weight * scale, None),), bias=bias + weight @ offset)]


def _weight(node: gs.Node) -> Array:
    if not is_constant(node.inputs[1]):
        raise _Refused("its weights are computed in the graph")
    return np.asarray(node.inputs[1].values, np.float64)


def _bias(node: gs.Node) -> Array:
    if len(node.inputs) < 3 or is_missing(node.inputs[2]):
        return np.zeros(1)
    if not is_constant(node.inputs[2]):
        raise _Refused("its bias is computed in the graph")
    return np.asarray(node.inputs[2].values, np.float64).ravel()


# --- per channel ----------------------------------------------------------------------------------


def _whole(values: Array, shape: tuple[int, ...]) -> Array:
    return np.asarray(np.broadcast_to(values, (1, *shape)))


def _narrow(values: Array) -> Array:
    """The same, as one number or as [C, 1, ...], where that says it all."""
    if values.size and np.all(values == values.flat[0]):
        return np.asarray(values.flat[0])
    if values.ndim > 1:
        first = values[(slice(None), *[slice(0, 1)] * (values.ndim - 1))]
        if np.all(values == first):
            return np.asarray(first)
    return values


def _per_channel(values: Array, shape: tuple[int, ...]) -> Array | None:
    """``values`` [C], or None where they differ within a channel."""
    narrow = _narrow(np.broadcast_to(values, shape))
    if narrow.size in (1, shape[0]) and (narrow.size == 1 or narrow.shape[0] == shape[0]):
        return np.asarray(np.broadcast_to(narrow.reshape(-1), shape[:1]))
    return None


def _channels(values: Array, shape: tuple[int, ...]) -> Array:
    found = _per_channel(values, shape)
    assert found is not None
    return found


def _channels_or_refuse(source: Counts, does: str) -> Array:
    found = _per_channel(source.scale, source.shape)
    if found is None:
        raise _Refused(f"{does} spikes that are worth unlike amounts within a channel")
    return found


def _constant_ints(
    node: gs.Node, position: int, attribute: str, default: list[int] | None = None
) -> list[int]:
    if attribute in node.attrs:
        return [int(i) for i in np.ravel(node.attrs[attribute])]
    if len(node.inputs) > position and not is_missing(node.inputs[position]):
        if not is_constant(node.inputs[position]):
            raise _Refused(f"its {attribute} are computed at run time", "export them as constants")
        return [int(i) for i in np.ravel(node.inputs[position].values)]
    if default is None:
        raise _Refused(f"it says nothing about its {attribute}")
    return default


Rule: TypeAlias = Callable[[_Reader, gs.Node], Sequence[Any]]

_MAX_POOL: Rule = _max_pool
_RULES: dict[str, Rule] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "Concat": _concat,
    "Conv": _conv,
    "DepthToSpace": _blocks,
    "Div": _mul,
    "Flatten": _reshape,
    "Gather": _gather,
    "Gemm": _dense,
    "GlobalAveragePool": _average_pool,
    "Identity": _identity,
    "MatMul": _dense,
    "Mul": _mul,
    "Neg": _mul,
    "Pad": _pad,
    "ReduceMean": _average_pool,
    "Reshape": _reshape,
    "Slice": _slice,
    "SpaceToDepth": _blocks,
    "Split": _split,
    "Squeeze": _reshape,
    "Sub": _add,
    "Sum": _add,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
