"""Of the HTML report: energy, and the network before and after."""

from __future__ import annotations

from html import escape
from pathlib import Path

from . import svg
from .cells import file_size, joules, large, number
from .html_parts import Row, charts, details, figure, paragraph, table
from .results import Energy, Result

_OURS = ("IF", "IFPerChannel", "Encode", "Decode", "MaxPoolCounts")


def energy_section(energy: Energy) -> str:
    entries = (
        ("ANN, float", energy.ann_nj),
        ("ANN, its own bits", energy.bit_matched_nj),
        ("SNN", energy.snn_nj),
    )
    rows = [svg.Bar(name, [value], joules(value)) for name, value in entries]
    drawn = svg.bars(rows, ["s5"], "Energy per sample: " + "; ".join(
        f"{name} {joules(value)}" for name, value in entries
    ))  # fmt: skip
    caption = (
        f"<b>Energy of the arithmetic per sample</b>, at T = {energy.latency_steps}: "
        f"{energy.mac_pj:g} pJ a multiply-accumulate, {energy.ac_pj:g} pJ an accumulate "
        f"({escape(energy.source)}). Memory, neuron updates and the routing of spikes are not in "
        "it, and often cost more."
    )
    counted = table(
        ["", "MACs", "accumulates"],
        [
            Row(["ANN", large(energy.ann_macs), "–"]),
            Row(["SNN", large(energy.snn_macs), large(energy.synaptic_operations)]),
        ],
        "<b>Operations per sample.</b> An accumulate for each spike and connection",
    )
    operators = [
        Row(
            [o.name, o.op, o.region, large(o.ann_macs), large(o.snn_macs),
             large(o.synaptic_operations)]
        )
        for o in energy.operators
    ]  # fmt: skip
    listed = table(
        ["operator", "op", "where", "ANN MACs", "SNN MACs", "accumulates"],
        operators, "<b>Operator by operator</b>", brief=(1, 2), wide=True,
    )  # fmt: skip
    latency = paragraph(
        f"Latency: {energy.latency_steps} time steps, or {energy.pipelined_steps} where a spike "
        "takes a step from layer to layer.",
        "soft",
    )
    left = "".join(f"<li><code>{escape(name)}</code></li>" for name in energy.not_counted)
    missing = f"<p>Not counted, in all figures:</p><ul>{left}</ul>" if left else ""
    side = f"<div>{counted}{latency}{missing}</div>"
    return charts(figure(drawn, caption), side) + details("Operator by operator", listed)


def networks(result: Result) -> str:
    before = result.model.nodes
    after = result.output.nodes if result.output is not None else result.snn_nodes
    if not before:
        return ""
    most = max(before.values())
    drawn = charts(_operators("ANN", before, most), _operators("SNN", after, most))
    files = [Row(["ANN", Path(result.model.path).name, file_size(result.model.bytes),
                  str(result.model.opset)])]  # fmt: skip
    if result.output is not None:
        name = Path(result.output.path).name
        files.append(Row(["SNN", name, file_size(result.output.bytes), f"form {result.form}"]))
    listed = table(["", "file", "size", "opset, form"], files, "<b>Files</b>", brief=(1,))
    passes = [
        Row([p.name, str(p.changed), "–" if p.max_abs_error is None else number(p.max_abs_error)])
        for p in result.passes
    ]
    rewritten = table(
        ["pass", "nodes changed", "largest error"], passes, "<b>Passes, each checked in numbers</b>"
    ) if passes else ""  # fmt: skip
    kinds = [n.kind for n in result.neurons]
    told = ", ".join(f"{kinds.count(k)} {k}" for k in dict.fromkeys(kinds))
    text = paragraph(
        f"{told} activation{'s' * (len(kinds) != 1)} became {len(kinds)} layers of "
        f"integrate-and-fire neurons." if kinds else "No activation was converted."
    )  # fmt: skip
    return text + drawn + charts(listed, rewritten)


def _operators(name: str, nodes: dict[str, int], most: int) -> str:
    """How many nodes of each operator, in a scale that has room for ``most``."""
    if not nodes:
        return ""
    ordered = sorted(nodes.items(), key=lambda entry: (-entry[1], entry[0]))
    rows = [
        svg.Bar(op, [count], str(count), "s1" if op in _OURS else "s2") for op, count in ordered
    ]
    total = sum(nodes.values())
    listed = ", ".join(f"{count} {op}" for op, count in ordered)
    ours = ", neurons and the borders of time in colour" if name == "SNN" else ""
    return figure(
        svg.bars(rows, ["s2"], f"{name}: {total} nodes: {listed}", at_least=most),
        f"<b>{name}: {total} nodes</b> by operator{ours}.",
    )
