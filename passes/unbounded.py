"""ReLUs between neurons that nothing bounds: why, and what would."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_graphsurgeon as gs

from na_convert.graph import is_ours, label
from na_convert.results import Refusal


def without_threshold(relu: gs.Node) -> Refusal:
    """The refusal of ``relu``, a Ramp; where a quantiser stands beside it, who passes it by."""
    value, root = relu.outputs[0], relu.inputs[0]
    quantisers = _named(n for n in (*value.outputs, *root.outputs) if is_ours(n, "Staircase"))
    others = _named(n for n in value.outputs if not is_ours(n, "Staircase"))
    reason = "a ReLU has no upper bound, so there is no threshold to read"
    remedy = "train with a clipped, quantised activation, or give --calibrate DATA.npz"
    if quantisers and others:
        reason = f"a ReLU has no upper bound: {quantisers} quantises it, and {others} does without"
        remedy = f"quantise in front of all readers: let {others} read what {quantisers} gives"
    return Refusal(label(relu), "Relu", reason, remedy)


def _named(nodes: Iterable[gs.Node]) -> str:
    return ", ".join(repr(label(node)) for node in nodes)
