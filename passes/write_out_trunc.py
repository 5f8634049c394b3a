"""Write a QONNX ``Trunc`` that is no neuron as standard operators, so that onnxruntime runs it.

Runs after `find_activations`, which takes what is a staircase. A Trunc behind an average pool
rounds twice, which no even staircase does; it is part of the readout and works on the time-mean.

Cases (constant scales and bit widths; the value of `na_convert.qonnx`):

* rounding modes ROUND, HALF_EVEN, FLOOR and CEIL, version 1 (bits dropped) and 2 (output scale);
* any other rounding mode, or parameters that are not constant: refused.

Source: QONNX operator definitions, ``qonnx.custom_op.general/Trunc``, versions 1 and 2.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from na_convert import qonnx
from na_convert.graph import is_constant, label
from na_convert.results import PassReport, Refusal

from .node_builder import Builder

_ROUNDING = {"ROUND": "Round", "HALF_EVEN": "Round", "FLOOR": "Floor", "CEIL": "Ceil"}


def run(graph: gs.Graph) -> PassReport:
    """Replace every Trunc of ``graph`` in place; its output keeps its name."""
    builder = Builder(graph)
    changed = 0
    refused = []
    for node in [n for n in graph.nodes if n.domain in qonnx.DOMAINS and n.op == "Trunc"]:
        mode = str(node.attrs.get("rounding_mode", "FLOOR")).upper()
        if mode not in _ROUNDING or not all(is_constant(t) for t in node.inputs[1:]):
            reason = f"a Trunc with rounding mode {mode}, or with parameters that are not constant"
            remedy = "export with rounding mode ROUND, FLOOR or CEIL and fixed scales"
            refused.append(Refusal(label(node), "Trunc", reason, remedy))
            continue
        _write_out(builder, node, _ROUNDING[mode])
        changed += 1
    graph.cleanup().toposort()
    return PassReport("write_out_trunc", changed, refused=tuple(refused))


def _write_out(builder: Builder, node: gs.Node, rounding: str) -> None:
    scale, zero_point = (np.asarray(t.values) for t in node.inputs[1:3])
    rest = [np.asarray(t.values, np.float64) for t in node.inputs[3:]]
    name, dtype = builder.base(node), scale.dtype
    x = node.inputs[0]

    def put(op: str, value: gs.Tensor, number: object) -> gs.Tensor:
        operand = builder.constant(f"{name}_{op.lower()}", np.asarray(number, dtype))
        return builder.emit(op, [value, operand], f"{name}_{op}")

    level = builder.emit("Round", [put("Add", put("Div", x, scale), zero_point)], f"{name}_level")
    if len(rest) == 2:
        shift, output_scale = 2.0 ** (rest[0].max() - rest[1].max()), scale
        kept = put("Div", level, shift)
        offset = np.asarray(zero_point)
    else:
        output_scale = rest[1]
        shift = 2.0 ** float(np.round(np.log2(np.max(output_scale / scale))))
        signed, narrow = bool(node.attrs.get("signed", 1)), bool(node.attrs.get("narrow", 0))
        low, high = qonnx.integer_range(float(rest[-1].max()), signed, narrow)
        bounds = [builder.constant(f"{name}_bound", np.asarray(b, dtype)) for b in (low, high)]
        kept = builder.emit("Clip", [put("Div", level, shift), *bounds], f"{name}_kept")
        offset = np.asarray(zero_point / shift)
    truncated = put("Sub", builder.emit(rounding, [kept], f"{name}_truncated"), offset)
    factor = builder.constant(f"{name}_scale", np.asarray(output_scale, dtype))
    written = builder.emit_into("Mul", [truncated, factor], builder.take_output(node))
    written.name = name  # messages about the Trunc still find it
