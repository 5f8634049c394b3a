"""What a file says of itself to somebody who opens it, in Netron for instance.

A description of the model, of each neuron layer with its threshold, of every other operator of ours
and of inputs that are not the ANN's. Lines are short: Netron's sidebar cuts what is wider.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import onnx
from numpy.typing import ArrayLike

from .. import __version__
from ..integer import IntegerNetwork, Layer
from ..neurons import DOMAIN
from ..protos import all_nodes
from ..results import Neuron
from ..snn import IFParameters, Snn, neuron_nodes, parameters

WIDTH = 64  # characters that Netron shows
_BRIEF = 3  # lines about a layer at every step but the first
_OF_THE_ANN = "\n\nOf the ANN: "
_TITLE = "Spiking network (SNN) made by na-convert"


def document(
    model: onnx.ModelProto,
    snn: Snn,
    form: str,
    how: Sequence[str],
    inputs: Mapping[str, str] | None = None,
) -> None:
    """Describe a float file: the model, its neuron nodes, its operators, its own inputs.

    Args:
        how: sentences on how the file is run.
        inputs: what the inputs and outputs are that the form has added, by name.
    """
    found = {node.name: parameters(node) for node in neuron_nodes(snn.graph)}
    by_name = {neuron.name: neuron for neuron in snn.neurons if neuron.name in found}
    layers = {name: _float_lines(neuron, found[name]) for name, neuron in by_name.items()}
    _describe(model, snn, form, how, layers, inputs or {})


def document_integer(
    model: onnx.ModelProto, network: IntegerNetwork, form: str, how: Sequence[str],
    inputs: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """As `document`, of an int8 file."""
    by_name = {neuron.name: neuron for neuron in network.neurons}
    layers = {
        layer.name: _integer_lines(layer, by_name[layer.name])
        for layer in network.layers
        if layer.name in by_name
    }
    _describe(model, network.snn, form, how, layers, inputs or {})


def part_doc(neuron: Neuron, found: IFParameters, part: str, *, brief: bool) -> str:
    """Of a node that is ``part`` of a layer which has no node of its own."""
    lines = _float_lines(neuron, found)
    return "\n".join([f"{part} of the neuron layer", neuron.name, *(lines[:2] if brief else lines)])


# --- lines ----------------------------------------------------------------------------------------


def _float_lines(neuron: Neuron, found: IFParameters) -> list[str]:
    threshold, ours = _range(found.threshold), _range(neuron.threshold)
    scaled = "" if threshold == ours else f" ({ours} on the ANN's scale)"
    return [
        f"Integrate-and-fire neurons, soft reset, {_shape(neuron)}",
        f"threshold {threshold}{scaled}",
        f"a spike is worth {_range(found.amplitude)}",
        f"the membrane u starts at {found.initial:g} of the threshold",
        "each step: u += current; fires where u >= threshold,",
        "and then u -= threshold",
        *_activation_lines(neuron),
    ]


def _integer_lines(layer: Layer, neuron: Neuron) -> list[str]:
    unit = np.asarray(neuron.threshold, np.float64).ravel() / layer.threshold.ravel()
    return [
        f"Integrate-and-fire neurons on spike counts, {_shape(neuron)}",
        f"threshold, in units of the weights: {_range(layer.threshold)}",
        f"{_range(neuron.threshold)} on the ANN's scale: a unit is {_range(unit)}",
        "the membrane starts at half the threshold, soft reset",
        "counts are those up to and with the step; they grow by one where",
        "the summed current reaches threshold * (count + 1/2)",
        *_activation_lines(neuron),
    ]


def _activation_lines(neuron: Neuron) -> list[str]:
    levels = f"p = {neuron.levels}" if neuron.levels else neuron.kind
    lines = [f"stand for the activation {neuron.output} ({levels})", f"of {neuron.root} in the ANN"]
    return [*lines, "their current is the same at every step"] if neuron.constant_input else lines


def _shape(neuron: Neuron) -> str:
    return "x".join(str(n) for n in neuron.shape)


def _range(values: ArrayLike) -> str:
    """One number, or the least and the largest of several that differ."""
    least, most = np.min(values), np.max(values)
    return f"{least:.4g}" if least == most else f"{least:.4g} .. {most:.4g}, by channel"


# --- into the file --------------------------------------------------------------------------------


def _describe(
    model: onnx.ModelProto,
    snn: Snn,
    form: str,
    how: Sequence[str],
    layers: Mapping[str, Sequence[str]],
    inputs: Mapping[str, str],
) -> None:
    model.producer_name, model.producer_version = "na-convert", __version__
    count = sum(prod(neuron.shape) for neuron in snn.neurons)
    lines = [
        f"{_TITLE}, form {form}",
        f"{len(snn.neurons)} layers, {count:,} integrate-and-fire neurons; T = {snn.timesteps}",
        *how,
    ]
    before = snn.carried.model_doc
    own = before.partition(_OF_THE_ANN)[2] if before.startswith(_TITLE) else before
    model.doc_string = "\n".join(lines) + (f"{_OF_THE_ANN}{own}" if own else "")
    operators = {f.name: textwrap.fill(f.doc_string, WIDTH) for f in model.functions}
    for node in all_nodes(model.graph):
        if node.domain != DOMAIN:
            continue
        layer, step = _layer_of(node.name, layers)
        if layer is None:
            node.doc_string = operators[node.op_type]
        else:
            node.doc_string = "\n".join(layers[layer][:_BRIEF] if step > 1 else layers[layer])
    for value in [*model.graph.input, *model.graph.output]:
        value.doc_string = inputs.get(value.name, value.doc_string)


def _layer_of(name: str, layers: Mapping[str, object]) -> tuple[str | None, int]:
    """The layer that a node is, and at which step: its name is the layer's, or NAME_t3."""
    start, _, step = name.rpartition("_t")
    if name in layers:
        return name, 1
    return (start, int(step)) if start in layers and step.isdecimal() else (None, 0)
