"""Add a constant per channel to the current of one neuron layer, and to nothing else.

Cases:

* a Conv, ConvTranspose or Gemm, or an Add of a constant, whose output only these neurons read: its
  bias, as a new constant (the old one may be shared);
* the same without a bias: a bias is added;
* anything else (a sum of two paths, a current with other readers or that is a graph output, a
  MatMul, a bias that is computed): an Add in front of the neurons.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert import graph as g

Array = NDArray[np.floating]

_BIAS_POSITION = 2  # of Conv, ConvTranspose and Gemm


def add_to_current(
    graph: gs.Graph, neuron_node: gs.Node, shift: Array, dtype: np.dtype, names: g.Names
) -> Array:
    """Add ``shift`` ([C, 1, ...] against one sample) to the current of ``neuron_node``, in place.

    ``dtype`` is the current's. Returns what was added, in float64: rounding to ``dtype`` included.
    """
    current = neuron_node.inputs[0]
    maker = g.producer(current)
    if maker is not None and g.sole_consumer(graph, current) is neuron_node:
        if g.is_standard(maker, "Conv", "ConvTranspose", "Gemm"):
            added = _into_bias(maker, shift, dtype, names)
        elif g.is_standard(maker, "Add"):
            added = _into_addend(maker, shift, dtype, names)
        else:
            added = None
        if added is not None:
            return added
    return _in_front(graph, neuron_node, shift, dtype, names)


def _into_bias(maker: gs.Node, shift: Array, dtype: np.dtype, names: g.Names) -> Array | None:
    scale = float(maker.attrs.get("beta", 1.0))
    given = len(maker.inputs) > _BIAS_POSITION and not g.is_missing(maker.inputs[_BIAS_POSITION])
    old = maker.inputs[_BIAS_POSITION] if given else None
    if (old is not None and not g.is_constant(old)) or not scale:
        return None
    if old is not None and old.values.ndim > 1 and old.values.shape[0] != 1:
        return None  # a Gemm's bias for each row
    before = np.zeros(1) if old is None else old.values.astype(np.float64).reshape(-1)
    after = (before + shift.reshape(-1) / scale).astype(dtype)
    new = g.constant(names.fresh(f"{maker.outputs[0].name}_bias"), after)
    maker.inputs = [*maker.inputs[:_BIAS_POSITION], new]
    return np.asarray((after.astype(np.float64) - before) * scale).reshape(shift.shape)


def _into_addend(maker: gs.Node, shift: Array, dtype: np.dtype, names: g.Names) -> Array | None:
    constants = [t for t in maker.inputs if g.is_constant(t)]
    if len(constants) != 1:
        return None
    (old,) = constants
    before = old.values.astype(np.float64)
    if before.ndim > shift.ndim and before.shape[0] != 1:
        return None
    after = (before + shift).astype(dtype)
    added = after.astype(np.float64) - before
    if added.size != shift.size:
        return None  # a value for each position: what rounding makes of the shift differs too
    new = g.constant(names.fresh(f"{maker.outputs[0].name}_bias"), after)
    maker.inputs = [new if t is old else t for t in maker.inputs]
    return np.asarray(added.reshape(shift.shape))


def _in_front(
    graph: gs.Graph, neuron_node: gs.Node, shift: Array, dtype: np.dtype, names: g.Names
) -> Array:
    current = neuron_node.inputs[0]
    values = shift.astype(dtype)
    constant = g.constant(names.fresh(f"{current.name}_shift"), values)
    shifted = gs.Variable(names.fresh(f"{current.name}_shifted"), dtype)
    name = names.fresh(f"{neuron_node.name}_shift")
    graph.nodes.append(g.node("Add", [current, constant], [shifted], name))
    neuron_node.inputs[0] = shifted
    return np.asarray(values.astype(np.float64))
