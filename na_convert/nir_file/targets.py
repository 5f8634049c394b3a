"""Readers of NIR: what they cannot hold, and what they do differently.

Of sinabs, norse, snntorch and spikingjelly docs/nir-readers.md has the version and a reproduction
of each statement, which the tests run. Of Lava and SpiNNaker 2, which run on their own hardware,
they are read from the converters, ``paper/nir_to_lava.py`` of neuromorphs/NIR (with `cuba.Neuron`
of Lava-DL) and ``s2_nir`` of py-spinnaker2, and not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..errors import NotConvertible
from ..results import Refusal
from .network import Network

Unreadable: TypeAlias = Callable[[Network], Iterator[Refusal]]

_REMEDY = "write it for another reader, --target generic"


@dataclass(frozen=True)
class Target:
    """A reader of NIR.

    Attributes:
        differences: what it does otherwise than the SNN.
        start: how it is given the membrane before the first step.
        unreadable: the nodes of a network that it cannot hold, refused.
        in_order: whether it runs a node only when all that leads there has run.
    """

    differences: tuple[str, ...] = ()
    start: str = ""
    unreadable: tuple[Unreadable, ...] = ()
    in_order: bool = True


def _no_conv1d(network: Network) -> Iterator[Refusal]:
    for name in _of_kind(network, "Conv1d"):
        yield _refusal(network, name, "it does not read Conv1d")


def _no_conv2d_bias(network: Network) -> Iterator[Refusal]:
    for name in _of_kind(network, "Conv2d"):
        if np.any(network.nodes[name].values["bias"] != 0):
            yield _refusal(network, name, "it reads no bias of a Conv2d")


def _spikes_only(network: Network) -> Iterator[Refusal]:
    """Input and Output are spikes: weights have to lie between neurons."""
    kinds = {name: node.kind for name, node in network.nodes.items()}
    for source, name in network.edges:
        if kinds[source] == "Input":
            yield _refusal(
                network, source, "its Input is a list of spikes, and this one is a current"
            )
        if kinds[name] == "Output" and kinds[source] != "IF":
            yield _refusal(network, source, "its Output is spikes, and this node gives currents")


def _refusal(network: Network, name: str, reason: str) -> Refusal:
    node = network.nodes[name]
    return Refusal(node.onnx, node.kind, reason, _REMEDY)


def _of_kind(network: Network, kind: str) -> list[str]:
    return [name for name, node in network.nodes.items() if node.kind == kind]


_HARD = "a neuron that fires loses its whole membrane (hard reset), not one threshold of it"
_STRICT = "a neuron fires above its threshold, not at it (>, not >=)"

TARGETS: dict[str, Target] = {
    "generic": Target(
        differences=(
            "on paper NIR's IF fires above its threshold (>) and is set to v_reset; this network "
            "fires at the threshold (>=) and loses one threshold (soft reset)",
        ),
    ),
    "sinabs": Target(
        differences=(
            "a neuron fires several spikes in one step (spike_fn; SingleSpike fires one)",
            "membranes are clipped at minus one threshold (min_v_mem; None leaves them)",
        ),
        start="v_mem of each layer",
        unreadable=(_no_conv1d,),
        in_order=False,
    ),
    "norse": Target(
        differences=(_HARD, _STRICT),
        start="the state that is given with the first step",
        unreadable=(_no_conv1d,),
        in_order=False,
    ),
    "snntorch": Target(
        differences=(
            "runs with init_hidden = True on each neuron alone",
            "membranes lose a tenth at each step (beta = 0.9; fill_(1.0) keeps them)",
            f"{_STRICT}; spike_grad puts that right",
            "where a membrane stayed above the threshold it is lowered once more before it fires; "
            "reset_delay = True puts that right",
        ),
        start="mem of each neuron",
    ),
    "spikingjelly": Target(
        differences=(
            "is read with dt=1.0 alone, as r is 1",
            f"{_HARD}; v_reset = None on each neuron makes it soft",
        ),
        start="v of each neuron, in the shape of a batch",
    ),
    "lava": Target(
        differences=(_HARD, _STRICT, "membranes and weights are in fixed point"),
        start="the state of each neuron",
        unreadable=(_no_conv1d, _no_conv2d_bias),
    ),
    "spinnaker2": Target(unreadable=(_no_conv1d, _spikes_only)),
}


def statements(network: Network, name: str) -> tuple[str, ...]:
    """What the target ``name`` does otherwise with ``network``."""
    target, said = TARGETS[name], []
    joins = [n for n in network.nodes if len([b for _, b in network.edges if b == n]) > 1]
    if joins and not target.in_order:
        said.append(
            f"runs nodes depth first, so that where two branches meet, as in {joins[0]!r}, one "
            "comes late or not at all; docs/nir-readers.md puts its order right"
        )
    return tuple(f"{name}: {text}" for text in (*target.differences, *said))


def refuse_unreadable(network: Network, name: str) -> None:
    """Raises NotConvertible, naming the nodes, where the target ``name`` does not read some."""
    found = [refusal for each in TARGETS[name].unreadable for refusal in each(network)]
    refused = tuple(dict.fromkeys(found))
    if refused:
        first = refused[0]
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise NotConvertible(
            f"{first.node!r} ({first.op}) cannot be written for {name}{more}: {first.reason}",
            node=first.node,
            remedy=_REMEDY,
            refused=refused,
        )
