"""An ANN made a verified SNN file (`convert`)."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from . import (
    forms,
    integer_check,
    integer_conversion,
    model_io,
    model_writing,
    pipeline,
    runtime,
)
from .choices import NIR_TARGETS
from .compare import measure
from .conversion_options import form_of, nir_membrane, pipeline_options, target_file, target_of
from .data import Preprocessing, Samples
from .equivalence import with_passes
from .errors import NotConvertible, UsageError
from .excerpt import take_excerpt
from .graph import Parts, all_nodes, op_counts
from .input_range import largest_inputs
from .nir_file.export import write_network
from .node_limit import parts_within_limit, require_few_nodes
from .passes import snap
from .passes import unit_spikes as unit_spikes_pass
from .reading import Data, Labels, Progress, model_info, samples_for, silent
from .results import Equivalence, Exactness, ModelInfo, OutputInfo, PassReport, Result
from .rungs import failure
from .snn import Snn
from .tuning import Written, tune

EXACT_TIMESTEPS = 32  # up to which sums are proven to stay exact, if not the file's T is larger


def convert(
    model: str | Path,
    *,
    output: str | Path | None = None,
    timesteps: int | None = None,
    data: Data | None = None,
    labels: Labels | None = None,
    preprocessing: Preprocessing | None = None,
    check: bool = True,
    calibrate: Data | None = None,
    percentile: float = 100.0,
    per_channel: bool = False,
    readout_from: str | None = None,
    form: str | None = None,
    exact: bool = True,
    unit_spikes: bool = False,
    weights: str = "float",
    tie_shortcuts: str = "auto",
    calibrate_bias: Data | None = None,
    target_agreement: float | None = None,
    target_drop: float | None = None,
    nir_target: str | None = None,
    initial_membrane: str | None = None,
    excerpt: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Convert the ANN in ``model`` to an SNN, verify it, and write it.

    Args:
        output: where to write; ``MODEL.snn.onnx`` beside the model by default. A name in ``.nir``
            writes a NIR file (`nir_file`) instead, once the SNN is verified.
        timesteps: the file's default T; by default the largest number of levels, at most 16.
        data: an ``.npz``, ``.npy``, folder of ``.npz`` or images (`sources`), or a mapping: the
            network's inputs ``[N, ...]`` under their names (or ``x``), optional ``labels`` [N];
            seeded random input by default.
        labels: class numbers [N], or a file of them (`labels`), where ``data`` has none.
        preprocessing: how uint8 images become floats; by default as the model's metadata says.
        check: verify the conversion; without it nothing is compared.
        calibrate: data from which plain ReLUs get their thresholds; they are refused without it.
        percentile: of a ReLU's outputs, which becomes its threshold; 100 is the maximum.
        per_channel: measure a threshold per channel instead of per layer.
        readout_from: name of a node; everything behind it stays analog, on the time-mean.
        form: of the file: "folded" (any T in one run, the default), "unrolled" (fixed T, the
            fastest in float if exact) or "step" (one time step per call); with int8 weights
            "unrolled" (the default), "loop" (any T up to the file's) or "step".
        exact: round weights to grids of powers of two, so that every engine computes the same
            counts, at any T up to 32; where that cannot be, `Result.exactness` has the reason.
            With int8 weights it is about the current into the first neurons alone.
        unit_spikes: thresholds and amplitudes are folded into the weights: thresholds of 1, spikes
            of 1 (a NIR file has these in any case).
        weights: "float", or "int8": integer arithmetic on spike counts (`integer_conversion`).
        tie_shortcuts: int8 only: thresholds along identity shortcuts are made equal "always",
            "never", or ("auto") where that does not lower the accuracy on ``data``.
        calibrate_bias: a few hundred samples, on which each layer's biases are shifted so that its
            mean at T is the ANN's; a quarter of them decides how, and whether that stays.
        target_agreement: choose the smallest T, up to ``timesteps`` (by default 16), at which this
            share of ``data`` gets the ANN's class.
        target_drop: the same for the ANN's accuracy minus the SNN's; both may be given.
        nir_target, initial_membrane: of a NIR file: as ``target`` and ``initial_membrane`` of
            `nir_file.export`.
        excerpt: layers (names or patterns) of which the result gets spikes and membranes on the
            first sample; an empty choice takes the telling ones, None leaves it out.
        progress: called with a step's name and the share done, 0 to 1.

    Raises:
        UsageError, ModelError, DataError: something given cannot be used (exit code 2).
        NotConvertible: nodes that cannot spike, all of them in ``refused`` (exit code 1).
        CheckFailed: a verification step broke its limit; nothing was written (exit code 1).
    """
    start = time.perf_counter()
    tell = progress or silent
    source, form_of_file = Path(model), form_of(form, weights, tie_shortcuts)
    target = target_file(source, output)
    to_nir = nir_membrane(target, form, weights, nir_target, initial_membrane, timesteps)
    if unit_spikes and weights == "int8":
        raise UsageError("--unit-spikes is for float weights: int8 files hold counts and integers")
    unit_spikes = unit_spikes or to_nir is not None  # the grids are made for what is written
    tell("reading", 0.0)
    loaded = model_io.load(source)
    info, samples = model_info(loaded), samples_for(loaded, data, preprocessing, labels)
    wanted = target_of(target_agreement, target_drop, timesteps, samples, given=data is not None)
    bias_feeds = None
    if calibrate_bias is not None:
        bias_feeds = samples_for(loaded, calibrate_bias, preprocessing).feeds
    tell("converting", 0.1)
    options = pipeline_options(
        loaded, preprocessing, timesteps, calibrate, percentile, per_channel, readout_from
    )
    converted = pipeline.convert(loaded, samples.feeds, options, check=check)
    if not check:  # nothing is compared with the weights from before folding: they can go
        converted = replace(converted, ann=converted.staircase_ann)
        gc.collect()  # graphs are rings of nodes and tensors
    if converted.snn is None:
        raise NotConvertible(
            f"{source}: {len(converted.refused)} node(s) cannot be part of a spiking network",
            node=converted.refused[0].node,
            refused=converted.refused,
        )
    tell("tuning", 0.2)
    tuned = tune(
        converted.snn,
        converted.staircase_ann,
        samples,
        bias_feeds=bias_feeds,
        target=wanted,
        prepared=lambda snn: _prepared(snn, samples, unit_spikes=unit_spikes, exact=exact),
        alike=EXACT_TIMESTEPS if exact else None,
        written=_writer(
            converted.staircase_ann,
            samples,
            form_of_file,
            exact=exact,
            tie=tie_shortcuts,
            given=data is not None,
        ),
        progress=lambda share: tell("tuning", 0.2 + 0.1 * share),
    )
    if wanted is not None:
        gc.collect()  # what was tried
    tell("writing", 0.3)
    network, scaled = _unit(tuned.network, samples, wanted=unit_spikes, check=check)
    # Without checks this is the first time that the types of the model are looked at.
    with runtime.or_its_refusal(source):
        made = _made(
            network, converted.staircase_ann, samples, form_of_file,
            exact=exact, tie=tie_shortcuts, given=data is not None,
        )  # fmt: skip
    equivalence: Equivalence | None = None
    if check:
        tell("verifying", 0.3)
        equivalence = _verified(
            made, converted, samples, lambda share: tell("verifying", 0.3 + 0.65 * share)
        )
    layers = equivalence.layers if equivalence else ()
    result = Result(
        model=info,
        timesteps=made.snn.timesteps,
        form=form_of_file.name,
        form_note=form_of_file.why,
        neurons=made.int8.network.neurons if made.int8 else made.snn.neurons,
        refused=(),
        passes=(*converted.reports, *tuned.reports, *scaled),
        equivalence=equivalence,
        output=None,
        passed=False,
        notes=(
            *samples.notes,
            *converted.notes,
            *tuned.notes,
            *([unit_spikes_pass.NOTE] if scaled else []),
        ),
        bias_calibration=tuned.bias,
        exactness=made.exactness,
        excerpt=take_excerpt(made.snn, samples, layers, excerpt),
        quantisation=made.int8.report if made.int8 else None,
    )
    error = failure(equivalence.figures, result) if equivalence is not None else None
    if error is not None:
        raise error
    tell("writing", 0.97)
    result = _written(result, made, info, samples, target, nir_target or NIR_TARGETS[0], to_nir)
    tell("done", 1.0)
    return replace(result, passed=True, seconds=time.perf_counter() - start)


def _unit(
    network: Snn, samples: Samples, *, wanted: bool, check: bool
) -> tuple[Snn, tuple[PassReport, ...]]:
    """``network``, if ``wanted`` with thresholds and spikes of 1."""
    if not wanted:
        return network, ()
    rows = {name: np.asarray(values[:2]) for name, values in samples.feeds.items()}
    made, report = unit_spikes_pass.run(network, rows if check else None)
    return made, (report,)


def _prepared(network: Snn, samples: Samples, *, unit_spikes: bool, exact: bool) -> Snn:
    """What becomes of ``network`` before a float file is written."""
    scaled, _ = _unit(network, samples, wanted=unit_spikes, check=False)
    return _on_grids(scaled, samples)[0] if exact else scaled


@dataclass(frozen=True)
class _Made:
    """The network that is written, and its file.

    Attributes:
        snn: in float; on grids if `exactness` says so.
        unrounded: `snn` before it was put on grids; None where it was not.
        int8: the integer network made of `snn`, if that is what is written.
    """

    snn: Snn
    unrounded: Snn | None
    exactness: Exactness | None
    int8: integer_conversion.Int8 | None
    parts: Parts


def _writer(
    staircase_ann: gs.Graph,
    samples: Samples,
    form: forms.Form | forms.Int8Form,
    *,
    exact: bool,
    tie: str,
    given: bool,
) -> Written | None:
    """What makes the file of a candidate for `tune`, where integers are written: they fire
    otherwise than the description."""
    if not isinstance(form, forms.Int8Form):
        return None

    def written(snn: Snn) -> onnx.ModelProto:
        made = integer_conversion.convert(
            snn, staircase_ann, samples, form, exact=exact, tie=tie, given=given
        )
        return made.parts.whole()

    return written


def _made(
    tuned: Snn,
    staircase_ann: gs.Graph,
    samples: Samples,
    form: forms.Form | forms.Int8Form,
    *,
    exact: bool,
    tie: str,
    given: bool,
) -> _Made:
    if isinstance(form, forms.Int8Form):
        int8 = integer_conversion.convert(
            tuned, staircase_ann, samples, form, exact=exact, tie=tie, given=given
        )
        require_few_nodes(int8.parts, tuned.timesteps, form.name.removeprefix("int8-"))
        made = _Made(tuned, None, int8.exactness, int8, int8.parts)
    else:
        snn, exactness = _on_grids(tuned, samples) if exact else (tuned, None)
        unrounded = tuned if snn is not tuned else None
        parts = parts_within_limit(form.parts, snn, form.name)
        made = _Made(snn, unrounded, exactness, None, parts)
    onnx.checker.check_model(made.parts.typed(), full_check=True)
    return made


def _verified(
    made: _Made,
    converted: pipeline.Converted,
    samples: Samples,
    progress: Callable[[float], None],
) -> Equivalence:
    steps = range(1, made.snn.timesteps + 1)
    if made.int8 is None:
        found = measure(
            converted.ann, converted.staircase_ann, made.snn, made.parts, samples,
            timesteps=steps, unrounded=made.unrounded, progress=progress,
        )  # fmt: skip
    else:
        found = integer_check.prove_and_measure(
            converted.ann, converted.staircase_ann, made.snn, made.parts.whole(), samples,
            timesteps=steps, unrounded=made.unrounded, progress=progress,
        )  # fmt: skip
    return with_passes(found, converted)


def _on_grids(network: Snn, samples: Samples) -> tuple[Snn, Exactness]:
    """``network`` with its weights on grids, for inputs as large as those of ``samples``."""
    return snap.run(
        network, largest_inputs(network, samples), max(EXACT_TIMESTEPS, network.timesteps)
    )


def _written(
    result: Result,
    made: _Made,
    info: ModelInfo,
    samples: Samples,
    path: Path,
    nir_target: str,
    membrane: str | None,
) -> Result:
    """``result`` with its file: an SNN, or, where ``membrane`` says how it starts, a NIR file."""
    if membrane is None:
        size, digest = model_writing.save(made.parts, path)
        return replace(result, output=OutputInfo(str(path), size, digest, _node_counts(made)))
    found = write_network(made.snn, info, samples, path, target=nir_target, membrane=membrane)
    equivalence = result.equivalence
    if equivalence is not None:
        equivalence = replace(equivalence, figures=(*equivalence.figures, *found.figures))
    return replace(result, equivalence=equivalence, output=found.output, nir=found)


def _node_counts(made: _Made) -> dict[str, int]:
    """Nodes by operator: of a float file those of one time step, of an int8 file its own."""
    if made.int8 is None:
        return op_counts(all_nodes(made.snn.graph))
    return dict(sorted(Counter(node.op_type for node in made.parts.light.graph.node).items()))
