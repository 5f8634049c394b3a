"""Which law neurons follow: found by trying, on those that the law up to now does not explain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..nir_file.law import OURS, Law, fire
from ..nir_file.read_back import Network
from ..nir_file.simulate import Recording

Array: TypeAlias = NDArray[Any]

_ALTERNATIVES: Mapping[str, tuple[Any, ...]] = {
    "reset": ("zero", "twice"),
    "strict": (True,),
    "many": (True,),
    "floor": (0.0, -1.0),
    "leak": (0.9, 0.5, 0.8, 0.95, 0.99),
    "blank": (True,),
}
_MOST = 4  # deviations at once
_SHOWN = 2048  # neurons of a layer on which the law is looked for, and as many others
_ROUNDS = 4


@dataclass(frozen=True)
class LawFound:
    """The law of the neurons seen so far, and ``wrong``, how many of the spikes of those in
    ``observed`` it does not have."""

    law: Law = OURS
    wrong: int = 0
    observed: tuple[Observed, ...] = ()

    def beside(self, network: Network, seen: Recording) -> LawFound:
        """The law of these and of the neurons in ``seen``, looked for on those that the law up to
        now does not explain, until it explains all or there is no other."""
        found = self
        for _ in range(_ROUNDS):
            more = tuple(_unexplained(network, seen, found.law))
            if not more:
                break
            observed = (*found.observed, *more)
            law, wrong = identify(observed)
            stuck = law == found.law
            found = LawFound(law, wrong, observed)
            if stuck:
                break
        return found


def _unexplained(network: Network, seen: Recording, law: Law) -> Iterator[Observed]:
    """Neurons of each layer that do not fire as ``law`` says, and as many others."""
    for name, op in network.neurons.items():
        currents, spikes = seen.currents[name], seen.spikes[name]
        differs = (fire(law, currents, op.threshold, op.initial) != spikes).any(axis=0).reshape(-1)
        if not differs.any():
            continue
        others = np.flatnonzero(~differs)
        spread = np.linspace(0, len(others) - 1, min(_SHOWN, len(others)), dtype=int)
        chosen = np.concatenate([np.flatnonzero(differs)[:_SHOWN], others[spread]])
        flat = [each.reshape(len(each), -1)[:, chosen] for each in (currents, spikes)]
        shape = currents.shape[1:]
        per_neuron = [
            np.broadcast_to(value, shape).reshape(-1)[chosen]
            for value in (op.threshold, op.initial)
        ]
        yield Observed(*flat, *per_neuron)


def candidates() -> Iterator[Law]:
    """Every law that is looked for, those with fewer deviations first; ours is the first."""
    for count in range(_MOST + 1):
        for names in combinations(_ALTERNATIVES, count):
            for values in product(*(_ALTERNATIVES[name] for name in names)):
                law = Law(**dict(zip(names, values, strict=True)))
                if not (law.many and law.reset != "subtract"):
                    yield law


@dataclass(frozen=True)
class Observed:
    """What some neurons of one layer were given and did: [T, n] each, parameters [n]."""

    currents: Array
    spikes: Array
    threshold: Array
    initial: Array


def identify(layers: Sequence[Observed]) -> tuple[Law, int]:
    """The law with the fewest deviations that has all these spikes, and how many it has not (0);
    if there is none, the law that comes nearest."""
    best, least = OURS, -1
    for law in candidates():
        wrong = 0
        for seen in layers:
            found = fire(law, seen.currents, seen.threshold, seen.initial)
            wrong += int(np.count_nonzero(found != seen.spikes))
            if 0 <= least <= wrong:
                break
        if least < 0 or wrong < least:
            best, least = law, wrong
        if least == 0:
            break
    return best, least
