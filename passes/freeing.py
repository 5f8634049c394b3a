"""What the modules that free the batch share: the work in progress, and ways to name the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from na_convert.graph import label
from na_convert.large_batch import REMEDY
from na_convert.results import Refusal, Skip

from .node_builder import Builder
from .walk_shapes import Trial

BATCH_FIRST = (
    "transpose it: the batch has to be its first axis (recurrent and CTC heads have time there)"
)


@dataclass
class Freeing:
    """The work in progress: the graph, its trials, the batch that the model fixes (or None)."""

    graph: gs.Graph
    builder: Builder
    trials: list[Trial]
    fixed: int | None
    changed: int = 0
    skipped: list[Skip] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

    def refuse(self, node: gs.Node, reason: str) -> None:
        self.refused.append(Refusal(label(node), node.op, reason, REMEDY))

    def refuse_order(self, node: gs.Node, output: str, axis: int) -> None:
        reason = f"output {output} has its samples along axis {axis}, not 0"
        self.refused.append(Refusal(label(node), node.op, reason, BATCH_FIRST))

    def skip(self, node: gs.Node, reason: str) -> None:
        self.skipped.append(Skip(label(node), reason))


def with_batch_of(work: Freeing, x: gs.Tensor, rest: gs.Tensor, base: str) -> gs.Tensor:
    """The shape tensor that starts with the batch of ``x`` and goes on with ``rest``."""
    batch = work.builder.emit("Shape", [x], f"{base}_batch", {"start": 0, "end": 1}, np.int64)
    return work.builder.emit("Concat", [batch, rest], f"{base}_shape", {"axis": 0}, np.int64)


def with_network_batch(
    work: Freeing, before: Sequence[int], after: Sequence[int], base: str
) -> gs.Tensor:
    """A shape tensor: the batch of the network's input between ``before`` and ``after``."""
    b = work.builder
    batch = b.emit(
        "Shape", [work.graph.inputs[0]], f"{base}_batch", {"start": 0, "end": 1}, np.int64
    )
    parts = [
        b.constant(f"{base}_{where}", np.asarray(sizes, np.int64))
        for where, sizes in (("before", before), ("after", after))
    ]
    shape = b.emit("Concat", [parts[0], batch, parts[1]], f"{base}_shape", {"axis": 0}, np.int64)
    for trial in work.trials:
        full = [*before, trial.batch, *after]
        trial.values[shape.name] = np.asarray(full, np.int64)
        trial.shapes[shape.name] = (len(full),)
    return shape
