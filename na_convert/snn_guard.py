"""The description inside an SNN file, checked before it is run: a file comes from anywhere.

`reading` and `described_as_it_is` turn whatever a damaged description makes of the code that reads
it into one ModelError, and `check_description` demands of what was read

* neuron layers of the right types, with sizes above 0, a positive threshold, and a neuron node of
  that name for each (in files of whole numbers: an operation);
* 1 to `MOST_TIMESTEPS` time steps;
* a graph that is well formed.

`refuse_control_flow`: an SNN holds no If, no Scan outside the neurons' own definition, and no Loop
but the one of the int8 form that counts its time steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite, prod

import numpy as np
import onnx

from .errors import ModelError, NaConvertError, PassFailed, first_line
from .exactness import exactness_of
from .protos import subgraph_nodes, with_subgraphs
from .results import Neuron
from .size_guard import MOST_ELEMENTS
from .snn import Snn, neuron_nodes, parameters
from .spec import check_graph

MOST_TIMESTEPS = 10_000
_REMEDY = "convert the ANN again: this file was changed, or damaged"
_OF_NUMPY = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, MemoryError)
_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")


def reading(read: Callable[[onnx.ModelProto], Snn], model: onnx.ModelProto, loops: int = 0) -> Snn:
    """The description that ``read`` finds in ``model``, which may have ``loops`` Loops; checked.

    Raises ModelError, one line, for whatever is wrong with it.
    """
    try:
        refuse_control_flow(model, loops)
        with np.errstate(all="ignore"):  # values that are not finite are found below
            network = read(model)
        check_description(network)
    except PassFailed as error:
        raise _damaged(error.message.removeprefix("after reading: ")) from error
    except NaConvertError:
        raise
    except Exception as error:  # JSON, base64 or a graph of any other shape than what was written
        raise _damaged(f"{type(error).__name__}: {first_line(error)}") from error
    return network


@contextmanager
def described_as_it_is() -> Iterator[None]:
    """What a description that does not fit its own graph makes of numpy, as a ModelError."""
    try:
        yield
    except _OF_NUMPY as error:
        raise _damaged(f"it does not fit the graph ({first_line(error)})") from error


def refuse_control_flow(model: onnx.ModelProto, loops: int) -> None:
    """Raise ModelError where ``model`` may run for as long as it likes."""
    found = [n for n in model.graph.node if n.op_type in _CONTROL_FLOW]
    allowed = [n for n in found if n.op_type == "Loop"][:loops]
    inside = [
        n
        for outer in allowed
        for n in subgraph_nodes(outer)
        if n.op_type in ("If", "Loop", "SequenceMap")
    ]
    ours = [
        n for f in model.functions for n in with_subgraphs(f.node) if n.op_type in ("Loop", "If")
    ]
    wrong = [n for n in found if n not in allowed] + inside + ours
    if wrong:
        raise _damaged(f"it holds control flow, {wrong[0].name or wrong[0].op_type!r}")


def check_description(network: Snn) -> None:
    """Raise ModelError or PassFailed unless ``network`` is what its neuron layers say."""
    if not 1 <= network.timesteps <= MOST_TIMESTEPS:
        raise _damaged(f"{network.timesteps} time steps; 1 to {MOST_TIMESTEPS} are possible")
    check_graph(network.graph, "reading")
    exactness_of(network)
    nodes = {node.name: node for node in neuron_nodes(network.graph)}
    if not network.neurons:
        raise _damaged("it names no neuron layers")
    for neuron in network.neurons:
        _check_neuron(neuron)
        if neuron.name not in nodes:
            raise _damaged(f"there is no neuron node {neuron.name!r}")
    for name, node in nodes.items():
        found = parameters(node)
        for what, values in (("threshold", found.threshold), ("amplitude", found.amplitude)):
            if not np.isfinite(values).all():
                raise _damaged(f"the {what} of {name!r} is not finite")
        if not (np.asarray(found.threshold) > 0).all() or not isfinite(found.initial):
            raise _damaged(f"the threshold of {name!r} is not above 0")


_NUMBERS = (
    *("threshold", "amplitude", "lowest_level", "phase"),
    *("current_scale", "output_scale"),
)
_OPTIONAL = ("input_step", "output_step", "bias_shift")


def _check_neuron(neuron: Neuron) -> None:
    texts = (neuron.name, neuron.root, neuron.output, neuron.kind, neuron.tie_rule)
    if not all(isinstance(text, str) for text in texts):
        raise _damaged("a neuron layer has a name that is no text")
    sizes = neuron.shape
    if not all(type(n) is int and n > 0 for n in sizes) or prod(sizes) > MOST_ELEMENTS:
        raise _damaged(f"the shape of {neuron.name!r} is {list(sizes)}")
    for what in (*_NUMBERS, *_OPTIONAL):
        value = getattr(neuron, what)
        if not (_is_number(value) or (value is None and what in _OPTIONAL)):
            raise _damaged(f"{what} of {neuron.name!r} is no number")
    levels = neuron.levels
    if levels is not None and (type(levels) is not int or levels < 1):
        raise _damaged(f"{neuron.name!r} has {levels!r} levels")


def _is_number(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(isinstance(v, int | float) and isfinite(v) for v in values)


def _damaged(what: str) -> ModelError:
    return ModelError(f"the SNN's description is damaged: {what}", remedy=_REMEDY)
