"""BatchNormalization, and what exporters decompose it into, goes into the linear layers.

In inference it is ``gain * x + shift`` per channel, ``gain = scale / sqrt(var + epsilon)`` and
``shift = bias - mean * gain``, in float64. The folded layer's output takes the name of the
BatchNormalization's. Cases, each with its test:

* behind Conv, ConvTranspose (grouped too), Gemm (transB, alpha, beta), MatMul, MatMul + Add
* behind a Conv whose bias is an Add of a constant per channel: both fold
* one behind the other: both fold
* weights shared with another layer: the folded layer gets its own
* the layer's output is used elsewhere, too, or is a graph output: Mul and Add in its place
* before Conv, Gemm or MatMul + Add: into the weights where exact, that is, where nothing is padded
  or the shift is zero; otherwise Mul and Add
* behind Concat, an activation, or on [N, C] without a layer: Mul and Add
* scale 0; float16 that would overflow (left as Mul and Add)
* computed parameters, unknown number of axes, a gain beyond float16: left as they are, with the
  reason
* training_mode=1: refused
* Sub/Div/Mul/Add of constants per channel behind a layer (BatchNormalization decomposed), and Add
  of a constant per channel into a bias; not where a rounding follows: that is a quantiser's own
  scale and offset
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from na_convert.graph import is_constant, is_output, is_standard, label, rename, sole_consumer
from na_convert.results import PassReport, Refusal, Skip

from .linear_layers import Affine, Linear, input_channels, linear_layer, scale_input, scale_output
from .node_builder import Builder
from .per_channel import affine_chain
from .walk_shapes import ranks

NAME = "fold_batchnorm"
_EVAL = "export in eval mode: model.eval(), and training=TrainingMode.EVAL"


def run(graph: gs.Graph) -> PassReport:
    """Fold in place; `changed` counts the nodes that went or changed."""
    changed, skipped, refused = 0, [], []
    known_ranks = ranks(graph)
    builder = Builder(graph)
    merged: dict[int, Affine] = {}
    for node in list(graph.nodes):
        if is_standard(node, "BatchNormalization"):
            outcome = _fold(builder, node, known_ranks, merged)
            if isinstance(outcome, Refusal):
                refused.append(outcome)
            else:
                done, reason = outcome
                changed += done
                skipped += [Skip(label(node), reason)] if reason else []
    for node in list(graph.nodes):
        changed += _fold_decomposed(builder, node, known_ranks)
    graph.cleanup().toposort()
    return PassReport(NAME, changed, tuple(skipped), tuple(refused))


def _fold(
    b: Builder, node: gs.Node, ranks: dict[str, int], merged: dict[int, Affine]
) -> tuple[bool, str] | Refusal:
    """Whether ``node`` went, and why it did not go into a layer ("" if it did).

    ``merged`` holds, by node, the affine function of one in front of it that has gone already.
    """
    if _is_training(node):
        return Refusal(
            label(node), node.op, "normalises by the statistics of the batch (training mode)", _EVAL
        )
    if not all(is_constant(t) for t in node.inputs[1:]):
        return False, "its parameters are computed in the graph"
    affine = _affine(node)
    if id(node) in merged:
        affine = merged[id(node)].then(affine)
    reason = _fold_behind(b, node, affine, ranks)
    if reason == "" or _merge_into_next(b, node, affine, merged):
        return True, ""
    ahead = _fold_before(b, node, affine, ranks)
    if ahead == "":
        return True, ""
    why = "; ".join(r for r in (reason, ahead) if r) or "no linear layer next to it"
    return _write_out(b, node, affine, ranks, why)


def _is_training(node: gs.Node) -> bool:
    return bool(int(node.attrs.get("training_mode", 0)))


def _merge_into_next(b: Builder, node: gs.Node, affine: Affine, merged: dict[int, Affine]) -> bool:
    """Hand ``affine`` on to the BatchNormalization behind ``node``, if there is one."""
    y = node.outputs[0]
    after = sole_consumer(b.graph, y)
    if after is None or not is_standard(after, "BatchNormalization") or _is_training(after):
        return False
    if after.inputs[0] is not y or not all(is_constant(t) for t in after.inputs[1:]):
        return False
    merged[id(after)] = affine
    rename(b.graph, y, node.inputs[0])
    return b.remove(node)


def _affine(node: gs.Node) -> Affine:
    scale, bias, mean, variance = (np.asarray(t.values, np.float64) for t in node.inputs[1:5])
    epsilon = float(np.float32(node.attrs.get("epsilon", 1e-5)))
    gain = scale / np.sqrt(variance + epsilon)
    return Affine(gain, bias - mean * gain)


def _fold_behind(b: Builder, node: gs.Node, affine: Affine, ranks: dict[str, int]) -> str | None:
    """ "" if folded into the layer before it, None if there is none, else the reason."""
    x = node.inputs[0]
    linear = linear_layer(b.graph, x, ranks)
    if not isinstance(linear, Linear):
        return linear
    if sole_consumer(b.graph, x) is None:
        return "the layer before it is used elsewhere, too"
    output = b.take_output(node)
    if scale_output(b, linear, affine, output):
        b.remove(node)
        return ""
    node.outputs = [output]
    return "the type of the weights cannot hold the product"


def _fold_before(b: Builder, node: gs.Node, affine: Affine, ranks: dict[str, int]) -> str | None:
    """ "" if folded into the one layer after it, None if there is none, else the reason."""
    y = node.outputs[0]
    consumer = sole_consumer(b.graph, y)
    if consumer is None or not is_standard(consumer, "Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    if consumer.inputs[0] is not y:
        return "it computes the weights of the next layer"
    after = sole_consumer(b.graph, consumer.outputs[0])
    added = after is not None and is_standard(consumer, "MatMul") and is_standard(after, "Add")
    end = after.outputs[0] if after is not None and added else consumer.outputs[0]
    linear = linear_layer(b.graph, end, ranks)
    if not isinstance(linear, Linear):
        linear = linear_layer(b.graph, consumer.outputs[0], ranks)
    if not isinstance(linear, Linear):
        return linear
    if input_channels(linear) != len(affine.gain):
        return "the next layer's inputs are not its channels"
    reason = scale_input(b, linear, affine)
    if reason:
        return reason
    rename(b.graph, y, node.inputs[0])
    b.remove(node)
    return ""


def _write_out(
    b: Builder, node: gs.Node, affine: Affine, ranks: dict[str, int], why: str
) -> tuple[bool, str]:
    """Mul and Add in place of ``node``; the second only where it does something."""
    x, base = node.inputs[0], label(node)
    rank = ranks.get(x.name)
    if rank is None:
        return False, f"{why}; and how many axes its input has is unknown"
    shape = (-1, *[1] * (rank - 2))
    dtype = node.inputs[1].dtype
    with np.errstate(over="ignore"):
        scale, offset = (v.astype(dtype).reshape(shape) for v in (affine.gain, affine.shift))
    if not (np.all(np.isfinite(scale)) and np.all(np.isfinite(offset))):
        return False, f"{why}; and {dtype} cannot hold its gain and shift"
    gain, shift = b.constant(f"{base}_gain", scale), b.constant(f"{base}_shift", offset)
    output = b.take_output(node)
    if not np.any(shift.values):
        b.emit_into("Mul", [x, gain], output)
    else:
        scaled = b.emit("Mul", [x, gain], f"{output.name}_scaled")
        ranks[scaled.name] = rank
        b.emit_into("Add", [scaled, shift], output)
    b.remove(node)
    return True, f"kept as Mul and Add: {why}"


def _fold_decomposed(b: Builder, node: gs.Node, ranks: dict[str, int]) -> int:
    """Fold the per-channel Sub/Div/Mul/Add behind the layer that ``node`` computes, if it does."""
    if not node.outputs:
        return 0
    linear = linear_layer(b.graph, node.outputs[0], ranks)
    if not isinstance(linear, Linear) or is_output(b.graph, linear.output):
        return 0
    rank = ranks.get(linear.output.name)
    chain = affine_chain(b.graph, linear, rank) if rank else None
    if chain is None:
        return 0
    output = chain.nodes[-1].outputs[0]
    chain.nodes[-1].outputs.clear()
    if not scale_output(b, linear, chain.affine, output):
        chain.nodes[-1].outputs = [output]
        return 0
    for each in chain.nodes:
        b.remove(each)
    return len(chain.nodes)
