"""What is chosen by measuring the finished network: its biases (`calibrate_bias`) and its T.

The smallest T that reaches a target is found by trying: agreement need not grow with T. Without
calibration one simulation of T steps gives the outputs after 1, 2, ... T. Biases depend on T, so
that with calibration each T has a network of its own: T = 1, 2, ... are calibrated and run in turn,
up to the first that reaches the target; so do integers, whose weights depend on T.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import onnx
import onnx_graphsurgeon as gs

from .data import Samples
from .errors import CheckFailed, UsageError
from .layers import match_layers
from .outputs import Array, ann_output, file_output, snn_output
from .passes import calibrate_bias
from .results import BiasCalibration, PassReport, TimestepResult
from .runtime import Feeds
from .saturation import is_probability
from .snn import Snn, recorded
from .statistics import count_outputs

MAX_TIMESTEPS = 16  # the largest T that is tried, if none is given

Progress = Callable[[float], None]
Prepared = Callable[[Snn], Snn]
Written = Callable[[Snn], onnx.ModelProto]


@dataclass(frozen=True)
class Target:
    """What T has to reach, each a fraction from 0 to 1 or None; ``most`` is the largest T tried."""

    agreement: float | None = None
    drop: float | None = None
    most: int = MAX_TIMESTEPS

    def reached(self, found: TimestepResult) -> bool:
        if self.agreement is not None and found.agreement < self.agreement:
            return False
        return self.drop is None or _drop(found) <= self.drop

    def __str__(self) -> str:
        parts = []
        if self.agreement is not None:
            parts.append(f"agreement of at least {self.agreement:g}")
        if self.drop is not None:
            parts.append(f"drop of at most {self.drop:g}")
        return " and ".join(parts)


@dataclass(frozen=True)
class Tuned:
    """The network as it is to be written; ``bias``: what calibration measured at its T, if asked.

    ``reports`` of the passes that ran, and ``notes`` on what was chosen and why.
    """

    network: Snn
    bias: BiasCalibration | None
    reports: tuple[PassReport, ...] = ()
    notes: tuple[str, ...] = ()


def check_target(target: Target, samples: Samples, *, given: bool) -> None:
    """Raise UsageError where ``target`` is no fraction, or ``samples`` cannot decide it.

    ``given``: the samples are the user's, not random numbers.
    """
    options = (("--target-agreement", target.agreement), ("--target-drop", target.drop))
    for option, value in options:
        if value is None:
            continue
        if not 0 <= value <= 1:
            raise UsageError(f"{option} {value:g}: a fraction from 0 to 1 is needed")
        if not given:
            raise UsageError(f"{option} needs --data", remedy="give samples to reach it on")
    if target.drop is not None and samples.labels is None:
        raise UsageError("--target-drop needs labels", remedy="add `labels` to the data")
    if target.most < 1:
        raise UsageError(f"-T {target.most}: at least one time step is needed")


def tune(
    network: Snn,
    staircase_ann: gs.Graph,
    samples: Samples,
    *,
    bias_feeds: Feeds | None = None,
    target: Target | None = None,
    prepared: Prepared = lambda snn: snn,
    alike: int | None = None,
    written: Written | None = None,
    progress: Progress = lambda share: None,
) -> Tuned:
    """``network`` with its biases calibrated on ``bias_feeds``, and the smallest T for ``target``.

    It is what gets written that has to reach the target: ``prepared`` says what becomes of a
    candidate before (grids), ``written`` where the file computes otherwise than that (int8).
    ``alike``: up to this T, ``prepared`` makes the same of every candidate; None: at any T.

    Raises CheckFailed where no T reaches the target, DataError where ``bias_feeds`` are too few.
    """
    if target is None:
        return _calibrated(network, staircase_ann, bias_feeds, progress)
    tried = []
    candidates = _candidates(
        network, staircase_ann, samples, bias_feeds, target.most, prepared, alike, written
    )
    for candidate, result in candidates:
        tried.append(result)
        progress(result.T / target.most)
        if target.reached(result):
            note = (
                f"T = {result.T} is the smallest, up to {target.most}, that reaches {target} "
                f"on {samples.description}: {_figures(result)}"
            )
            return replace(candidate, notes=(note, *candidate.notes))
    best = min(tried, key=_drop) if target.agreement is None else max(tried, key=_agreement)
    raise CheckFailed(
        f"no T up to {target.most} reaches {target} on {samples.description}: "
        f"the nearest is T = {best.T} with {_figures(best)}",
        remedy="allow more time steps (-T), or ask for less",
    )


def _candidates(
    network: Snn,
    ann: gs.Graph,
    samples: Samples,
    bias_feeds: Feeds | None,
    most: int,
    prepared: Prepared,
    alike: int | None,
    written: Written | None,
) -> Iterator[tuple[Tuned, TimestepResult]]:
    """The network for T = 1, 2, ... ``most``, and how it fares on ``samples``."""
    layers = match_layers(network, ann)
    expected = ann_output(ann, network, layers, samples.feeds)
    plain: dict[int, Array] = {}
    if bias_feeds is None and written is None:
        together = most if alike is None else min(most, alike)
        one = prepared(replace(network, timesteps=together))
        plain = snn_output(one, layers, samples.feeds, together)
    for steps in range(1, most + 1):
        candidate = _calibrated(recorded(replace(network, timesteps=steps)), ann, bias_feeds)
        found = plain.get(steps)
        if written is not None:
            file = written(candidate.network)
            found = file_output(file, candidate.network, layers, samples.feeds)
        elif found is None:
            found = snn_output(prepared(candidate.network), layers, samples.feeds)[steps]
        counts = count_outputs(
            steps, expected, found, samples.labels, sigmoid=is_probability(network.graph)
        )
        yield candidate, counts.result()
        gc.collect()  # graphs are rings of nodes and tensors, and hold a network's weights each


def _calibrated(
    network: Snn,
    ann: gs.Graph,
    bias_feeds: Feeds | None,
    progress: Progress = lambda share: None,
) -> Tuned:
    if bias_feeds is None:
        return Tuned(network, None)
    fold = calibrate_bias.run(network, ann, bias_feeds, progress)
    return Tuned(fold.network, fold.found, (fold.report,), (_sentence(fold.found),))


def _sentence(found: BiasCalibration) -> str:
    """What calibration did, in one line."""
    trial = found.trial
    start = f"biases calibrated at T = {found.timesteps} on {found.samples} samples"
    if trial is None:
        return f"{start}, and not kept: on {found.held_out} others the network is nearer without"
    moved = [layer.mean_abs for layer in trial.layers if layer.largest]
    return (
        f"{start}, matching each layer's mean {trial.match}; on {found.held_out} others agreement "
        f"{_percent(found.plain.agreement)} -> {_percent(trial.held_out.agreement)}, logit RMSE "
        f"{found.plain.logit_rmse:.3g} -> {trial.held_out.logit_rmse:.3g}; mean |shift| by layer "
        f"{min(moved, default=0):.3f} to {max(moved, default=0):.3f} thresholds"
    )


def _agreement(found: TimestepResult) -> float:
    return found.agreement


def _drop(found: TimestepResult) -> float:
    """ANN minus SNN accuracy; infinite without labels."""
    if found.ann_accuracy is None or found.snn_accuracy is None:
        return float("inf")
    return found.ann_accuracy - found.snn_accuracy


def _figures(found: TimestepResult) -> str:
    text = f"agreement {_percent(found.agreement)}"
    return text if found.ann_accuracy is None else f"{text}, drop {_percent(_drop(found))}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
