"""The options of `convert`, checked against each other before anything runs.

All of them raise UsageError, which names the options as the command line does.
"""

from __future__ import annotations

from pathlib import Path

from . import forms, pipeline
from .choices import NIR_TARGETS, WEIGHTS, is_nir
from .data import Preprocessing, Samples
from .errors import UsageError
from .forms import folded
from .model_io import Loaded
from .nir_file.export import check_options
from .passes.calibrate import Calibration
from .reading import Data, samples_for
from .tuning import MAX_TIMESTEPS, Target, check_target


def form_of(form: str | None, weights: str, tie_shortcuts: str) -> forms.Form | forms.Int8Form:
    """The form of the file."""
    if weights not in WEIGHTS:
        raise UsageError(f"--weights {weights}: one of {', '.join(WEIGHTS)} is needed")
    if weights == "int8":
        return forms.int8_named(form)
    if tie_shortcuts != "auto":
        raise UsageError("--tie-shortcuts is for --weights int8", remedy="give both, or neither")
    return forms.named(form or folded.FORM)


def nir_membrane(
    target: Path,
    form: str | None,
    weights: str,
    nir_target: str | None,
    initial_membrane: str | None,
    timesteps: int | None,
) -> str | None:
    """How a NIR file holds the initial membrane; None where ``target`` is none."""
    if not is_nir(target):
        if nir_target is not None or initial_membrane is not None:
            raise UsageError(
                "--target and --initial-membrane are for NIR files", remedy="give -o NAME.nir"
            )
        return None
    if form is not None or weights != "float":
        raise UsageError(
            "a NIR file has no --form and holds float weights", remedy="leave out --form, --weights"
        )
    return check_options(nir_target or NIR_TARGETS[0], initial_membrane, timesteps)


def pipeline_options(
    loaded: Loaded,
    preprocessing: Preprocessing | None,
    timesteps: int | None,
    calibrate: Data | None,
    percentile: float,
    per_channel: bool,
    readout_from: str | None,
) -> pipeline.Options:
    """The pipeline's options, the samples to calibrate on read."""
    if not 0 < percentile <= 100:
        raise UsageError(f"--percentile {percentile:g}: a number above 0 and up to 100 is needed")
    if calibrate is None:
        if percentile != 100 or per_channel:
            raise UsageError("--percentile and --per-channel need --calibrate DATA.npz")
        return pipeline.Options(timesteps=timesteps, readout_from=readout_from)
    return pipeline.Options(
        timesteps=timesteps,
        calibration=Calibration(percentile, per_channel),
        calibration_feeds=samples_for(loaded, calibrate, preprocessing).feeds,
        readout_from=readout_from,
    )


def target_of(
    agreement: float | None,
    drop: float | None,
    most: int | None,
    samples: Samples,
    *,
    given: bool,
) -> Target | None:
    """What T has to reach, if anything; ``given``: the samples are the user's."""
    if agreement is None and drop is None:
        return None
    target = Target(agreement, drop, MAX_TIMESTEPS if most is None else most)
    check_target(target, samples, given=given)
    return target


def target_file(source: Path, output: str | Path | None) -> Path:
    """Where to write; not over the model itself."""
    default = source.with_name(f"{source.name.removesuffix('.onnx')}.snn.onnx")
    target = Path(output) if output is not None else default
    if target.resolve() == source.resolve():
        raise UsageError(
            f"{target}: the output would overwrite the model", remedy="choose another -o"
        )
    return target
