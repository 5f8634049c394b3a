"""Each neuron layer of an SNN, beside the activation of the ANN that it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from . import snn
from .activation import NeuronParameters, Ramp, Staircase, read_activation
from .cut import Runner
from .errors import CheckFailed
from .graph import is_constant, is_ours
from .neurons import ACTIVATION_OPS
from .results import Neuron
from .snn import IFParameters, Snn

Array: TypeAlias = NDArray[Any]

THRESHOLD_ROUNDING = 2.0**-10


@dataclass(frozen=True)
class Layer:
    """A neuron node of the SNN and the activation it replaces.

    Attributes:
        current, spikes: names of the node's tensors in the SNN.
        root: name of the tensor that the activation is a function of.
        fired: what the node says: threshold, amplitude, initial membrane.
        function: the activation, from the ANN.
    """

    neuron: Neuron
    current: str
    spikes: str
    root: str
    fired: IFParameters
    function: Staircase | Ramp
    dtype: np.dtype[Any]

    @property
    def name(self) -> str:
        return self.neuron.name

    @cached_property
    def expected(self) -> NeuronParameters:
        """The neuron that the activation asks for."""
        return self.function.neuron()

    @cached_property
    def stair(self) -> Array:
        """Width of a stair in units of the current; for a ramp, which has none, its whole width."""
        levels = self.function.levels if isinstance(self.function, Staircase) else 1
        return np.asarray(np.abs(self.expected.threshold) / levels)

    @cached_property
    def bias_shift(self) -> Array:
        """What calibration added to the current, ``[C, 1, ...]`` against one sample; else 0."""
        if self.neuron.bias_shift is None:
            return np.zeros(())
        return per_channel(np.asarray(self.neuron.bias_shift), self.neuron.shape)

    @cached_property
    def current_scale(self) -> Array:
        """The SNN's current as a multiple of the ANN's; against one sample."""
        return _current_scale(self.neuron)

    @cached_property
    def output_scale(self) -> Array:
        """The SNN's output as a multiple of the ANN's; against one sample."""
        return per_channel(np.asarray(self.neuron.output_scale), self.neuron.shape)

    @cached_property
    def threshold(self) -> Array:
        """The neurons' own threshold, in units of the ANN's current."""
        return _in_units_of_ann(self.fired.threshold, self.neuron)

    @property
    def threshold_rounding(self) -> float:
        """How far a threshold may be off its own, relatively, for being on a grid (`passes.snap`):
        not at all where it is 1."""
        threshold = np.asarray(self.fired.threshold)
        rescaled = np.any(self.current_scale != 1)
        return THRESHOLD_ROUNDING if rescaled and np.any(threshold != 1) else 0.0

    @property
    def size(self) -> int:
        """Neurons of one sample."""
        return prod(self.neuron.shape)

    @property
    def half_level(self) -> float:
        """Half a level, as a share of the amplitude; below it an activation is at its lowest."""
        return 0.5 / self.function.levels if isinstance(self.function, Staircase) else 0.0

    def unit_output(self, value: Array) -> Array:
        """The ANN's activation ``value`` as a share of the amplitude: 0 at the lowest level, 1 at
        the highest."""
        return np.asarray((value - self.expected.output_offset) / self.expected.amplitude)


def per_channel(values: Array, shape: Sequence[int]) -> Array:
    """``values`` [C] so that they broadcast against one sample of ``shape`` [C, ...] (or [])."""
    return values.reshape(values.shape[: len(shape)] + (1,) * (len(shape) - 1))


def match_layers(network: Snn, staircase_ann: gs.Graph) -> tuple[Layer, ...]:
    """The neuron layers of ``network`` with their activations, in order.

    Raises CheckFailed where a layer has no counterpart.
    """
    nodes = {node.name: node for node in snn.neuron_nodes(network.graph)}
    activations = {
        node.outputs[0].name: node for node in staircase_ann.nodes if is_ours(node, *ACTIVATION_OPS)
    }
    found = []
    for neuron in network.neurons:
        node, activation = nodes.get(neuron.name), activations.get(neuron.output)
        if node is None or activation is None:
            missing = (
                "node in the SNN" if node is None else f"activation {neuron.output!r} in the ANN"
            )
            raise CheckFailed(
                f"neuron layer {neuron.name!r} has no {missing}",
                node=neuron.name,
                remedy="compare an SNN with the ANN that it was made from",
            )
        dtype = np.dtype(node.inputs[0].dtype or activation.inputs[1].values.dtype)
        fired = snn.parameters(node)
        found.append(
            Layer(
                neuron,
                node.inputs[0].name,
                node.outputs[0].name,
                activation.inputs[0].name,
                fired,
                _bounded(read_activation(activation), fired, neuron),
                dtype,
            )
        )
    return tuple(found)


def _bounded(function: Staircase | Ramp, fired: IFParameters, neuron: Neuron) -> Staircase | Ramp:
    """A ReLU has no threshold of its own: it is compared up to the one that the SNN has."""
    if isinstance(function, Staircase) or function.bounded:
        return function
    return replace(function, high=function.low + _in_units_of_ann(fired.threshold, neuron))


def _in_units_of_ann(threshold: Array, neuron: Neuron) -> Array:
    return np.asarray(threshold, np.float64) / _current_scale(neuron)


def _current_scale(neuron: Neuron) -> Array:
    return per_channel(np.asarray(neuron.current_scale), neuron.shape)


OUTPUTS = ""  # in `sources`: the network's outputs


def sources(network: Snn, layers: Sequence[Layer]) -> dict[str, tuple[Layer, ...]]:
    """By layer name, the layers whose spikes make up its current; under `OUTPUTS` those whose
    spikes reach the network's outputs."""
    firing = {id(node): node.name for node in snn.neuron_nodes(network.graph)}
    tensors = network.graph.tensors()
    found = {layer.name: spiking_behind([tensors[layer.current]], firing) for layer in layers}
    found[OUTPUTS] = spiking_behind(network.graph.outputs, firing)
    return {
        name: tuple(layer for layer in layers if layer.name in names)
        for name, names in found.items()
    }


def group_sources(
    network: Snn, layers: Sequence[Layer], group: Sequence[Layer]
) -> tuple[Layer, ...]:
    """Of ``layers`` those that the currents of ``group`` come from; if it is the last group, also
    those that the outputs come from."""
    found = sources(network, layers)
    ends = [layer.name for layer in group] + ([OUTPUTS] if group[-1] is layers[-1] else [])
    names = {each.name for end in ends for each in found[end]}
    return tuple(layer for layer in layers if layer.name in names)


def spiking_behind(tensors: Sequence[gs.Tensor], firing: Mapping[int, str]) -> set[str]:
    """Neuron layers from which ``tensors`` are computed without another neuron between.

    ``firing``: their names, by the id of their node.
    """
    seen: set[int] = set()
    names: set[str] = set()
    waiting = list(tensors)
    while waiting:
        for node in waiting.pop().inputs:
            if id(node) in firing:
                names.add(firing[id(node)])
            elif id(node) not in seen:
                seen.add(id(node))
                waiting += [t for t in node.inputs if not (t.is_empty() or is_constant(t))]
    return names


def in_groups(layers: Sequence[Layer], neurons: int) -> list[tuple[Layer, ...]]:
    """Consecutive layers, with at most so many ``neurons`` together (or one layer)."""
    groups: list[tuple[Layer, ...]] = []
    for layer in layers:
        if groups and sum(each.size for each in (*groups[-1], layer)) <= neurons:
            groups[-1] = (*groups[-1], layer)
        else:
            groups.append((layer,))
    return groups


def split_by_owner(ann: gs.Graph, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """``names`` that the ANN as exported has, and the others (a pass made them)."""
    known = {t.name for node in ann.nodes for t in node.outputs}
    inside = [name for name in dict.fromkeys(names) if name in known]
    return inside, [name for name in dict.fromkeys(names) if name not in known]


def reference_values(
    run_ann: Runner, run_staircase_ann: Runner, feeds: Mapping[str, Array]
) -> dict[str, Array]:
    """Values of the ANN's tensors; what only the ANN after the passes has, fed the former."""
    values = run_ann(feeds)
    return {**values, **run_staircase_ann({**feeds, **values})}
