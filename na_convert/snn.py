"""The one internal description of an SNN; every form of file is a view of it.

``Snn.graph`` says what happens in one time step, without a time axis. Nodes of the domain
``na_convert`` with a single data input mark where time matters:

* ``IF``, ``IFPerChannel`` and ``MaxPoolCounts`` keep state from step to step;
* ``Encode`` stands where a tensor that is the same at every step enters the spiking region;
* ``Decode`` stands where the mean over the steps leaves it.

Everything before an ``Encode`` is computed once, everything after a ``Decode`` is the readout, and
between them each operator is affine. In this description Encode and Decode are identities, so that
the graph without state is the ANN with its activations replaced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import TypeVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from . import neurons
from .errors import ModelError
from .graph import Carried, is_ours
from .results import Neuron

_Layer = TypeVar("_Layer")

NEURONS = "na_convert.neurons"
SOURCE_SHA256 = "na_convert.source_sha256"  # of the ANN's file
TIMESTEPS = "timesteps"  # the input of files that run for any number of steps
BIAS_TIMESTEPS = "na_convert.bias_timesteps"  # metadata: the T that biases were calibrated for

STATEFUL_OPS = (*neurons.NEURON_OPS, "MaxPoolCounts")


@dataclass(frozen=True)
class Snn:
    """A spiking network: one time step (`graph`), its neuron layers in order, and a default T."""

    graph: gs.Graph
    neurons: tuple[Neuron, ...]
    timesteps: int
    carried: Carried


@dataclass(frozen=True)
class IFParameters:
    """Of one neuron node; arrays are scalars or broadcast against one sample."""

    threshold: NDArray[np.floating]
    amplitude: NDArray[np.floating]
    initial: float


def neuron_nodes(graph: gs.Graph) -> list[gs.Node]:
    """The neuron layers in the order of the graph."""
    return [node for node in graph.nodes if is_ours(node, *neurons.NEURON_OPS)]


def parameters(node: gs.Node) -> IFParameters:
    """Threshold, amplitude and initial membrane of an ``IF`` or ``IFPerChannel`` node."""
    initial = float(node.attrs["initial"])
    if node.op == "IF":
        threshold = np.float32(node.attrs["threshold"])
        amplitude = np.float32(node.attrs["amplitude"])
        return IFParameters(np.asarray(threshold), np.asarray(amplitude), initial)
    threshold_tensor, amplitude_tensor = node.inputs[-2:]
    return IFParameters(threshold_tensor.values, amplitude_tensor.values, initial)


def chosen_layers(layers: Mapping[str, _Layer], record: Sequence[str]) -> dict[str, _Layer]:
    """Those of ``layers`` that ``record`` names; raises ModelError for a name that is none."""
    unknown = [name for name in record if name not in layers]
    if unknown:
        raise ModelError(f"the network has no neuron layer {unknown[0]!r}", node=unknown[0])
    return {name: layers[name] for name in record}


def float_type(node: gs.Node) -> np.dtype[np.floating]:
    """The float type in which a neuron node works."""
    return np.dtype(np.float32 if node.op == "IF" else node.inputs[-1].values.dtype.type)


def metadata(snn: Snn, form: str, tool: str, source_sha256: str) -> dict[str, str]:
    """The ``metadata_props`` that make a file an SNN again (`neurons_from`)."""
    return {
        "na_convert.version": tool,
        "na_convert.form": form,
        SOURCE_SHA256: source_sha256,
        "na_convert.tie_rule": "half_up",
        **_changing(snn),
    }


def recorded(snn: Snn, extra: Mapping[str, str] | None = None) -> Snn:
    """``snn`` with its metadata saying what its neurons and its T are now, and ``extra``."""
    return replace(snn, carried=snn.carried.with_metadata({**_changing(snn), **(extra or {})}))


def _changing(snn: Snn) -> dict[str, str]:
    return {
        "na_convert.timesteps": str(snn.timesteps),
        NEURONS: _neurons_json(snn.neurons),
    }


def written_as(snn: Snn, form: str) -> Carried:
    """What a file of ``form`` carries: the metadata name the form, whatever it was read from."""
    if "na_convert.form" not in snn.carried.metadata:
        return snn.carried
    now = {"na_convert.form": form, "na_convert.timesteps": str(snn.timesteps)}
    return snn.carried.with_metadata(now)


def described(snn: Snn) -> Snn:
    """``snn`` with metadata, if it has any, that say what its neurons are now."""
    if NEURONS not in snn.carried.metadata:
        return snn
    return replace(snn, carried=snn.carried.with_metadata({NEURONS: _neurons_json(snn.neurons)}))


def _neurons_json(neurons: tuple[Neuron, ...]) -> str:
    return json.dumps([asdict(n) for n in neurons], sort_keys=True)


def require_form(metadata_props: Mapping[str, str], form: str) -> None:
    """Raises ModelError where a file's metadata are not those of an SNN in ``form``."""
    if NEURONS not in metadata_props or metadata_props.get("na_convert.form") != form:
        raise ModelError(
            f"this is no SNN in the {form} form (its metadata says otherwise)",
            remedy=f"give the file that na-convert --form {form} wrote",
        )


_ENTRIES = {each.name for each in fields(Neuron)}
_NEEDED = {each.name for each in fields(Neuron) if each.default is MISSING}


def neurons_from(metadata_props: dict[str, str]) -> tuple[Neuron, ...]:
    """The neuron layers stored by `metadata`."""
    entries = json.loads(metadata_props[NEURONS])
    for entry in entries:
        odd = (set(entry) - _ENTRIES) | (_NEEDED - set(entry))
        if odd:
            raise ModelError(
                "the SNN's description is damaged: entries of a neuron layer are unknown, or "
                f"missing: {', '.join(map(repr, sorted(odd)))}",
                remedy="convert the ANN again",
            )
    return tuple(Neuron(**{**entry, "shape": tuple(entry["shape"])}) for entry in entries)
