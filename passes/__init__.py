"""The rewriting steps, in order. Each is a module with ``run(graph) -> PassReport``.

``calibrate`` runs only where the user gives data for it; ``to_spiking`` comes last and also returns
the neuron layers. ``calibrate_bias``, if asked for, runs on the finished network.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_graphsurgeon as gs

from na_convert.results import PassReport

from . import (
    calibrate,
    find_activations,
    fold_batchnorm,
    normalise,
    reorder_maxpool,
    to_spiking,
    write_out_maxima,
    write_out_trunc,
)

Pass = Callable[[gs.Graph], PassReport]

NORMALISE: Pass = normalise.run
ANN_PASSES: tuple[Pass, ...] = (
    fold_batchnorm.run,
    find_activations.run,
    write_out_trunc.run,
    reorder_maxpool.run,
    write_out_maxima.run,
)

__all__ = ["ANN_PASSES", "NORMALISE", "Pass", "calibrate", "fold_batchnorm", "to_spiking"]
