"""An SNN as a NIR graph can hold it: nothing rounded, membranes that may have to start at 0.

NIR has no initial membrane. ``metadata`` writes half a threshold down beside each IF node, for
those who set it. ``pulse`` makes it by neurons in the file (`pulse`), which changes nothing here.
``bias`` adds 1/(2 T) of a threshold to the current at each of T steps: after T steps the same
charge has flowed in, so that under a constant current the count at T is the same; before T, and
under a current that changes, a neuron may fire later, or not at all.

A max-pool in front of the first neurons, of currents, which NIR does not have, moves behind them:
under a constant current counts do not fall when it grows, so that the largest count is that of the
largest current.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from .. import graph as g
from ..exactness import grids_of
from ..passes.affine import pool_attributes
from ..snn import Snn, neuron_nodes
from .network import Array


@dataclass(frozen=True)
class Encoded:
    """What is written, as an SNN, and what its input has to be.

    Attributes:
        grids: by input, the power of two that its values have to be multiples of.
        changed: whether it is another network than before.
        pooled: by the layers that max-pools moved behind: these pools.
        statements: what is left to whoever runs the file.
    """

    snn: Snn
    changed: bool
    pooled: dict[str, gs.Node]
    grids: dict[str, float]
    statements: tuple[str, ...]


def encode(snn: Snn, membrane: str) -> Encoded:
    """``snn`` (thresholds 1) with its initial membrane as ``membrane`` says, and without rounding.

    With "bias" it is made for the steps of ``snn``.
    """
    graph = snn.graph.copy()
    grids, statements = _without_rounding(graph, snn)
    pooled = {} if membrane == "bias" else _pools_moved(graph)
    if membrane == "bias":
        for node in neuron_nodes(graph):
            _charge_by_bias(graph, node, snn.timesteps)
    graph.cleanup().toposort()
    changed = membrane == "bias" or bool(statements or grids or pooled)
    made = replace(snn, graph=graph)
    return Encoded(made, changed, pooled, grids, tuple(statements))


def on_grid(values: Array, grid: float) -> Array:
    """``values`` as multiples of ``grid``, a power of two, halves to even; 0: as they are."""
    return np.round(np.asarray(values, np.float64) / grid) * grid if grid else values


def _without_rounding(graph: gs.Graph, snn: Snn) -> tuple[dict[str, float], list[str]]:
    """Take out the Round nodes of a network on grids: of a stem in parts (`passes.stem_parts`), of
    an input, whose grid is then told, and of tensors inside that are constant over time. Those
    behind a quantiser of the input stay."""
    rounding = grids_of(snn).rounds
    grids: dict[str, float] = {}
    statements: list[str] = []
    rounds = [n for n in graph.nodes if n.name in rounding]
    before = {n.name: _scaled(n).inputs[0] for n in rounds}
    behind_quantiser = [
        n for n in rounds
        if (source := g.producer(before[n.name])) is not None
        and g.is_ours(source, "Staircase", "Ramp")
    ]  # fmt: skip
    in_parts = [n for n in rounds if _is_of_stem(before[n.name])]
    for node in rounds:
        if node in behind_quantiser:
            continue
        source = before[node.name]
        if node not in in_parts and g.producer(source) is None:
            factor = float(np.max(np.asarray(_scaled(node).inputs[1].values)))
            grids[source.name] = 1 / factor
        elif node not in in_parts:
            statements.append(
                f"{node.name!r} rounds a tensor that is the same at every step; NIR cannot, so "
                "that counts may differ from the SNN's where a membrane is close to its threshold"
            )
        node.op = "Identity"
    if in_parts:
        statements.append(
            "the first layer's currents are rounded by whoever computes them, in the SNN always "
            "alike: counts may differ where its membrane is within float error of the threshold"
        )
    return grids, statements


def _scaled(node: gs.Node) -> gs.Node:
    """The Mul in front of a Round node, by which `passes.on_grid` brings a tensor into units."""
    before = g.producer(node.inputs[0])
    assert before is not None
    return before


def _is_of_stem(source: gs.Tensor) -> bool:
    """Whether ``source``, which is rounded, is split into two parts, or is such a part or the sum:
    `passes.on_grid` subtracts there, and nowhere else."""
    before = g.producer(source)
    return (before is not None and g.is_standard(before, "Sub")) or any(
        g.is_standard(reader, "Sub") for reader in source.outputs
    )


def _pools_moved(graph: gs.Graph) -> dict[str, gs.Node]:
    """Move max-pools of constant currents behind the neurons that alone read them."""
    moved = {}
    for node in neuron_nodes(graph):
        entered = g.producer(node.inputs[0])
        pool = None if entered is None else g.producer(entered.inputs[0])
        if entered is None or not g.is_ours(entered, "Encode") or pool is None:
            continue
        alone = all(g.sole_consumer(graph, t) for t in (entered.outputs[0], pool.outputs[0]))
        if not g.is_standard(pool, "MaxPool") or len(pool.outputs) > 1 or not alone:
            continue
        spikes = node.outputs[0]
        unpooled = gs.Variable(f"{spikes.name}_unpooled", spikes.dtype)
        entered.inputs = [pool.inputs[0]]
        node.outputs = [unpooled]
        attributes = {**pool_attributes(pool), "unit": 1.0}
        name = f"{g.label(pool)}_of_spikes"
        made = g.node("MaxPoolCounts", [unpooled], [spikes], name, attributes, "na_convert")
        graph.nodes.append(made)
        moved[node.name] = made
    return moved


def _charge_by_bias(graph: gs.Graph, node: gs.Node, timesteps: int) -> None:
    """The charge of the initial membrane, spread over the steps."""
    current = node.inputs[0]
    share = np.asarray(float(node.attrs["initial"]) / timesteps, current.dtype or np.float32)
    constant = g.constant(f"{node.name}_start", share)
    charged = gs.Variable(f"{node.name}_charged", current.dtype)
    graph.nodes.append(g.node("Add", [current, constant], [charged], f"{node.name}_charge"))
    node.inputs = [charged, *node.inputs[1:]]
    node.attrs = {**node.attrs, "initial": 0.0}
