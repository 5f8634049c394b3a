"""What the tool reports, as frozen dataclasses; field names are those of the JSON output."""

from __future__ import annotations

from dataclasses import dataclass, field

WARNING = "warning: "  # begins those of a result's notes that should not be overlooked


@dataclass(frozen=True)
class Skip:
    """Something a pass could have changed and did not, with the reason."""

    node: str
    reason: str


@dataclass(frozen=True)
class Refusal:
    """A node that cannot be part of a spiking network: why, and what to do about it."""

    node: str
    op: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class PassReport:
    """What one pass did; the pipeline's check fills in the errors (None: not checked)."""

    name: str
    changed: int
    skipped: tuple[Skip, ...] = ()
    refused: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    max_abs_error: float | None = None
    max_rel_error: float | None = None


@dataclass(frozen=True)
class Neuron:
    """One layer of integrate-and-fire neurons and the activation it stands for.

    Attributes:
        name: of the IF node.
        root: the ANN's tensor that the activation was a function of (its pre-activation).
        output: the ANN's tensor that held the activation's value.
        kind: "staircase", "clip" or "relu".
        threshold: a neuron fires when its membrane reaches it; number, or list per channel.
        amplitude: the value of one spike; number, or list per channel.
        input_step, output_step: width and height of a stair (d and s); None for clip and relu.
        levels: stairs above the lowest level (p); None for clip and relu.
        lowest_level: the lowest level (lo), in output steps.
        phase: phi in ``s * (lo + clip(floor(x / d + phi - lo), 0, p))``.
        tie_rule: how the ANN rounds halves: "half_even", "half_up", "half_away", "floor", ...
        constant_input: True where the current is the same at every time step.
        shape: of one sample's layer, without the batch.
        bias_shift: what calibration added to the current, per channel; None: nothing.
        current_scale, output_scale: current and output in the SNN, as multiples of the ANN's; a
            network on grids (`Exactness`) has threshold 1 and spikes of 1 inside.
    """

    name: str
    root: str
    output: str
    kind: str
    threshold: float | list[float]
    amplitude: float | list[float]
    input_step: float | list[float] | None
    output_step: float | list[float] | None
    levels: int | None
    lowest_level: float | list[float]
    phase: float | list[float]
    tie_rule: str
    constant_input: bool
    shape: tuple[int, ...]
    bias_shift: list[float] | None = None
    current_scale: float | list[float] = 1.0
    output_scale: float | list[float] = 1.0


@dataclass(frozen=True)
class SnappedLayer:
    """Weights that were rounded to multiples of 2^grid, and by how much: root mean square, relative
    to that of the weights."""

    name: str
    weight_error: float
    grid: int


@dataclass(frozen=True)
class Exactness:
    """Whether every engine computes the same counts, proven from the weights.

    Attributes:
        timesteps: up to which no sum, membranes included, can leave the exact range of float32.
        bounds: of the network's inputs, for which that holds, by name.
        reason: why the network is not on grids.
    """

    exact: bool
    timesteps: int
    bounds: dict[str, float] = field(default_factory=dict)
    layers: tuple[SnappedLayer, ...] = ()
    reason: str | None = None

    @property
    def worst(self) -> SnappedLayer | None:
        """The layer whose weights changed most."""
        return max(self.layers, key=lambda layer: layer.weight_error, default=None)


@dataclass(frozen=True)
class Rounding:
    """What putting the weights on grids did to the ANN: levels that flip where both get the same
    values layer by layer, and on all samples the classes and accuracies, 0 to 1."""

    levels: int
    flips: int
    agreement: float
    accuracy_before: float | None
    accuracy: float | None


@dataclass(frozen=True)
class InputRange:
    """Values of the input ``name`` beside those for which identical counts are proven.

    Attributes:
        bound: the largest absolute value that is proven; ``largest``: that of the data.
        beyond: how many of the ``samples`` hold a larger one.
    """

    name: str
    bound: float
    largest: float
    beyond: int
    samples: int


@dataclass(frozen=True)
class Figure:
    """One figure of the ladder: a number and its limit; the number is the least that would pass.

    Attributes:
        name: what was measured.
        value, limit: a figure passes up to its limit; an agreement from its limit on.
        detail: in words, with the layer that decided.
        node: that layer, or the tensor; None where the figure is about the whole network.
        check: the check that the figure belongs to, one of `checks.CHECKS`.
    """

    name: str
    value: float
    limit: float
    passed: bool
    detail: str = ""
    node: str | None = None
    check: str = ""


Interval = tuple[float, float]


@dataclass(frozen=True)
class TimestepResult:
    """Accuracy and agreement after T time steps; fractions from 0 to 1, None without labels.

    Attributes:
        agreement: share of predictions for which both networks choose the same class.
        logit_rmse: root of the mean square difference of the two outputs, in the output's units.
        agreement_interval, ann_interval, snn_interval: Wilson's 95 % interval of agreement and
            of the accuracies (`statistics.wilson`).
    """

    T: int
    agreement: float
    ann_accuracy: float | None
    snn_accuracy: float | None
    logit_rmse: float
    agreement_interval: Interval | None = None
    ann_interval: Interval | None = None
    snn_interval: Interval | None = None

    @property
    def drop(self) -> float | None:
        """Accuracy of the ANN minus that of the SNN."""
        if self.ann_accuracy is None or self.snn_accuracy is None:
            return None
        return self.ann_accuracy - self.snn_accuracy


@dataclass(frozen=True)
class ClassResult:
    """One class: of its ``count`` samples the shares that ANN and SNN recognise, and on which both
    choose the same class, whichever it is."""

    label: int
    count: int
    ann_accuracy: float
    snn_accuracy: float
    agreement: float


@dataclass(frozen=True)
class ErrorPart:
    """Over all neurons and samples, in amplitudes: mean with its sign, and mean of the sizes."""

    mean: float
    mean_abs: float


@dataclass(frozen=True)
class ErrorSplit:
    """SNN minus ANN of a layer, in four parts whose means add up to ``total.mean`` exactly.

    docs/verification.md defines them: ``clipping`` and ``quantisation`` under the ANN's own
    current, ``inherited`` from what the layers before did to the current's mean, ``unevenness``
    from when the spikes arrived.
    """

    clipping: ErrorPart
    quantisation: ErrorPart
    inherited: ErrorPart
    unevenness: ErrorPart
    total: ErrorPart


@dataclass(frozen=True)
class LayerResult:
    """How one neuron layer behaved after `Equivalence.timesteps` steps; shares from 0 to 1.

    Attributes:
        spike_rate: spikes per neuron and time step.
        unevenness: share of neurons whose count differs from that of an even current of equal sum.
        occasional: share of neurons that spike although the ANN's level is the lowest.
        mean_error: mean of SNN minus ANN output, in amplitudes.
        at_lowest, between, at_highest: shares of the ANN's elements by level; of a clip or ReLU
            those at or below zero, and those at or above the threshold.
        exercised: some element lay strictly between the lowest and the highest level.
        saturation: share of neurons that fire at every step.
        relative_error: root mean square of SNN minus ANN over that of the ANN's output above its
            lowest level; infinite where the ANN's layer is silent and the SNN's is not.
        error: SNN minus ANN, split by cause.
    """

    name: str
    spike_rate: float
    unevenness: float
    occasional: float
    mean_error: float
    at_lowest: float
    between: float
    at_highest: float
    exercised: bool
    saturation: float | None = None
    relative_error: float | None = None
    error: ErrorSplit | None = None


@dataclass(frozen=True)
class OperatorWork:
    """Operations per sample in one weighted operator, at `Equivalence.timesteps`.

    Attributes:
        name, op: of the node.
        region: "constant" (before the neurons, the same at every step: computed once), "spiking",
            or "readout" (behind them, on the mean over time: computed once).
        bits: of the activations that go in, in the ANN; None: analog.
        ann_macs: multiply-accumulates in the ANN; those with padding are not counted.
        snn_macs: those left in the SNN, where the input is not spikes.
        synaptic_operations: accumulates in the SNN, one for each spike and connection: the mean
            over samples.
    """

    name: str
    op: str
    region: str
    bits: int | None
    ann_macs: int
    snn_macs: int
    synaptic_operations: float


@dataclass(frozen=True)
class Energy:
    """Estimated energy per sample, of arithmetic alone; docs/verification.md says what is left out.

    Attributes:
        mac_pj, ac_pj: energy of a multiply-accumulate and of an accumulate, in picojoules;
            ``source`` says whose.
        ann_macs, snn_macs, synaptic_operations: sums over ``operators``; of an int8 file, which
            joins operators, what is said of the ANN is of its own.
        ann_nj: the ANN in float: every multiply-accumulate at ``mac_pj``; nanojoules.
        bit_matched_nj: the ANN with its own low-bit activations: a multiplication by b bits is b
            accumulates; analog inputs cost ``mac_pj``.
        snn_nj: synaptic operations at ``ac_pj``, and what is left analog at ``mac_pj``.
        latency_steps: time steps until the output, all layers working within a step.
        pipelined_steps: the same on hardware where a spike takes a step per layer.
        not_counted: operators whose work is not known, and so missing in all figures.
    """

    mac_pj: float
    ac_pj: float
    source: str
    ann_macs: int
    snn_macs: int
    synaptic_operations: float
    ann_nj: float
    bit_matched_nj: float
    snn_nj: float
    latency_steps: int
    pipelined_steps: int
    operators: tuple[OperatorWork, ...]
    not_counted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """Why the SNN is not its ANN (`diagnosis`).

    Attributes:
        first_bad: the first layer whose `LayerResult.relative_error` is above ``limit``, or None.
        cause: the largest error that the layers up to it made themselves: "clipping",
            "quantisation" or "unevenness"; None where no layer is bad.
        advice: one line, with the figure that supports it; empty where none does.
        unknown: what these figures cannot say.
    """

    first_bad: str | None
    limit: float
    cause: str | None
    advice: str
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Equivalence:
    """The ladder's outcome on `samples` samples of `data`; None or empty: not asked for.

    Attributes:
        by_timestep: each T that was evaluated, in order, all on the same samples.
        timesteps: the T of ``layers`` and ``by_class``: the SNN's own.
        layer_samples: samples on which the layers were measured: all, or some spread evenly.
        by_class: per class label; empty without labels.
        energy: at ``timesteps``, on the samples of the layers; None: not measured.
        rounding: what weights on grids changed; None for a network that is on none.
        input_ranges: of a network on grids, the samples beside the inputs it is proven for.
    """

    data: str
    samples: int
    fold_error: float | None = None
    replay_mismatches: int | None = None
    replay_ties: int | None = None
    engine_differences: int | None = None
    by_timestep: tuple[TimestepResult, ...] = ()
    layers: tuple[LayerResult, ...] = ()
    figures: tuple[Figure, ...] = ()
    timesteps: int = 0
    layer_samples: int = 0
    by_class: tuple[ClassResult, ...] = ()
    energy: Energy | None = None
    diagnosis: Diagnosis | None = None
    rounding: Rounding | None = None
    input_ranges: tuple[InputRange, ...] = ()


@dataclass(frozen=True)
class LayerShift:
    """What calibration adds to the current of one layer, in thresholds, over its channels."""

    name: str
    mean_abs: float
    largest: float


@dataclass(frozen=True)
class BiasTrial:
    """One way to shift biases: the mean that was made the ANN's, and the held-out samples with it.

    ``match``: "current" or "output" (`passes.bias_shifts`); ``layers`` in order.
    """

    match: str
    held_out: TimestepResult
    layers: tuple[LayerShift, ...]


@dataclass(frozen=True)
class BiasCalibration:
    """What `calibrate_bias` measured at T time steps, and which shifts stay in the network.

    Attributes:
        samples: how many the shifts were measured on; `held_out` others decided.
        plain: the SNN without shifts beside the ANN, on the held-out samples.
        trials: the ways that were tried.
        kept: the `match` whose shifts are in the network; None: it was nearer to the ANN without.
    """

    timesteps: int
    samples: int
    held_out: int
    plain: TimestepResult
    trials: tuple[BiasTrial, ...]
    kept: str | None

    @property
    def trial(self) -> BiasTrial | None:
        """The one that is kept."""
        return next((trial for trial in self.trials if trial.match == self.kept), None)


@dataclass(frozen=True)
class TracedNeuron:
    """One neuron: its number in the layer and place in its shape, and why it was chosen.

    ``membrane``: at the start, then before the reset at each step, in thresholds.
    """

    neuron: int
    place: tuple[int, ...]
    why: str
    membrane: tuple[float, ...]


@dataclass(frozen=True)
class ExcerptLayer:
    """What some neurons of a layer did on the first sample: ``spikes``, a row for each of
    ``neurons``, at each of ``timesteps`` steps; ``why`` the layer was chosen."""

    name: str
    why: str
    timesteps: int
    neurons: tuple[int, ...]
    spikes: tuple[tuple[bool, ...], ...]
    traced: tuple[TracedNeuron, ...]


@dataclass(frozen=True)
class ModelInfo:
    path: str
    sha256: str
    opset: int
    producer: str
    bytes: int = 0
    nodes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class OutputInfo:
    path: str
    bytes: int
    sha256: str
    nodes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class QuantisedLayer:
    """What became of one layer's weights as integers.

    Attributes:
        bits: of its weights; 0 where the current is constant and there are none.
        weight_error: relative, root of the mean square; 0 where the weights were integers already.
        threshold_error: largest relative change of a threshold.
        on_grid: output channels whose weights were integers already, of ``channels``.
        resolution: at which shortcuts are added (1: as they are, or there are none).
        shortcut_error: what shortcuts are off by, in thresholds, at half the largest count.
        wide: computed in float32 on whole numbers, not in int8.
        largest_sum: of the layer in the worst case, in units of its weights.
        thresholds: the smallest and the largest of its channels, in the same units.
    """

    name: str
    bits: int
    weight_error: float
    threshold_error: float
    on_grid: int
    channels: int
    resolution: int
    shortcut_error: float
    wide: bool
    largest_sum: int
    thresholds: tuple[int, int]


@dataclass(frozen=True)
class Quantisation:
    """The network on integers.

    Attributes:
        tied: whether thresholds along identity shortcuts were made equal, and ``why``.
        raised: by layer, the largest factor by which a threshold was raised for that.
        measured: what decided, "accuracy" or "agreement" at T, if it was measured on data;
            ``score`` without and ``tied_score`` with tied thresholds, from 0 to 1.
        corrected: whether biases make up for the mean error of rounding, on the user's data.
    """

    layers: tuple[QuantisedLayer, ...]
    tied: bool
    why: str
    raised: dict[str, float] = field(default_factory=dict)
    corrected: bool = False
    measured: str | None = None
    score: float | None = None
    tied_score: float | None = None


@dataclass(frozen=True)
class NirLayer:
    """A neuron layer of an SNN, and its IF node in a NIR file; `shape` of one sample."""

    name: str
    node: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class NirExport:
    """A NIR file, and how it was checked.

    Attributes:
        snn: what it was made from.
        target: the reader that it was written for.
        timesteps: T of the checks; with ``initial_membrane`` "bias" the file is for this T alone.
        statements: what is left to whoever runs the file, and what the target does differently.
        figures: the file read back, beside the SNN.
        other_counts, agreement: the file, with its own start of the membranes and without
            rounding, beside the SNN: share of neurons with another count after T steps, and of
            samples with the same largest output.
    """

    snn: ModelInfo
    target: str
    timesteps: int
    initial_membrane: str
    layers: tuple[NirLayer, ...]
    statements: tuple[str, ...]
    figures: tuple[Figure, ...]
    other_counts: float
    agreement: float
    data: str
    samples: int
    output: OutputInfo
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Result:
    """What `convert`, `inspect` and `check` return; None where a command does not produce it."""

    model: ModelInfo
    timesteps: int
    form: str
    neurons: tuple[Neuron, ...]
    refused: tuple[Refusal, ...]
    passes: tuple[PassReport, ...]
    equivalence: Equivalence | None
    output: OutputInfo | None
    passed: bool
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    form_note: str = ""
    exactness: Exactness | None = None
    bias_calibration: BiasCalibration | None = None
    excerpt: tuple[ExcerptLayer, ...] = ()
    snn_nodes: dict[str, int] = field(default_factory=dict)
    quantisation: Quantisation | None = None
    nir: NirExport | None = None


@dataclass(frozen=True)
class SimulatedTimestep:
    """Accuracy of the SNN alone after T steps, 0 to 1; None without labels."""

    T: int
    accuracy: float | None


@dataclass(frozen=True)
class SimulatedLayer:
    """A recorded layer: `shape` of one sample, spikes per neuron and time step."""

    name: str
    shape: tuple[int, ...]
    spike_rate: float


@dataclass(frozen=True)
class ArrayInfo:
    """An array in the file that `simulate` writes."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class EarlyExit:
    """What stopping each sample at ``margin`` gave.

    Attributes:
        mean_timesteps: steps that a sample took.
        stopped: samples that stopped after 1, 2, ... steps; the last also those never decided.
    """

    margin: float
    mean_timesteps: float
    accuracy: float | None
    stopped: tuple[int, ...]


@dataclass(frozen=True)
class SimulationResult:
    """What `record` returns, and `na-convert simulate` prints.

    Attributes:
        recorded: the layers that were asked for.
        path: of the file written, or None; `arrays` are its contents.
        early_exit: if asked for; `by_timestep` then is what at most T steps give.
        input_ranges: of a network on grids, the samples beside the inputs it is proven for.
    """

    model: ModelInfo
    data: str
    samples: int
    timesteps: int
    by_timestep: tuple[SimulatedTimestep, ...]
    recorded: tuple[SimulatedLayer, ...]
    path: str | None
    arrays: tuple[ArrayInfo, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    early_exit: EarlyExit | None = None
    input_ranges: tuple[InputRange, ...] = ()
