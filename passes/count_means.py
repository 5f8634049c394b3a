"""The readout of an integer network: of which counts the tensors behind the neurons are the means.

Of a Decode of counts it is their mean; of a Decode of a sum the sum stays, of the means of every
neuron layer it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from na_convert.graph import is_ours, label
from na_convert.integer import Mean
from na_convert.results import Refusal
from na_convert.snn import Snn

from .count_sums import Reading
from .count_values import FOLDED, Counts


def means_of(network: Snn, reading: Reading) -> tuple[list[Mean], list[Refusal]]:
    """The means that the Decodes of ``network`` read, and the Decodes that have none."""
    means: dict[str, Mean] = {}
    refused = []
    for decode in (node for node in network.graph.nodes if is_ours(node, "Decode")):
        found = {name: _mean(name, counts) for name, counts in _decoded(decode, reading)}
        if not found:
            reason = "its input has no integer form"
            refused.append(Refusal(label(decode), "Decode", reason, FOLDED))
        means.update(found)
    return list(means.values()), refused


def _decoded(decode: gs.Node, reading: Reading) -> Iterator[tuple[str, Counts]]:
    """Tensors that are means, and the counts that they are means of."""
    value = reading.values.get(decode.inputs[0].name)
    if isinstance(value, Counts):
        yield decode.outputs[0].name, value
        return
    for name in _neuron_tensors(decode.inputs[0]):
        counts = reading.values[name]
        assert isinstance(counts, Counts)
        yield name, counts


def _neuron_tensors(tensor: gs.Tensor) -> Iterator[str]:
    """Names of the neuron outputs that ``tensor`` is computed from."""
    seen: set[int] = set()
    stack = [tensor]
    while stack:
        current = stack.pop()
        if id(current) in seen or not current.inputs:
            continue
        seen.add(id(current))
        source = current.inputs[0]
        if is_ours(source, "IF", "IFPerChannel"):
            yield current.name
        else:
            stack.extend(source.inputs)


def _mean(output: str, counts: Counts) -> Mean:
    scale = np.asarray(counts.scale, np.float32)
    return Mean(output, counts.name, scale, np.asarray(counts.offset, np.float32))
