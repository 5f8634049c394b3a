"""Early decision: a sample stops as soon as its readout is decided, and the others go on.

The readout's margin is the difference between the two largest entries of the first output, on the
mean over the steps so far (of a lone logit: its absolute value). Samples run step by step, and one
that has reached the margin leaves the batch, so that its later steps are not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .data import Samples
from .errors import UsageError
from .integer_stepping import Int8Stepper
from .results import EarlyExit, SimulatedTimestep
from .running import Stepper, stepper_for
from .saturation import is_probability
from .simulator import Simulator
from .snn_guard import described_as_it_is
from .statistics import predictions

Array: TypeAlias = NDArray[Any]


def run_until_decided(
    simulator: Simulator,
    samples: Samples,
    margin: float,
    timesteps: int,
    *,
    batch: int | None = None,
    threads: int = 0,
    watch: Callable[[Mapping[str, Array]], None] = lambda feeds: None,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[EarlyExit, tuple[SimulatedTimestep, ...]]:
    """Each sample until its margin reaches ``margin``, at most ``timesteps`` steps.

    Also the accuracy there would be with at most 1, 2, ... ``timesteps`` steps. ``watch`` is shown
    each batch.

    Raises UsageError where the margin is negative or the first output is no vector of classes.
    """
    if not margin >= 0:
        raise UsageError(f"--early-exit {margin:g}: a margin of at least 0 is needed")
    with described_as_it_is():
        stepper = stepper_for(simulator.model, simulator.network, (), threads)
    size, count = simulator.batch_size(timesteps, batch), len(samples)
    sigmoid = is_probability(simulator.network.graph)
    stopped = np.zeros(timesteps, np.int64)
    hits = np.zeros(timesteps, np.int64)
    for start in range(0, count, size):
        feeds = {name: np.asarray(v[start : start + size]) for name, v in samples.feeds.items()}
        watch(feeds)
        with described_as_it_is():
            found, at = _decide(
                stepper, feeds, simulator.outputs[0], margin, timesteps, sigmoid=sigmoid
            )
        stopped += np.bincount(at - 1, minlength=timesteps)
        if samples.labels is not None:
            hits += np.count_nonzero(found == samples.labels[start : start + size], axis=1)
        progress(min(1.0, (start + size) / count))
    shares = [None if samples.labels is None else float(h / count) for h in hits]
    mean = float(np.sum(stopped * np.arange(1, timesteps + 1)) / count)
    rows = tuple(SimulatedTimestep(t + 1, share) for t, share in enumerate(shares))
    return EarlyExit(margin, mean, shares[-1], tuple(int(n) for n in stopped)), rows


def _decide(
    stepper: Stepper | Int8Stepper,
    feeds: dict[str, Array],
    output: str,
    margin: float,
    timesteps: int,
    *,
    sigmoid: bool,
) -> tuple[Array, Array]:
    """Classes ``[T, N]`` if there were at most T steps, and the step each sample stopped at."""
    stepper.reset()
    count = len(next(iter(feeds.values())))
    running = np.arange(count)
    classes = np.zeros((timesteps, count), np.int64)
    at = np.full(count, timesteps)
    for t in range(1, timesteps + 1):
        values = stepper.step(feeds)[output]
        if values.ndim != 2:
            raise UsageError(f"--early-exit: the output {output!r} is no vector of classes")
        classes[t - 1 :, running] = predictions(values, sigmoid=sigmoid)
        decided = _margin(values, 0.5 if sigmoid else 0) >= margin
        at[running[decided]] = t
        if decided.all() or t == timesteps:
            break
        stepper.keep(~decided)
        running = running[~decided]
        feeds = {name: value[~decided] for name, value in feeds.items()}
    return classes, at


def _margin(values: Array, boundary: float) -> Array:
    if values.shape[1] == 1:
        return np.asarray(np.abs(values[:, 0] - boundary))
    ordered = np.partition(values, -2, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])
