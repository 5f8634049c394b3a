"""An SNN file beside the ANN that it was made from (`check`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import forms, integer_check, model_io, pipeline, size_guard
from .behaviour import Stages
from .bisection import check_folder, write_bisection
from .checks import chosen
from .choices import MARGIN
from .cluster import Cluster, job_for
from .compare import measure
from .data import Preprocessing
from .energy import Constants
from .errors import CheckFailed, UsageError
from .excerpt import take_excerpt
from .graph import all_nodes, op_counts
from .input_range import beyond_the_proof
from .layers import match_layers
from .limits import Limits, baseline_figures, limit_figures
from .reading import Data, Labels, Progress, model_info, samples_for, silent
from .results import Equivalence, Result
from .rungs import failure, of_check, passes_figure
from .snn import BIAS_TIMESTEPS, Snn


def check(
    ann: str | Path,
    snn: str | Path,
    *,
    data: Data,
    timesteps: Sequence[int] = (),
    labels: Labels | None = None,
    preprocessing: Preprocessing | None = None,
    min_agreement: float | None = None,
    max_drop: float | None = None,
    checks: Sequence[str] = (),
    baseline: str | Path | None = None,
    margin: float = MARGIN,
    energy: Constants | None = None,
    bisect: str | Path | None = None,
    scheduler: str | None = None,
    excerpt: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Compare the SNN file ``snn`` with the ANN it was made from, on ``data``.

    The ANN is read anew; the SNN's own operators and neurons are replayed, as they stand in the
    file. Every T up to the largest asked for is measured in one run.

    Args:
        timesteps: T at which the limits hold; the file's default T by default.
        min_agreement, max_drop: limits, fractions from 0 to 1.
        checks: names of the checks to make (`checks.CHECKS`); all by default.
        baseline: the JSON of an earlier run; no figure may be worse by more than ``margin``.
        energy: of an operation; by default that of 45 nm CMOS.
        bisect: a folder for the part of both networks at which they differ first
            (`bisection`); left alone where nothing differs beyond its limit.
        scheduler: address of a Dask scheduler (``tcp://...``), on whose workers both networks run
            on all of ``data``; files that every worker can read. The result is the same.
        excerpt: as for `convert`.

    Raises:
        CheckFailed: the ladder or a limit breaks; the `result` is in it (exit code 1).
        UsageError, ModelError, DataError: something given cannot be used (exit code 2).
    """
    start = time.perf_counter()
    tell = progress or silent
    selected = chosen(checks)
    limits = Limits(min_agreement, max_drop, None if baseline is None else Path(baseline), margin)
    _check_selection(limits, selected, timesteps)
    loaded, snn_file = model_io.load(Path(ann)), model_io.load(Path(snn))
    form = forms.form_of(snn_file.model)
    info, samples = model_info(loaded), samples_for(loaded, data, preprocessing, labels)
    if max_drop is not None and samples.labels is None:
        raise UsageError("--max-drop needs labels", remedy="add `labels` to the data")
    size_guard.check_sizes(Path(snn), snn_file.model, samples.feeds)
    if bisect is not None:
        check_folder(Path(bisect))
    tell("converting", 0.1)
    reference = pipeline.reference(loaded, samples.feeds)
    tell("verifying", 0.3)
    network = form.read(snn_file.model)  # not before: the ANN's passes need room, if it is large
    asked = tuple(timesteps) or (network.timesteps,)
    evaluated = range(1, max(*asked, network.timesteps) + 1)
    elsewhere = None
    if scheduler is not None:
        job = job_for(loaded, snn_file, data, labels, preprocessing, evaluated)
        elsewhere = Cluster(scheduler, job)
    measured = integer_check.measure_file if isinstance(form, forms.Int8Form) else measure
    equivalence = measured(
        reference.ann,
        reference.staircase_ann,
        network,
        snn_file.model,
        samples,
        timesteps=evaluated,
        elsewhere=elsewhere,
        checks=selected,
        constants=energy or Constants(),
        progress=lambda share: tell("verifying", 0.3 + 0.65 * share),
    )
    if "passes" in selected:
        equivalence = with_passes(equivalence, reference)
    limited = limit_figures(equivalence, asked, limits) + baseline_figures(equivalence, limits)
    ladder = equivalence.figures
    equivalence = replace(equivalence, figures=(*ladder, *limited))
    notes = [*samples.notes, *_bias_notes(network)]
    notes += beyond_the_proof(network, equivalence.input_ranges, max(asked))
    if bisect is not None:
        stages = Stages(
            reference.ann,
            reference.staircase_ann,
            network,
            snn_file.model,
            match_layers(network, reference.staircase_ann),
        )
        notes.append(write_bisection(stages, samples, equivalence, Path(bisect)))
    broken = [f for f in equivalence.figures if not f.passed]
    result = Result(
        model=info,
        timesteps=network.timesteps,
        form=form.name,
        form_note=form.why,
        neurons=network.neurons,
        refused=(),
        passes=reference.reports,
        equivalence=equivalence,
        output=None,
        passed=not broken,
        notes=tuple(notes),
        seconds=time.perf_counter() - start,
        excerpt=take_excerpt(network, samples, equivalence.layers, excerpt),
        snn_nodes=op_counts(all_nodes(network.graph)),
    )
    error = failure(ladder, result)
    if error is not None:
        raise error
    if broken:
        raise CheckFailed(f"{snn}: {broken[0].detail}", node=broken[0].node, result=result)
    return result


def with_passes(equivalence: Equivalence, converted: pipeline.Converted) -> Equivalence:
    """The ladder with its first rung, the passes, which was climbed before."""
    figures = of_check("passes", [passes_figure(converted.reports, converted.pass_limit())])
    return replace(
        equivalence,
        fold_error=converted.fold_error(),
        figures=(*figures, *equivalence.figures),
    )


def _bias_notes(network: Snn) -> tuple[str, ...]:
    steps = network.carried.metadata.get(BIAS_TIMESTEPS)
    if steps is None:
        return ()
    return (
        f"the SNN's biases were calibrated at T = {steps}: the checks take the recorded shifts "
        "back before they compare currents with the ANN's",
    )


def _check_selection(limits: Limits, selected: frozenset[str], timesteps: Sequence[int]) -> None:
    if limits.on_outputs and "end-to-end" not in selected:
        raise UsageError(
            "--min-agreement, --max-drop and --baseline need the check end-to-end",
            remedy="add it to --checks",
        )
    for steps in timesteps:
        if steps < 1:
            raise UsageError(f"-T {steps}: at least one time step is needed")
