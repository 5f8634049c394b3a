"""One plain form for what exporters write in many: the first pass, and the order of its steps.

1. `fold_constants`: constant subgraphs, weight quantisers among them, become constants
2. `strip_noise`: random values of mean zero that training added; other randomness is refused
3. `plain_gathers`: Gather along the axis that is meant
4. `plain_stacks`: sums of stacked tensors without the stack
5. `plain_thresholds`: FINN's counts of thresholds in standard operators
6. `drop_noops`: Identity, Dropout in inference, casts to the same type
7. `channels_first`: onnxruntime's operators on channels-last tensors
8. `dequantise`: integer operators become float operators between Quantize- and DequantizeLinear
9. `dynamic_scales`: what takes its scale from the batch is refused, whatever comes of it
10. `free_batch`: any batch size; integers computed from shapes become constants
11. `plain_pads`: padding by rule (``auto_pad``) as numbers
12. `fold_constants` and `drop_noops` again, on what the steps before left

Shapes that the file gave inner tensors are dropped: they may be wrong from here on. Names of
tensors stay. (The opset is lifted earlier, on the ONNX model: `na_convert.lift`.) The cases are
listed in the steps' modules.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from na_convert.results import PassReport

from .channels_first import channels_first
from .dequantise import dequantise
from .drop_noops import drop_noops
from .dynamic_scales import dynamic_scales
from .fold_constants import Allowance, fold_constants
from .free_batch import free_batch
from .plain_gathers import plain_gathers
from .plain_pads import plain_pads
from .plain_stacks import plain_stacks
from .plain_thresholds import plain_thresholds
from .strip_noise import strip_noise
from .walk_shapes import infer_types

NAME = "normalise"


def run(graph: gs.Graph) -> PassReport:
    """Normalise ``graph`` in place; `changed` counts nodes changed or gone."""
    _forget_shapes(graph)
    allowance = Allowance(graph)
    folded, _ = fold_constants(graph, allowance)
    stripped, notes, stochastic = strip_noise(graph)
    infer_types(graph)
    written = plain_gathers(graph) + plain_stacks(graph) + plain_thresholds(graph)
    dropped = drop_noops(graph)
    turned = channels_first(graph)
    dropped += drop_noops(graph) if turned else 0
    taken_apart = dequantise(graph)
    changing = dynamic_scales(graph)
    freed, left_alone, fixed = free_batch(graph)
    padded = plain_pads(graph)
    folded_after, unfolded = fold_constants(graph, allowance)
    dropped_after = drop_noops(graph)
    changed = stripped + folded + written + dropped + turned + taken_apart + freed
    changed += padded + folded_after + dropped_after
    return PassReport(
        NAME,
        changed,
        skipped=(*left_alone, *unfolded),
        refused=(*stochastic, *changing, *fixed),
        notes=notes,
    )


def _forget_shapes(graph: gs.Graph) -> None:
    interface = {id(t) for t in [*graph.inputs, *graph.outputs]}
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Variable) and id(tensor) not in interface:
            tensor.shape = None
