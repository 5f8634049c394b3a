"""Why an SNN is not its ANN: the first layer that goes bad, the cause, and what may help.

Advice is given only where a figure supports it, and the figure is named. What the figures cannot
say is listed too.
"""

from __future__ import annotations

from collections.abc import Sequence

from .results import Diagnosis, Equivalence, LayerResult, Neuron, TimestepResult

BAD = 0.5  # relative error: a quarter of the power of what the layer says is error
OWN_CAUSES = ("clipping", "quantisation", "unevenness")
_ONE_SIDED = 0.5  # share of an error's mean size that its mean with sign is
_FEW = 100  # samples; below it an interval is some 20 points wide


def diagnose(found: Equivalence, neurons: Sequence[Neuron]) -> Diagnosis:
    """What the figures of ``found`` say about a network with these ``neurons``."""
    first = next((i for i, layer in enumerate(found.layers) if _is_bad(layer)), None)
    unknown = tuple(_unknown(found, neurons))
    if first is None:
        return Diagnosis(None, BAD, None, "", unknown)
    cause = _cause(found.layers[: first + 1])
    layer = found.layers[first]
    advice = _ADVICE[cause](found, layer, neurons) if cause else ""
    return Diagnosis(layer.name, BAD, cause, advice, unknown)


def _is_bad(layer: LayerResult) -> bool:
    return layer.relative_error is not None and not layer.relative_error <= BAD


def _cause(layers: Sequence[LayerResult]) -> str | None:
    """The largest of the errors that these layers made themselves: what one inherits, another
    made."""
    made = dict.fromkeys(OWN_CAUSES, 0.0)
    for layer in layers:
        if layer.error is not None:
            for cause in OWN_CAUSES:
                made[cause] += getattr(layer.error, cause).mean_abs
    largest = max(made, key=lambda cause: made[cause])
    return largest if made[largest] > 0 else None


# --- advice ---------------------------------------------------------------------------------------


def _of_clipping(found: Equivalence, layer: LayerResult, neurons: Sequence[Neuron]) -> str:
    worst = max(found.layers, key=lambda each: each.error.clipping.mean_abs if each.error else 0)
    return (
        f"threshold too low: in {worst.name!r} {_percent(worst.at_highest)} of the ANN's values "
        "reach it, and what lies above is lost: calibrate with a higher --percentile, or on more "
        "data"
    )


def _of_quantisation(found: Equivalence, layer: LayerResult, neurons: Sequence[Neuron]) -> str:
    worst = max(found.layers, key=lambda e: e.error.quantisation.mean_abs if e.error else 0)
    own = next((n.levels for n in neurons if n.name == worst.name), None)
    if own and found.timesteps % own == 0 and found.replay_ties:
        return (
            f"{found.replay_ties} values lie on an edge between two levels: the ANN takes the one "
            f"below, and a neuron of {worst.name!r} fires: convert with --exact, or move the edge "
            "off what is common (a bias in front of it; x > 0 also where x is exactly 0)"
        )
    levels = max((n.levels for n in neurons if n.levels), default=0)
    if levels > found.timesteps:
        return (
            f"more steps: {found.timesteps} cannot say {levels + 1} levels; from T = {levels} on "
            "this part of the error is gone"
        )
    return (
        f"more steps: an activation without levels is off by up to 1/{2 * found.timesteps} of its "
        f"threshold at T = {found.timesteps}, half of that at twice the steps"
    )


def _of_unevenness(found: Equivalence, layer: LayerResult, neurons: Sequence[Neuron]) -> str:
    longer = _better(found)
    if longer is not None:
        return (
            f"more steps: agreement is {_percent(_at(found).agreement)} at T = {found.timesteps} "
            f"and {_percent(longer.agreement)} at T = {longer.T}"
        )
    said = (
        f"spikes arrive unevenly ({_percent(layer.unevenness)} of the neurons of {layer.name!r}): "
        "train with noise, or with a larger amplitude of it"
    )
    part = layer.error.unevenness if layer.error else None
    calibrated = any(n.bias_shift is not None for n in neurons)
    if part is None or calibrated or abs(part.mean) < _ONE_SIDED * part.mean_abs:
        return said
    return f"{said}; --calibrate-bias can take its mean back, {_percent(part.mean)} of an amplitude"


_ADVICE = {
    "clipping": _of_clipping,
    "quantisation": _of_quantisation,
    "unevenness": _of_unevenness,
}


def _at(found: Equivalence) -> TimestepResult:
    return next(row for row in found.by_timestep if found.timesteps == row.T)


def _better(found: Equivalence) -> TimestepResult | None:
    """A longer run that agrees more, by more than chance: the intervals do not meet."""
    now = _at(found).agreement_interval
    for row in found.by_timestep:
        interval = row.agreement_interval
        if found.timesteps < row.T and now and interval and interval[0] > now[1]:
            return row
    return None


# --- what is not known ----------------------------------------------------------------------------


def _unknown(found: Equivalence, neurons: Sequence[Neuron]) -> list[str]:
    unknown = []
    idle = [layer.name for layer in found.layers if not layer.exercised]
    if idle:
        unknown.append(
            f"whether {_few(idle)} would agree on other data: on these no element lies between the "
            "lowest and the highest level"
        )
    if all(row.ann_accuracy is None for row in found.by_timestep):
        unknown.append("accuracy: the data has no labels that fit the output")
    if found.samples < _FEW:
        unknown.append(f"shares closer than the intervals say: {found.samples} samples are few")
    open_ended = [n.name for n in neurons if n.kind == "relu"]
    if open_ended:
        unknown.append(
            f"whether the thresholds of {_few(open_ended)} are those that calibration chose: a "
            "ReLU has none of its own, so the SNN's are taken as they are"
        )
    return unknown


def _few(names: Sequence[str]) -> str:
    return repr(names[0]) + (f" and {len(names) - 1} more layers" if len(names) > 1 else "")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
