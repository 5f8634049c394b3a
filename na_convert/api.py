"""The Python API: `convert`, `inspect`, `check`, `simulate`, `record`; the command line uses it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from . import forms, integer_check, integer_conversion, model_io, pipeline, recording
from .behaviour import Stages
from .bisection import check_folder, write_bisection
from .checks import chosen
from .cluster import Cluster, job_for
from .compare import measure
from .data import InputSpec, Preprocessing, Samples, load_data, random_data
from .early_exit import run_until_decided
from .energy import Constants
from .errors import CheckFailed, ModelError, NotConvertible, UsageError
from .excerpt import take_excerpt
from .forms import folded
from .graph import Parts, all_nodes, op_counts
from .layers import match_layers
from .limits import MARGIN, Limits, baseline_figures, limit_figures
from .model_io import Loaded
from .passes import snap
from .passes.calibrate import Calibration
from .results import (
    ArrayInfo,
    EarlyExit,
    Equivalence,
    Exactness,
    ExcerptLayer,
    ModelInfo,
    OutputInfo,
    Result,
    SimulatedLayer,
    SimulationResult,
)
from .rungs import failure, of_check, passes_figure
from .simulator import Simulator
from .snn import BIAS_TIMESTEPS, TIMESTEPS, Snn
from .tuning import MAX_TIMESTEPS, Target, check_target, tune

if TYPE_CHECKING:
    from .explanation import Explanation
    from .simulation import Simulation

Data = str | Path | Mapping[str, NDArray[np.generic]]
Labels = str | Path | NDArray[np.generic]
Progress = Callable[[str, float], None]

RANDOM_SAMPLES = 16
WEIGHTS = ("float", "int8")


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
    exact: bool = False,
    weights: str = "float",
    tie_shortcuts: str = "auto",
    calibrate_bias: Data | None = None,
    target_agreement: float | None = None,
    target_drop: float | None = None,
    excerpt: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Convert the ANN in ``model`` to an SNN, verify it, and write it.

    Args:
        output: where to write; ``MODEL.snn.onnx`` beside the model by default.
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
            "unrolled" (the default).
        exact: round weights to grids of powers of two, so that every engine computes the same
            counts, at any T up to 32; where that cannot be, `Result.exactness` has the reason.
        weights: "float", or "int8": integer arithmetic on spike counts (`integer_conversion`).
        tie_shortcuts: int8 only: thresholds along identity shortcuts are made equal "always",
            "never", or ("auto") where that does not lower the accuracy on ``data``.
        calibrate_bias: a few hundred samples, on which each layer's biases are shifted so that its
            mean at T is the ANN's; a quarter of them decides how, and whether that stays.
        target_agreement: choose the smallest T, up to ``timesteps`` (by default 16), at which this
            share of ``data`` gets the ANN's class.
        target_drop: the same for the ANN's accuracy minus the SNN's; both may be given.
        excerpt: layers (names or patterns) of which the result gets spikes and membranes on the
            first sample; an empty choice takes the telling ones, None leaves it out.
        progress: called with a step's name and the share done, 0 to 1.

    Raises:
        UsageError, ModelError, DataError: something given cannot be used (exit code 2).
        NotConvertible: nodes that cannot spike, all of them in ``refused`` (exit code 1).
        CheckFailed: a verification step broke its limit; nothing was written (exit code 1).
    """
    start = time.perf_counter()
    tell = progress or _silent
    written, int8_form = _forms(form, weights, tie_shortcuts)
    source = Path(model)
    target = _target_file(source, output)
    tell("reading", 0.0)
    loaded = model_io.load(source)
    info, samples = _model_info(loaded), samples_for(loaded, data, preprocessing, labels)
    wanted = _target(target_agreement, target_drop, timesteps, samples, given=data is not None)
    bias_feeds = _bias_feeds(loaded, calibrate_bias, preprocessing)
    tell("converting", 0.1)
    options = _options(
        loaded,
        preprocessing,
        timesteps,
        calibrate,
        percentile,
        per_channel,
        readout_from,
        written.name,
    )
    converted = pipeline.convert(loaded, samples.feeds, options, check=check)
    if converted.snn is None:
        raise NotConvertible(
            f"{source}: {len(converted.refused)} node(s) cannot be part of a spiking network",
            node=converted.refused[0].node,
            remedy="see the table: each is named with the reason and what to do",
            refused=converted.refused,
        )
    tell("tuning", 0.2)
    tuned = tune(
        converted.snn,
        converted.staircase_ann,
        samples,
        bias_feeds=bias_feeds,
        target=wanted,
        progress=lambda share: tell("tuning", 0.2 + 0.1 * share),
    )
    snn, exactness = tuned.network, None
    if exact and int8_form is None:  # integers are exact by themselves
        snn, exactness = _on_grids(snn, samples)
    int8 = None
    if int8_form is not None:
        tell("quantising", 0.3)
        int8 = integer_conversion.convert(
            snn, converted.staircase_ann, samples, int8_form,
            tie=tie_shortcuts, given=data is not None,
        )  # fmt: skip
    parts = int8.parts if int8 else written.parts(snn)
    onnx.checker.check_model(parts.typed(), full_check=True)
    equivalence: Equivalence | None = None
    if check:
        tell("verifying", 0.3)
        verify = measure if int8 is None else integer_check.prove_and_measure
        equivalence = verify(
            converted.ann,
            converted.staircase_ann,
            snn,
            parts.whole(),
            samples,
            timesteps=range(1, snn.timesteps + 1),
            unrounded=tuned.network if snn is not tuned.network else None,
            progress=lambda share: tell("verifying", 0.3 + 0.65 * share),
        )
        equivalence = _with_passes(equivalence, converted)
    result = Result(
        model=info,
        timesteps=snn.timesteps,
        form=(int8_form or written).name,
        form_note=(int8_form or written).why,
        neurons=int8.network.neurons if int8 else snn.neurons,
        refused=(),
        passes=(*converted.reports, *tuned.reports),
        equivalence=equivalence,
        output=None,
        passed=False,
        notes=(*samples.notes, *converted.notes, *tuned.notes),
        bias_calibration=tuned.bias,
        exactness=exactness,
        excerpt=_excerpt(snn, samples, equivalence, excerpt),
        quantisation=int8.report if int8 else None,
    )
    error = failure(equivalence.figures, result) if equivalence is not None else None
    if error is not None:
        raise error
    tell("writing", 0.97)
    size, digest = model_io.save(parts, target)
    tell("done", 1.0)
    counts = _node_counts(snn, parts if int8 else None)
    return replace(
        result,
        output=OutputInfo(str(target), size, digest, counts),
        passed=True,
        seconds=time.perf_counter() - start,
    )


def inspect(
    model: str | Path,
    *,
    timesteps: int | None = None,
    data: Data | None = None,
    preprocessing: Preprocessing | None = None,
    readout_from: str | None = None,
) -> Result:
    """What `convert` would do with ``model``: neurons, passes and refusals; writes nothing.

    ``data`` is needed only where the model leaves the size of its inputs open.

    Raises UsageError, ModelError (exit code 2); NotConvertible if there is no activation at all.
    """
    start = time.perf_counter()
    loaded = model_io.load(Path(model))
    info, samples = _model_info(loaded), samples_for(loaded, data, preprocessing)
    options = pipeline.Options(timesteps=timesteps, readout_from=readout_from)
    converted = pipeline.convert(loaded, samples.feeds, options, check=False)
    snn = converted.snn
    return Result(
        model=info,
        timesteps=snn.timesteps if snn else 0,
        form=folded.FORM,
        neurons=snn.neurons if snn else (),
        refused=converted.refused,
        passes=converted.reports,
        equivalence=None,
        output=None,
        passed=snn is not None,
        notes=converted.notes,
        seconds=time.perf_counter() - start,
    )


def explain(model: str | Path, node: str) -> Explanation:
    """Why ``node`` (a node's or tensor's name) of ``model`` was or was not read as an activation.

    Raises UsageError if there is no such node once BatchNorm and constants are folded, ModelError.
    """
    loaded = model_io.load(Path(model))
    return pipeline.explain(loaded, node)


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
    tell = progress or _silent
    selected = chosen(checks)
    limits = Limits(min_agreement, max_drop, None if baseline is None else Path(baseline), margin)
    _check_selection(limits, selected, timesteps)
    loaded, snn_file = model_io.load(Path(ann)), model_io.load(Path(snn))
    form = forms.form_of(snn_file.model)
    network = form.read(snn_file.model)
    info, samples = _model_info(loaded), samples_for(loaded, data, preprocessing, labels)
    if max_drop is not None and samples.labels is None:
        raise UsageError("--max-drop needs labels", remedy="add `labels` to the data")
    if bisect is not None:
        check_folder(Path(bisect))
    tell("converting", 0.1)
    reference = pipeline.reference(loaded, samples.feeds)
    tell("verifying", 0.3)
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
        equivalence = _with_passes(equivalence, reference)
    limited = limit_figures(equivalence, asked, limits) + baseline_figures(equivalence, limits)
    ladder = equivalence.figures
    equivalence = replace(equivalence, figures=(*ladder, *limited))
    notes = [*samples.notes, *_bias_notes(network)]
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
        excerpt=_excerpt(network, samples, equivalence, excerpt),
        snn_nodes=op_counts(all_nodes(network.graph)),
    )
    error = failure(ladder, result)
    if error is not None:
        raise error
    if broken:
        raise CheckFailed(f"{snn}: {broken[0].detail}", node=broken[0].node, result=result)
    return result


def simulate(
    snn: str | Path,
    *,
    data: Data,
    timesteps: int | None = None,
    labels: Labels | None = None,
    preprocessing: Preprocessing | None = None,
    record: Sequence[str] = (),
    batch: int | None = None,
    threads: int = 0,
) -> Simulation:
    """Run the SNN file ``snn`` on ``data`` for every T from 1 to ``timesteps`` (its default T).

    Everything is returned in memory; `record` writes to a file instead.

    Args:
        record: neuron layers whose currents and spikes are kept, by name or pattern (``*``).
        batch: samples that run together; by default as many as fit into 256 MB, at most 64.
        threads: of onnxruntime; 0 leaves the choice to it.
    """
    loaded = model_io.load(Path(snn))
    simulator = Simulator(loaded.model, record=record, threads=threads)
    samples = samples_for(loaded, data, preprocessing, labels)
    return simulator.run(samples.feeds, timesteps, batch=batch)


def record(
    snn: str | Path,
    *,
    data: Data,
    timesteps: int | None = None,
    output: str | Path | None = None,
    layers: Sequence[str] = (),
    labels: Labels | None = None,
    preprocessing: Preprocessing | None = None,
    batch: int | None = None,
    threads: int = 0,
    early_exit: float | None = None,
    progress: Progress | None = None,
) -> SimulationResult:
    """Run the SNN file ``snn`` on ``data``, batch by batch, and write what it did to ``output``.

    Args:
        timesteps: T; the file's default T by default.
        output: an ``.npz`` (`recording` has its layout); without it only accuracy is measured.
        layers: neuron layers whose spikes, counts and membranes are kept, by name or pattern.
        batch: samples that run together, which bounds the memory; by default as many as fit into
            256 MB, at most 64.
        threads: of onnxruntime; 0 leaves the choice to it.
        early_exit: a sample stops when the margin between the two largest entries of the output
            reaches this; nothing can be written then.

    Raises UsageError, ModelError, DataError: something given cannot be used (exit code 2).
    """
    start = time.perf_counter()
    if early_exit is not None and (output is not None or layers):
        raise UsageError(
            "--early-exit writes nothing: samples stop at different T", remedy="leave out -o"
        )
    loaded = model_io.load(Path(snn))
    info = _model_info(loaded)
    simulator = Simulator(loaded.model, record=layers, threads=threads)
    samples = samples_for(loaded, data, preprocessing, labels)
    steps = simulator.timesteps if timesteps is None else timesteps
    tell = progress or _silent
    recorded: tuple[SimulatedLayer, ...] = ()
    arrays: tuple[ArrayInfo, ...] = ()
    decided: EarlyExit | None = None
    if early_exit is None:
        by_timestep, recorded, arrays = recording.record(
            simulator,
            samples,
            steps,
            output=None if output is None else Path(output),
            batch=batch,
            progress=lambda share: tell("simulating", share),
        )
    else:
        decided, by_timestep = run_until_decided(
            simulator,
            samples,
            early_exit,
            steps,
            batch=batch,
            threads=threads,
            progress=lambda share: tell("simulating", share),
        )
    return SimulationResult(
        model=info,
        data=samples.description,
        samples=len(samples),
        timesteps=steps,
        by_timestep=by_timestep,
        recorded=recorded,
        path=None if output is None else str(output),
        arrays=arrays,
        notes=samples.notes,
        seconds=time.perf_counter() - start,
        early_exit=decided,
    )


def _bias_feeds(
    loaded: Loaded, data: Data | None, preprocessing: Preprocessing | None
) -> dict[str, Any] | None:
    return None if data is None else samples_for(loaded, data, preprocessing).feeds


def _bias_notes(network: Snn) -> tuple[str, ...]:
    steps = network.carried.metadata.get(BIAS_TIMESTEPS)
    if steps is None:
        return ()
    return (
        f"the SNN's biases were calibrated at T = {steps}: the checks take the recorded shifts "
        "back before they compare currents with the ANN's",
    )


EXACT_TIMESTEPS = 32  # up to which sums are proven to stay exact, if not the file's T is larger
_BOUND_ROWS = 256


def _on_grids(network: Snn, samples: Samples) -> tuple[Snn, Exactness]:
    """``network`` with its weights on grids, for inputs as large as those of ``samples``."""
    bounds = {}
    for tensor in network.graph.inputs:
        feed, largest = samples.feeds[tensor.name], 0.0
        for start in range(0, len(samples), _BOUND_ROWS):
            values = np.asarray(feed[start : start + _BOUND_ROWS])
            largest = max(largest, float(np.max(np.abs(values), initial=0)))
        bounds[tensor.name] = largest or 1.0
    return snap.run(network, bounds, max(EXACT_TIMESTEPS, network.timesteps))


def _node_counts(snn: Snn, int8: Parts | None) -> dict[str, int]:
    """Nodes by operator: of a float file those of one time step, of an int8 file its own."""
    if int8 is None:
        return op_counts(all_nodes(snn.graph))
    return dict(sorted(Counter(node.op_type for node in int8.light.graph.node).items()))


def _forms(
    form: str | None, weights: str, tie_shortcuts: str
) -> tuple[forms.Form, forms.Int8Form | None]:
    """The form of the float file, and of the int8 file if there is to be one."""
    if weights not in WEIGHTS:
        raise UsageError(f"--weights {weights}: one of {', '.join(WEIGHTS)} is needed")
    if weights == "int8":
        return forms.named(folded.FORM), forms.int8_named(form)
    if tie_shortcuts != "auto":
        raise UsageError("--tie-shortcuts is for --weights int8", remedy="give both, or neither")
    return forms.named(form or folded.FORM), None


def _options(
    loaded: Loaded,
    preprocessing: Preprocessing | None,
    timesteps: int | None,
    calibrate: Data | None,
    percentile: float,
    per_channel: bool,
    readout_from: str | None,
    form: str,
) -> pipeline.Options:
    if not 0 < percentile <= 100:
        raise UsageError(f"--percentile {percentile:g}: a number above 0 and up to 100 is needed")
    if calibrate is None:
        if percentile != 100 or per_channel:
            raise UsageError("--percentile and --per-channel need --calibrate DATA.npz")
        return pipeline.Options(timesteps=timesteps, readout_from=readout_from, form=form)
    return pipeline.Options(
        timesteps=timesteps,
        calibration=Calibration(percentile, per_channel),
        calibration_feeds=samples_for(loaded, calibrate, preprocessing).feeds,
        readout_from=readout_from,
        form=form,
    )


def _target(
    agreement: float | None,
    drop: float | None,
    most: int | None,
    samples: Samples,
    *,
    given: bool,
) -> Target | None:
    if agreement is None and drop is None:
        return None
    target = Target(agreement, drop, MAX_TIMESTEPS if most is None else most)
    check_target(target, samples, given=given)
    return target


def _excerpt(
    network: Snn,
    samples: Samples,
    equivalence: Equivalence | None,
    layers: Sequence[str] | None,
) -> tuple[ExcerptLayer, ...]:
    if layers is None:
        return ()
    return take_excerpt(network, samples, equivalence.layers if equivalence else (), layers)


def samples_for(
    loaded: Loaded,
    data: Data | None,
    preprocessing: Preprocessing | None,
    labels: Labels | None = None,
) -> Samples:
    """What ``data`` gives the network in ``loaded``; random numbers without data."""
    inputs = _input_specs(loaded.model)
    if data is None:
        if labels is not None:
            raise UsageError("--labels needs --data")
        return random_data(inputs, seed=0, count=RANDOM_SAMPLES)
    metadata = {p.key: p.value for p in loaded.model.metadata_props}
    return load_data(data, inputs, metadata, preprocessing, labels)


def _input_specs(model: onnx.ModelProto) -> list[InputSpec]:
    """The network's inputs; the batch counts as free, since `normalise` frees it."""
    weights = {i.name for i in model.graph.initializer}
    specs = []
    for value in model.graph.input:
        if value.name in weights or value.name == TIMESTEPS:
            continue
        tensor = value.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        if not dims:
            raise ModelError(
                f"input {value.name!r} has no batch axis", node=value.name,
                remedy="export with inputs of shape [N, ...]",
            )  # fmt: skip
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        specs.append(InputSpec(value.name, (None, *dims[1:]), dtype))
    return specs


def _model_info(loaded: Loaded) -> ModelInfo:
    model = loaded.model
    opset = next((i.version for i in model.opset_import if i.domain in ("", "ai.onnx")), 0)
    counts: dict[str, int] = {}
    for node in model.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return ModelInfo(
        path=str(loaded.path),
        sha256=loaded.sha256,
        opset=opset,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        bytes=loaded.bytes,
        nodes=counts,
    )


def _target_file(source: Path, output: str | Path | None) -> Path:
    """Where to write; raises UsageError where that is the model itself."""
    default = source.with_name(f"{source.name.removesuffix('.onnx')}.snn.onnx")
    target = Path(output) if output is not None else default
    if target.resolve() == source.resolve():
        raise UsageError(
            f"{target}: the output would overwrite the model", remedy="choose another -o"
        )
    return target


def _with_passes(equivalence: Equivalence, converted: pipeline.Converted) -> Equivalence:
    """The ladder with its first rung, the passes, which was climbed before."""
    figures = of_check("passes", [passes_figure(converted.reports, converted.pass_limit())])
    return replace(
        equivalence,
        fold_error=converted.fold_error(),
        figures=(*figures, *equivalence.figures),
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


def _silent(step: str, share: float) -> None:
    """No progress display."""
