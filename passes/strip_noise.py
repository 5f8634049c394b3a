"""Noise that training left in the graph: removed where that is what evaluation does, else refused.

Cases, each with its test:

* random values of mean zero (RandomUniformLike, RandomNormalLike, RandomUniform, RandomNormal,
  shifted and scaled by constants) added to a tensor that is rounded afterwards: Noise Adaptor in
  training mode; the tensor goes on without them
* mean not zero, or no rounding behind: refused
* random values used in any other way (Bernoulli, Multinomial, a product with data): refused
* Dropout in training mode: kept values are scaled so that its mean is its input, and evaluation
  passes the input on; so does this pass, with a note
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from na_convert import qonnx
from na_convert.graph import (
    is_constant,
    is_missing,
    is_standard,
    label,
    rename,
    sole_consumer,
)
from na_convert.results import Refusal

UNIFORM_OPS = ("RandomUniform", "RandomUniformLike")
NORMAL_OPS = ("RandomNormal", "RandomNormalLike")
RANDOM_OPS = (*UNIFORM_OPS, *NORMAL_OPS, "Bernoulli", "Multinomial")

REMEDY = "export in eval mode: model.eval(), and training=TrainingMode.EVAL"
_ROUNDING = ("Round", "Floor", "Ceil", "QuantizeLinear")
_ELEMENTWISE = (
    "Add", "Sub", "Mul", "Div", "Clip", "Relu", "Min", "Max", "Neg", "Abs", "Cast", "Identity",
    "Where", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Sign",
)  # fmt: skip
_INTEGERS = (2, 3, 4, 5, 6, 7, 12, 13)  # TensorProto's integer types
_MEAN_TOLERANCE = 1e-6  # in standard deviations


@dataclass(frozen=True)
class Noise:
    """Random values: their mean and standard deviation, and the tensor that holds them."""

    tensor: gs.Tensor
    mean: float
    deviation: float


def strip_noise(graph: gs.Graph) -> tuple[int, tuple[str, ...], tuple[Refusal, ...]]:
    """Returns how many random nodes went, notes about them, and those that are refused."""
    graph.cleanup()
    notes, refused = [], []
    for node in list(graph.nodes):
        if is_standard(node, *RANDOM_OPS):
            outcome = _strip(graph, node)
            if isinstance(outcome, Refusal):
                refused.append(outcome)
            else:
                notes.append(outcome)
    for node in list(graph.nodes):
        if _is_training_dropout(node):
            notes.append(_make_inference(node))
    graph.cleanup().toposort()
    return len(notes), tuple(notes), tuple(refused)


def _is_training_dropout(node: gs.Node) -> bool:
    if not is_standard(node, "Dropout") or len(node.inputs) < 3 or is_missing(node.inputs[2]):
        return False
    return not is_constant(node.inputs[2]) or bool(node.inputs[2].values)


def _make_inference(node: gs.Node) -> str:
    node.inputs = node.inputs[:1]
    return f"{label(node)}: Dropout in training mode passes its input on, as in evaluation"


def _strip(graph: gs.Graph, node: gs.Node) -> str | Refusal:
    noise = _noise(graph, node)
    consumer = sole_consumer(graph, noise.tensor) if noise is not None else None
    if noise is None or consumer is None or not is_standard(consumer, "Add", "Sub"):
        return _refusal(node, "random values that are not simply added to an activation")
    if abs(noise.mean) > _MEAN_TOLERANCE * noise.deviation:
        return _refusal(node, f"stochastic, and its mean is not zero but {noise.mean:g}")
    position = 1 if consumer.inputs[1] is noise.tensor else 0
    if is_standard(consumer, "Sub") and position == 0:
        return _refusal(node, "random values from which an activation is subtracted")
    if not _rounded_after(consumer):
        return _refusal(
            node, "stochastic: random values are added and no rounding follows, so that the "
            "quantiser is missing from the graph",
        )  # fmt: skip
    kept = consumer.inputs[1 - position]
    rename(graph, consumer.outputs[0], kept)
    consumer.outputs.clear()
    return f"{label(node)}: training noise of mean zero removed from {kept.name}"


def _refusal(node: gs.Node, reason: str) -> Refusal:
    return Refusal(label(node), node.op, reason, REMEDY)


def _noise(graph: gs.Graph, node: gs.Node) -> Noise | None:
    """The random tensor of ``node`` after the constants that shift and scale it."""
    if node.op in UNIFORM_OPS:
        low, high = float(node.attrs.get("low", 0.0)), float(node.attrs.get("high", 1.0))
        noise = Noise(node.outputs[0], (low + high) / 2, (high - low) / 12**0.5)
    elif node.op in NORMAL_OPS:
        mean, scale = float(node.attrs.get("mean", 0.0)), float(node.attrs.get("scale", 1.0))
        noise = Noise(node.outputs[0], mean, scale)
    else:
        return None
    for _ in range(len(graph.nodes)):
        moved = _moved(graph, noise)
        if moved is None:
            break
        noise = moved
    return noise


def _moved(graph: gs.Graph, noise: Noise) -> Noise | None:
    """The noise one node further on, if that node shifts or scales it by one constant number."""
    node = sole_consumer(graph, noise.tensor)
    if node is None or not is_standard(node, "Add", "Sub", "Mul", "Div", "Neg", "Cast"):
        return None
    output = node.outputs[0]
    if node.op in ("Neg", "Cast"):
        sign = -1.0 if node.op == "Neg" else 1.0
        return Noise(output, sign * noise.mean, noise.deviation)
    first = node.inputs[0] is noise.tensor
    other = node.inputs[1 if first else 0]
    if not is_constant(other) or other.values.size != 1:
        return None
    number = float(np.ravel(other.values)[0])
    if node.op == "Add":
        return Noise(output, noise.mean + number, noise.deviation)
    if node.op == "Sub":
        return Noise(output, (noise.mean - number) * (1 if first else -1), noise.deviation)
    if node.op == "Div" and not (first and number):
        return None
    factor = number if node.op == "Mul" else 1 / number
    return Noise(output, noise.mean * factor, noise.deviation * abs(factor))


def _rounded_after(start: gs.Node) -> bool:
    """Whether a rounding follows ``start`` before the next linear layer."""
    waiting, seen = list(start.outputs[0].outputs), set()
    while waiting:
        node = waiting.pop()
        if _rounds(node):
            return True
        if id(node) not in seen and is_standard(node, *_ELEMENTWISE):
            seen.add(id(node))
            waiting.extend(c for tensor in node.outputs for c in tensor.outputs)
    return False


def _rounds(node: gs.Node) -> bool:
    if qonnx.is_qonnx(node.domain, node.op):
        return True
    if is_standard(node, "Cast"):
        return int(node.attrs["to"]) in _INTEGERS
    return is_standard(node, *_ROUNDING)
