"""From a loaded model to an SNN: runs the passes, and checks the graph after each, on numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnx_graphsurgeon as gs

from . import (
    __version__,
    batch_check,
    large_batch,
    opaque,
    refusals,
    runtime,
    shapes,
    size_guard,
)
from .errors import CheckFailed, ModelError, NotConvertible, PassFailed, UsageError
from .explanation import Explanation
from .explanation import explain as explain_node
from .forms.folded import FORM
from .graph import Carried, import_graph, is_constant
from .lift import prepare
from .model_io import Loaded
from .module_names import name_by_module, node_of_module
from .passes import ANN_PASSES, NORMALISE, Pass, calibrate, fold_batchnorm, to_spiking
from .passes.affine import obstacle
from .passes.calibrate import Calibration
from .passes.walk_shapes import ranks
from .results import Neuron, PassReport, Refusal
from .runtime import Feeds
from .snn import Snn, metadata
from .snn_guard import MOST_TIMESTEPS
from .spec import check_graph, check_spiking
from .teacher_forcing import runner, teacher_forced_error

PASS_LIMIT = 1e-4  # largest relative change of a tensor that a pass may make
PASS_LIMIT_HALF = 4e-3
MAX_DEFAULT_TIMESTEPS = 16
_CHECK_ROWS = 2


@dataclass(frozen=True)
class Options:
    """What a user may ask of a conversion.

    Attributes:
        timesteps: the file's default T; None: the largest number of levels, at most 16.
        calibration: how plain ReLUs get a threshold; None: they are refused.
        calibration_feeds: the data for it.
        readout_from: name of the node behind which everything stays analog.
    """

    timesteps: int | None = None
    calibration: Calibration | None = None
    calibration_feeds: Feeds | None = None
    readout_from: str | None = None


@dataclass(frozen=True)
class Converted:
    """Every stage that verification needs; `snn` is None where `refused` is not empty.

    Attributes:
        ann: the network as exported, after `normalise`; not kept (the same as `staircase_ann`)
            where nothing is checked, to save the memory.
        staircase_ann: the same after the other passes: each activation one node.
        entangled: why the network works for the batch size of its file only; empty if it does not.
    """

    ann: gs.Graph
    staircase_ann: gs.Graph
    snn: Snn | None
    carried: Carried
    reports: tuple[PassReport, ...]
    refused: tuple[Refusal, ...]
    notes: tuple[str, ...]
    entangled: str = ""

    def pass_limit(self) -> float:
        """The largest relative change of a tensor that a pass may make."""
        return _pass_limit(self.ann)

    def fold_error(self) -> float | None:
        """Largest change that normalising and folding made; None where it was not checked."""
        errors = [r.max_abs_error for r in self.reports[:2] if r.max_abs_error is not None]
        return max(errors) if errors else None


def convert(loaded: Loaded, feeds: Feeds, options: Options, *, check: bool) -> Converted:
    """Run every pass on ``loaded``; with ``check``, compare numbers on rows of ``feeds``.

    Raises PassFailed where a pass leaves the graph invalid or changes what it computes,
    NotConvertible where the model holds no activation at all, and UsageError where an option does
    not fit the model.
    """
    with runtime.or_its_refusal(loaded.path):
        return _convert(loaded, feeds, options, check=check)


def _convert(loaded: Loaded, feeds: Feeds, options: Options, *, check: bool) -> Converted:
    found = _reference(loaded, feeds, check=check, readout_from=options.readout_from)
    graph, carried = found.staircase_ann.copy(), found.carried
    readout = _node_called(graph, carried, options.readout_from)
    reports = list(found.reports)
    if options.calibration is not None and options.calibration_feeds is not None:
        how, data = options.calibration, options.calibration_feeds
        reports.append(calibrate.run(graph, carried, data, how))
    chosen, skipped = to_spiking.choose_neurons(graph, readout)
    refused = refusals.gather(graph, reports, chosen, readout)
    if not chosen and not refused:
        raise NotConvertible(
            f"{loaded.path}: no quantised or clipped activation found to turn into neurons",
            remedy="export the network with its activation quantisers (or ReLU6/clip) in place",
        )
    if refused:
        reports.append(PassReport(to_spiking.NAME, 0, skipped, refused))
        return replace(found, staircase_ann=graph, reports=tuple(reports), refused=refused)
    if found.entangled:
        raise NotConvertible(f"{loaded.path}: {found.entangled}", remedy=large_batch.REMEDY)
    if check:
        _require_finite(loaded.path, graph, carried, chosen, feeds)
    names = [a.outputs[0].name for a in chosen]
    staircase_ann = graph.copy()
    spiking = to_spiking.run(graph, shapes.of_one_sample(graph, carried, feeds, names), readout)
    reports.append(spiking.report)
    found = replace(found, staircase_ann=staircase_ann, reports=tuple(reports))
    check_graph(graph, "to_spiking")
    check_spiking(graph, "to_spiking")
    steps, notes = _timesteps(spiking.neurons, options.timesteps)
    snn = Snn(graph, spiking.neurons, steps, carried)
    described = metadata(snn, FORM, __version__, loaded.sha256)
    snn = replace(snn, carried=carried.with_metadata(described))
    return replace(found, snn=snn, notes=(*found.notes, *notes, *_not_low_bit(spiking.neurons)))


def reference(loaded: Loaded, feeds: Feeds, *, check: bool = True) -> Converted:
    """The ANN's side alone: the passes up to where each activation is one node.

    Takes the model out of ``loaded``.
    """
    with runtime.or_its_refusal(loaded.path):
        return _reference(loaded, feeds, check=check)


def _reference(
    loaded: Loaded, feeds: Feeds, *, check: bool, readout_from: str | None = None
) -> Converted:
    opaque.refuse_loops(loaded.path, loaded.model)
    model, notes = prepare(loaded.take())
    notes = (*loaded.notes, *notes)
    unreadable = opaque.foreign(model)
    check = check and not unreadable
    graph, carried = import_graph(model)
    del model
    _require_numbers(loaded.path, graph)
    rows = {name: values[:_CHECK_ROWS] for name, values in feeds.items()} if check else None
    exported = graph.copy() if check else graph
    reports = [_run(NORMALISE, graph, carried, rows)]
    unreadable += opaque.branches(graph)
    if unreadable:
        _refuse_with_others(loaded.path, unreadable, graph, carried, reports, readout_from)
    entangled = batch_check.entanglement(exported, graph, carried, feeds) if check else ""
    if entangled and rows is not None:  # later passes are compared at the file's own batch size
        rows = _fitting(exported, rows)
    del exported
    ann = graph.copy() if check else graph
    for each in ANN_PASSES:
        reports.append(_run(each, graph, carried, rows))
    name_by_module(graph, carried)
    return Converted(ann, graph, None, carried, tuple(reports), (), notes, entangled)


def _refuse_with_others(
    path: Path,
    unreadable: tuple[Refusal, ...],
    graph: gs.Graph,
    carried: Carried,
    reports: list[PassReport],
    readout_from: str | None,
) -> NoReturn:
    """Raise NotConvertible for ``unreadable`` and whatever else in ``graph`` cannot spike."""
    for each in ANN_PASSES:
        reports.append(_run(each, graph, carried, None))
    readout = _node_called(graph, carried, readout_from)
    chosen, _ = to_spiking.choose_neurons(graph, readout)
    others = refusals.gather(graph, reports, chosen, readout)
    others = opaque.judged(graph, unreadable, others)
    opaque.refuse(path, refusals.in_order(graph, (*unreadable, *others)))


def explain(loaded: Loaded, node: str) -> Explanation:
    """What `find_activations` makes of the function that ``node`` is part of."""
    with runtime.or_its_refusal(loaded.path):
        return _explain(loaded, node)


def _explain(loaded: Loaded, node: str) -> Explanation:
    size_guard.check_sizes(loaded.path, loaded.model, {})
    model, _ = prepare(loaded.take())
    graph, carried = import_graph(model)
    NORMALISE(graph)
    fold_batchnorm.run(graph)
    if not any(node in (n.name, *(t.name for t in n.outputs)) for n in graph.nodes):
        node = node_of_module(graph, carried, node) or node
    return _with_obstacle(graph, explain_node(graph, node))


def _with_obstacle(graph: gs.Graph, found: Explanation) -> Explanation:
    """Of an operator that is no function of one number: what keeps it from standing between
    neurons."""
    nodes = [n for n in graph.nodes if found.node in (n.name, *(t.name for t in n.outputs))]
    if found.kind != "not elementwise" or not nodes:
        return found
    computed = [not is_constant(t) and not t.is_empty() for t in nodes[0].inputs]
    known = obstacle(nodes[0], computed, ranks(graph))
    if known is None:
        return found
    reason = f"{found.reason}; between neurons: {known.reason}"
    return replace(found, reason=reason, remedy=known.remedy)


def _require_finite(
    path: Path, graph: gs.Graph, carried: Carried, activations: list[gs.Node], feeds: Feeds
) -> None:
    """Raise CheckFailed where an activation's input is not finite on the first rows."""
    rows = _fitting(graph, {name: values[:_CHECK_ROWS] for name, values in feeds.items()})
    roots = list(dict.fromkeys(a.inputs[0].name for a in activations))
    for name, values in runner(graph, carried, (), roots)(rows).items():
        if not np.isfinite(np.asarray(values, np.float64)).all():
            raise CheckFailed(
                f"{path}: tensor {name!r} is not finite on the samples: the network overflows",
                node=name,
                remedy="look at the weights before it, and at the scale of the input",
            )


_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization")


def _require_numbers(path: Path, graph: gs.Graph) -> None:
    """Raise ModelError, naming the weight, where one is not a number, or is multiplied by and
    infinite (as a bound, of a Clip or a mask, it may be)."""
    remedy = "the training diverged: export a checkpoint from before"
    for name, tensor in graph.tensors().items():
        if not is_constant(tensor) or tensor.values.dtype.kind != "f":
            continue
        if np.isnan(tensor.values).any():
            raise ModelError(f"{path}: weight {name!r} holds NaN", node=name, remedy=remedy)
        if any(n.op in _WEIGHTED for n in tensor.outputs) and np.isinf(tensor.values).any():
            raise ModelError(f"{path}: weight {name!r} is infinite", node=name, remedy=remedy)


def _run(each: Pass, graph: gs.Graph, carried: Carried, rows: Feeds | None) -> PassReport:
    before = graph.copy() if rows is not None else None
    report = each(graph)
    check_graph(graph, report.name)
    if before is None or rows is None or report.refused or not report.changed:
        return report
    absolute, relative, where = teacher_forced_error(before, graph, carried, _fitting(before, rows))
    limit = _pass_limit(before)
    if not relative <= limit:
        raise PassFailed(
            f"pass {report.name} changed {where!r} by {relative:.2g} relative "
            f"(limit {limit:g}; {relative:.2g} would have passed)",
            node=where,
            remedy="this is a defect of na-convert: please report it with the model",
        )
    return replace(report, max_abs_error=absolute, max_rel_error=relative)


def _pass_limit(graph: gs.Graph) -> float:
    """Half precision, anywhere in ``graph``, rounds by 5e-4; without it `PASS_LIMIT`."""
    tensors = [*graph.inputs, *graph.outputs, *graph.tensors().values()]
    half = any(t.dtype is not None and t.dtype == np.float16 for t in tensors)
    return PASS_LIMIT_HALF if half else PASS_LIMIT


def _fitting(graph: gs.Graph, rows: Feeds) -> Feeds:
    """As many rows as the graph's batch takes, where it is fixed."""
    sizes = {t.name: t.shape[0] for t in graph.inputs if t.shape and isinstance(t.shape[0], int)}
    return {k: np.resize(v, (sizes[k], *v.shape[1:])) if k in sizes else v for k, v in rows.items()}


def _node_called(graph: gs.Graph, carried: Carried, name: str | None) -> gs.Node | None:
    """The node with this name now or in the file, or that computes the tensor with this name."""
    if name is None:
        return None
    names = {name, carried.outputs_by_node.get(name, name)}
    for node in graph.nodes:
        if node.name in names or any(t.name in names for t in node.outputs):
            return node
    raise UsageError(
        f"--readout-from {name}: the network has no node or tensor of that name after the passes",
        node=name,
        remedy="`na-convert inspect` lists the names",
    )


def _not_low_bit(neurons: tuple[Neuron, ...]) -> tuple[str, ...]:
    """What converting a network that was not trained low-bit costs, if it is one."""
    plain = [n for n in neurons if n.levels is None]
    if not plain:
        return ()
    return (
        f"{len(plain)} of {len(neurons)} activations have no levels: the network was not trained "
        "low-bit. Each neuron is then off by up to threshold / (2 T) where a trained staircase "
        "would be exact at T = levels, and clipping cuts what lies above the threshold: expect to "
        "need many more time steps",
    )


def _timesteps(neurons: tuple[Neuron, ...], asked: int | None) -> tuple[int, tuple[str, ...]]:
    """The number of time steps: as asked, else the largest number of levels, at most 16."""
    if asked is not None:
        if asked < 1:
            raise UsageError(f"-T {asked}: at least one time step is needed")
        if asked > MOST_TIMESTEPS:
            raise UsageError(f"-T {asked}: files of at most {MOST_TIMESTEPS} time steps are read")
        return asked, ()
    levels = [n.levels for n in neurons if n.levels]
    if not levels:
        return MAX_DEFAULT_TIMESTEPS, (
            f"no activation has levels, so T = {MAX_DEFAULT_TIMESTEPS} was chosen; set it with -T",
        )
    if max(levels) > MAX_DEFAULT_TIMESTEPS:
        return MAX_DEFAULT_TIMESTEPS, (
            f"activations have up to {max(levels)} levels; T was capped at "
            f"{MAX_DEFAULT_TIMESTEPS}; set it with -T",
        )
    return max(levels), ()
