"""Find the activations by what they compute, and write each as one node.

Requires a graph after `normalise` and `fold_batchnorm`. Ensures that every elementwise function of
one tensor that is a staircase is a single ``na_convert::Staircase`` node, and every clip and ReLU
a ``na_convert::Ramp`` node, between the tensors that the spelling had at its ends. What is affine
stays as it is, and so does what is neither; the latter is reported, not raised: in front of the
first weights and behind the last it does no harm.

Cases:

* round, floor, ceil, Cast, QuantizeLinear, QONNX Quant, IntQuant, BipolarQuant and Trunc, ladders
  of comparisons (unrolled, or along an extra axis), and any mixture of these with clips;
* branches that meet again: ``0.5 * (|x| - |x - a| + a)``, ``x + (round(x) - x)``, Where;
* Relu in front of a quantiser, gains and offsets behind it: one staircase;
* constants that differ by channel, falling steps, levels that do not start at zero;
* several readers: the function is cut where a tensor is needed by others, and both parts stay;
* one quantiser with several dequantisers: one staircase, shared;
* a second quantiser that changes nothing, directly or behind MaxPool and Flatten: dropped;
* a second quantiser that does change something: a staircase of its own;
* a Reshape in the middle: moved in front;
* Clip, Relu, Relu6, HardSigmoid, hardtanh: a ramp;
* uneven levels, rounding without a clip, noise, smooth activations, custom operators: refused;
* functions of integers (shapes, indices): not looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from na_convert import graph as g
from na_convert.activation import Ramp, Staircase
from na_convert.activation_search import Found, Search
from na_convert.explanation import Explanation, explain
from na_convert.neurons import DOMAIN
from na_convert.results import PassReport

__all__ = ["Explanation", "explain", "run"]

_NAME = "find_activations"


def run(graph: gs.Graph) -> PassReport:
    """Replace the activations of ``graph`` in place.

    The node's output is the tensor that held the activation's value, its first input the root; its
    name is that of the last node of the spelling. Refused are functions that are neither affine nor
    an activation, and operators of unknown domains.
    """
    graph.toposort()
    found = Search(graph).run()
    names = g.Names(graph)
    for activation in found.activations:
        _replace(graph, activation, names)
    for same in found.same:
        other = _in_layout(graph, same.other, same.layouts, names)
        _redirect(graph, same.tensor, other, names)
        for tensor in same.altered:
            tensor.name = names.fresh(f"{tensor.name}_unclipped")
    graph.cleanup().toposort()
    return PassReport(_NAME, len(found.activations), (), found.refused, found.notes)


def _replace(graph: gs.Graph, found: Found, names: g.Names) -> None:
    """Compute the activation's output by one node."""
    function, activation = found.function, found.activation
    last = function.nodes[-1]
    name, last.name = g.label(last), names.fresh(f"{g.label(last)}_replaced")
    root = _in_layout(graph, function.root, function.layouts, names)
    shape = function.parameter_shape
    parameters = [
        g.constant(names.fresh(f"{name}_{label}"), _shaped(values, shape, function.dtype))
        for label, values in _parameters(activation)
    ]
    function.output.inputs.clear()
    attrs: dict[str, object]
    if isinstance(activation, Staircase):
        attrs = {"levels": activation.levels, "tie_rule": activation.tie_rule}
    else:
        attrs = {"kind": "clip" if activation.bounded else "relu"}
    op = "Staircase" if isinstance(activation, Staircase) else "Ramp"
    graph.nodes.append(
        g.node(op, [root, *parameters], [function.output], name, attrs, domain=DOMAIN)
    )


def _parameters(activation: Staircase | Ramp) -> list[tuple[str, NDArray[Any]]]:
    if isinstance(activation, Staircase):
        return [
            ("input_step", activation.input_step),
            ("output_step", activation.output_step),
            ("lowest_level", activation.lowest_level),
            ("phase", activation.phase),
        ]
    return [
        ("low", activation.low),
        ("high", activation.high),
        ("output_low", activation.output_low),
        ("gain", activation.gain),
    ]


def _shaped(values: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A scalar where all channels agree, else ``shape``."""
    flat = np.ravel(values)
    if np.all(flat == flat[0]):
        return np.asarray(flat[0], dtype)
    return flat.reshape(shape).astype(dtype)


def _in_layout(
    graph: gs.Graph, tensor: gs.Tensor, layouts: tuple[gs.Node, ...], names: g.Names
) -> gs.Tensor:
    """``tensor`` put through copies of ``layouts``: an elementwise function may as well follow."""
    for node in layouts:
        copy = gs.Variable(names.fresh(f"{node.outputs[0].name}_root"), dtype=tensor.dtype)
        name = names.fresh(f"{g.label(node)}_root")
        inputs = [tensor, *node.inputs[1:]]
        graph.nodes.append(g.node(node.op, inputs, [copy], name, dict(node.attrs)))
        tensor = copy
    return tensor


def _redirect(graph: gs.Graph, old: gs.Tensor, new: gs.Tensor, names: g.Names) -> None:
    """Let the readers of ``old`` read ``new``, which always holds the same values."""
    old.inputs.clear()
    if g.is_output(graph, old):
        graph.nodes.append(g.node("Identity", [new], [old], names.fresh(f"{old.name}_same")))
    for consumer in list(old.outputs):
        consumer.inputs = [new if t is old else t for t in consumer.inputs]
