"""Which operators may stand between neurons: those that are affine in their spiking inputs.

Time is folded into the batch, so an operator must also leave axis 0 alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from na_convert.graph import is_constant, is_ours, is_standard
from na_convert.regions import AVERAGING_OPS, DATA_POSITIONS, feeders

from .dynamic_scales import DYNAMIC_OPS, REASON, REMEDY

REDUCTION_REMEDY = "train the network without it, or move it behind the last activation"
NORMALISATION_REMEDY = (
    "train with BatchNorm, which is constant in evaluation, or move it behind the last activation"
)


@dataclass(frozen=True)
class Obstacle:
    """Why a node cannot work on spikes, and what to do."""

    reason: str
    remedy: str


def obstacle(node: gs.Node, spiking: Sequence[bool], ranks: Mapping[str, int]) -> Obstacle | None:
    """None if ``node`` may stand between neurons; ``spiking`` says which inputs carry spikes.

    ``ranks``: the number of axes of each tensor, the batch included, where it is known.
    """
    if is_ours(node):
        return None if node.op == "MaxPoolCounts" else _unknown(node)
    rule = _RULES.get(node.op) if is_standard(node) else None
    positions = DATA_POSITIONS.get(node.op)
    if rule and positions and any(s for i, s in enumerate(spiking) if i not in positions):
        return Obstacle("its indices, sizes or axes depend on spikes", REDUCTION_REMEDY)
    if rule is None:
        return _unknown(node)
    counted = node.outputs[0] if node.op == "Unsqueeze" else node.inputs[0]
    return rule(node, spiking, ranks.get(counted.name))


def supported_operators() -> list[str]:
    """Names of the standard operators that may stand between neurons."""
    return sorted(_RULES)


def pool_attributes(node: gs.Node) -> dict[str, object]:
    """The attributes of a MaxPool, every default written out; auto_pad must be NOTSET or VALID."""
    kernel = list(node.attrs["kernel_shape"])
    rank = len(kernel)
    return {
        "kernel_shape": kernel,
        "strides": list(node.attrs.get("strides") or [1] * rank),
        "pads": list(node.attrs.get("pads") or [0] * 2 * rank),
        "dilations": list(node.attrs.get("dilations") or [1] * rank),
        "ceil_mode": int(node.attrs.get("ceil_mode", 0)),
    }


# --- rules ----------------------------------------------------------------------------------------

Rule = Callable[[gs.Node, Sequence[bool], int | None], Obstacle | None]
"""Of a node, which inputs carry spikes, and the number of axes that its axes count from."""


def _unknown(node: gs.Node) -> Obstacle:
    if node.op == "Clip" and any(not is_constant(t) and not t.is_empty() for t in node.inputs[1:]):
        return Obstacle("clips at bounds that depend on the data", REDUCTION_REMEDY)
    known = NONLINEAR.get(node.op)
    if known:
        return known
    domain = f" (domain {node.domain})" if node.domain else ""
    return Obstacle(
        f"{node.op}{domain} is not known to be affine in its input, as a sum of spikes needs",
        REDUCTION_REMEDY,
    )


def _any(node: gs.Node, spiking: Sequence[bool], rank: int | None) -> Obstacle | None:
    return None


def _one_factor(node: gs.Node, spiking: Sequence[bool], rank: int | None) -> Obstacle | None:
    """A product may have one spiking factor."""
    if sum(spiking[:2]) > 1:
        what = "attention" if node.op == "MatMul" else "gating"
        tensors = _quoted(node, 0, 1)
        return Obstacle(
            f"multiplies two spiking tensors, {tensors} ({what}): "
            "a product of means is no mean of products",
            REDUCTION_REMEDY,
        )
    return None


def _quoted(node: gs.Node, *positions: int) -> str:
    return " and ".join(repr(node.inputs[i].name) for i in positions)


def _numerator(node: gs.Node, spiking: Sequence[bool], rank: int | None) -> Obstacle | None:
    if spiking[1]:
        tensor = _quoted(node, 1)
        if any(is_standard(n, *AVERAGING_OPS) for n in feeders(node.inputs[1], node)):
            return Obstacle(
                f"divides by {tensor}, statistics of the spikes themselves", NORMALISATION_REMEDY
            )
        return Obstacle(f"divides by {tensor}, which depends on spikes", REDUCTION_REMEDY)
    return None


def _constant_weights(node: gs.Node, spiking: Sequence[bool], rank: int | None) -> Obstacle | None:
    depend = [i for i, spikes in enumerate(spiking) if i and spikes]
    if depend:
        tensors = _quoted(node, *depend)
        return Obstacle(f"its weights depend on spikes ({tensors})", REDUCTION_REMEDY)
    return None


def _not_batch(axes: Callable[[gs.Node], Sequence[int] | None]) -> Rule:
    """The named axes must not include the batch: axis 0, or that many from behind; None: unknown,
    which is refused too."""

    def rule(node: gs.Node, spiking: Sequence[bool], rank: int | None) -> Obstacle | None:
        touched = axes(node)
        if touched is None:
            return Obstacle(
                "its axes are computed at run time, so that it may touch the batch axis",
                "export with constant axes",
            )
        if 0 in touched or (rank is not None and -rank in touched):
            return Obstacle(
                "works along the batch axis, into which the time steps are folded",
                "keep samples independent of each other",
            )
        return None

    return rule


def _transposed_batch(node: gs.Node) -> Sequence[int] | None:
    order = node.attrs.get("perm")
    return [1] if order and order[0] == 0 else [0]


def _attribute_or_input(attribute: str, position: int) -> Callable[[gs.Node], Sequence[int] | None]:
    def axes(node: gs.Node) -> Sequence[int] | None:
        if attribute in node.attrs:
            value = node.attrs[attribute]
            return list(value) if isinstance(value, (list, tuple)) else [int(value)]
        if len(node.inputs) > position and not node.inputs[position].is_empty():
            tensor = node.inputs[position]
            return np.asarray(tensor.values).ravel().tolist() if is_constant(tensor) else None
        return [0]  # no axes given means all of them

    return axes


def _default_axis(default: int) -> Callable[[gs.Node], Sequence[int] | None]:
    return lambda node: [int(node.attrs.get("axis", default))]


def _slice_axes(node: gs.Node) -> Sequence[int] | None:
    if len(node.inputs) > 3 and not node.inputs[3].is_empty():
        tensor = node.inputs[3]
        return np.asarray(tensor.values).ravel().tolist() if is_constant(tensor) else None
    starts = node.inputs[1]
    return list(range(len(starts.values))) if is_constant(starts) else None


def _flatten_axes(node: gs.Node) -> Sequence[int] | None:
    return [int(node.attrs.get("axis", 1))]


def _batch_kept(node: gs.Node, spiking: Sequence[bool], rank: int | None) -> Obstacle | None:
    """Reshape targets must start with the free batch (-1 or 0); `normalise` sees to that."""
    shape = node.inputs[1]
    if is_constant(shape) and (len(shape.values) == 0 or int(shape.values[0]) not in (-1, 0)):
        return Obstacle(
            f"reshapes to {shape.values.tolist()}, so that the batch is not the first axis",
            "keep the batch on the first axis (batch_first=True); export with a dynamic batch size",
        )
    return None


def _tile(node: gs.Node, spiking: Sequence[bool], rank: int | None) -> Obstacle | None:
    repeats = node.inputs[1]
    if not is_constant(repeats) or int(np.ravel(repeats.values)[0]) != 1:
        return Obstacle(
            "repeats samples, or a number of times that is not constant",
            "keep samples independent of each other, and export with fixed sizes",
        )
    return None


def _float_cast(node: gs.Node, spiking: Sequence[bool], rank: int | None) -> Obstacle | None:
    if int(node.attrs["to"]) not in _WIDE_FLOATS:
        return Obstacle(
            "converts to a type that rounds or cuts values off",
            "keep values between activations in float32 or float16",
        )
    return None


def _chosen(node: gs.Node, spiking: Sequence[bool], rank: int | None) -> Obstacle | None:
    if spiking[0]:
        return Obstacle("chooses by a condition that depends on spikes", REDUCTION_REMEDY)
    return None


def _cumulated_axis(node: gs.Node) -> Sequence[int] | None:
    axis = node.inputs[1]
    return np.asarray(axis.values).ravel().tolist() if is_constant(axis) else None


def _einsum(node: gs.Node, spiking: Sequence[bool], rank: int | None) -> Obstacle | None:
    """Linear in one operand; its first axis, the batch, must stay first and be no other's."""
    if sum(spiking) > 1:
        return _one_factor(node, [True, True], rank)
    equation = node.attrs["equation"]
    text = equation.decode() if isinstance(equation, bytes) else str(equation)
    terms, arrow, result = text.replace(" ", "").partition("->")
    operands = terms.split(",")
    own = operands[list(spiking).index(True)] if any(spiking) else operands[0]
    batch = "..." if own.startswith("...") else own[:1]
    constant = [o for o, t in zip(operands, node.inputs, strict=True) if is_constant(t)]
    kept = arrow and result.startswith(batch) and own.count(batch) == 1
    if not kept or any(batch in other for other in constant):
        return Obstacle(
            f"the equation {text!r} does not keep the batch as first axis",
            "write the batch first in the operand and in the result",
        )
    return None


def _max_pool(node: gs.Node, spiking: Sequence[bool], rank: int | None) -> Obstacle | None:
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return Obstacle("auto_pad depends on the image size", "export with explicit pads")
    if len(node.outputs) > 1 and node.outputs[1].outputs:
        return Obstacle("the indices of its maxima are used", REDUCTION_REMEDY)
    return None


def _inference_only(node: gs.Node, spiking: Sequence[bool], rank: int | None) -> Obstacle | None:
    if int(node.attrs.get("training_mode", 0)):
        return Obstacle("computes batch statistics (training mode)", "export in eval mode")
    return _constant_weights(node, spiking, rank)


_WIDE_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)

_OPEN = "takes a {} over the batch, or over axes whose sizes are open"
_SIZES_REMEDY = "export with fixed sizes, all but the batch, or move it behind the last activation"
_STATISTICS = Obstacle("divides by statistics of the spikes themselves", NORMALISATION_REMEDY)
_RECURRENT = Obstacle("a recurrent layer has a time axis of its own", REDUCTION_REMEDY)
_BRANCHING = Obstacle("control flow that depends on data", REDUCTION_REMEDY)
_COMPARING = Obstacle("chooses by comparing spikes with each other", REDUCTION_REMEDY)

NONLINEAR: dict[str, Obstacle] = {
    "Softmax": Obstacle(
        "a softmax is not affine, so it cannot work on single spikes", REDUCTION_REMEDY
    ),
    **dict.fromkeys(
        ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "LRN"), _STATISTICS
    ),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _RECURRENT),
    **dict.fromkeys(("If", "Loop", "Scan"), _BRANCHING),
    **dict.fromkeys(("ArgMax", "ArgMin", "NonZero", "TopK"), _COMPARING),
    **dict.fromkeys(DYNAMIC_OPS, Obstacle(REASON, REMEDY)),
    "GlobalMaxPool": Obstacle(_OPEN.format("maximum"), _SIZES_REMEDY),
    "ReduceMax": Obstacle(_OPEN.format("maximum"), _SIZES_REMEDY),
    "ReduceMin": Obstacle(_OPEN.format("minimum"), _SIZES_REMEDY),
    "Max": Obstacle(
        "takes a maximum with a tensor of another shape, or with constants", REDUCTION_REMEDY
    ),
    "Min": Obstacle(
        "takes a minimum with a tensor of another shape, or with constants", REDUCTION_REMEDY
    ),
}

_RULES: dict[str, Rule] = {
    "Add": _any,
    "AveragePool": _any,
    "BatchNormalization": _inference_only,
    "Cast": _float_cast,
    "Concat": _not_batch(_default_axis(0)),
    "Conv": _constant_weights,
    "ConvTranspose": _constant_weights,
    "CumSum": _not_batch(_cumulated_axis),
    "DepthToSpace": _any,
    "Div": _numerator,
    "Einsum": _einsum,
    "Flatten": _not_batch(_flatten_axes),
    "Gather": _not_batch(_default_axis(0)),
    "Gemm": _one_factor,
    "GlobalAveragePool": _any,
    "Identity": _any,
    "MatMul": _one_factor,
    "MaxPool": _max_pool,
    "Mean": _any,
    "Mul": _one_factor,
    "Neg": _any,
    "Pad": _any,
    "ReduceMean": _not_batch(_attribute_or_input("axes", 1)),
    "ReduceSum": _not_batch(_attribute_or_input("axes", 1)),
    "Reshape": _batch_kept,
    "Resize": _any,
    "Slice": _not_batch(_slice_axes),
    "SpaceToDepth": _any,
    "Split": _not_batch(_default_axis(0)),
    "Squeeze": _not_batch(_attribute_or_input("axes", 1)),
    "Sub": _any,
    "Sum": _any,
    "Tile": _tile,
    "Transpose": _not_batch(_transposed_batch),
    "Unsqueeze": _not_batch(_attribute_or_input("axes", 1)),
    "Upsample": _any,
    "Where": _chosen,
}
