"""The checks by name, and which of them a user asked for."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import UsageError

CHECKS = {
    "passes": "each tensor before and after each rewriting pass",
    "replay": "the SNN's own operators and neurons under the ANN's values",
    "round-trip": "the ANN with its own activations and with those that were recognised",
    "engines": "onnxruntime and the neuron's equations in numpy, layer by layer",
    "constant-current": "spikes of layers whose current is constant, and those of an even one",
    "end-to-end": "accuracy, agreement, layers, energy, and the user's limits on them",
    "baseline": "figures of a stored run (--baseline)",
}
SELECTABLE = tuple(name for name in CHECKS if name != "baseline")


def chosen(names: Sequence[str]) -> frozenset[str]:
    """The checks called ``names``; all of them where none is named.

    Raises UsageError for a name that is no check.
    """
    for name in names:
        if name not in SELECTABLE:
            raise UsageError(
                f"--checks {name}: no such check", remedy=f"there are {', '.join(SELECTABLE)}"
            )
    return frozenset(names or SELECTABLE)
