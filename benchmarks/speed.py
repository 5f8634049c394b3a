"""Time of every form of file beside T passes of the float ANN, and beside other simulators.

    python benchmarks/speed.py [--networks resnet18,resnet50] [--steps 4] [--batches 1,16]
                               [--repeats 9] [--threads 1] [--json FILE] [--plot FILE]
    python benchmarks/speed.py --plot-from FILE --plot FILE     # of an earlier --json

Each network of `na_convert.models` gets random weights, settled BatchNorm and 2-bit activations,
and is converted, in float with weights on grids and in int8; a path to an ``.onnx`` file takes that
one. The contenders run in one process, one after the other, again and again; what counts is the
ratio, within each round, to T times the time of one pass of the float ANN (the same network with
ReLUs; of a file, the file) in onnxruntime, on the same batch. Printed are medians and quartiles
over the rounds, and how many spike counts differ between the forms, with and without optimisations,
with one thread and two: there must be none. Other simulators run if they are installed (extra
``bench``; Sinabs as readers.txt says), see other_simulators.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from na_convert.passes import snap
from other_simulators import SIMULATORS, contenders

from na_convert import forms, integer_conversion, model_io, pipeline
from na_convert.conversion import EXACT_TIMESTEPS
from na_convert.data import Samples
from na_convert.running import file_runner
from na_convert.runtime import session
from na_convert.snn import Snn, recorded

Run = Callable[[np.ndarray], Any]
SHAPE = (3, 32, 32)
SETTINGS = ({"threads": 1}, {"threads": 2}, {"threads": 1, "optimise": False})


@dataclass(frozen=True)
class Network:
    """What is timed.

    Attributes:
        ann: in onnxruntime; the measure of all ratios.
        snn: as converted; the int8 forms are made of it.
        staircase_ann: its ANN.
        exact: on grids.
        net: the float network in torch; None for a file.
    """

    ann: onnx.ModelProto
    snn: Snn
    staircase_ann: gs.Graph
    exact: Snn
    net: Any


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="resnet18,resnet50")
    parser.add_argument("--steps", default="4")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count-steps", default="1,2,4,8", help="T at which counts are compared")
    parser.add_argument("--only", default="", help="part of the names of the contenders to time")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--plot-from", type=Path, help="an earlier --json; nothing is timed")
    options = parser.parse_args()
    if options.plot_from and not options.plot:
        parser.error("--plot-from needs --plot FILE: where the plot goes")
    if options.plot_from:
        plot(json.loads(options.plot_from.read_text())["rows"], options.plot)
        return 0
    rows: list[dict[str, Any]] = []
    differing: int | None = None  # nothing compared
    for name in options.networks.split(","):
        network = prepare(name)
        for steps in (int(t) for t in options.count_steps.split(",") if t):
            differing = (differing or 0) + compare(name, network, steps)
        for steps in (int(t) for t in options.steps.split(",") if t):
            runs = {
                contender: run
                for contender, run in runs_of(network, steps, options.threads).items()
                if contender == "ann" or options.only in contender
            }
            for batch in (int(n) for n in options.batches.split(",")):
                print(f"{name}, T = {steps}, batch {batch}: ratio to T x ANN, median (quartiles)")
                timed = measure(runs, steps, batch, options.repeats)
                rows += [{"network": name, "T": steps, "batch": batch, **row} for row in timed]
    if options.json:
        found = {"threads": options.threads, "differing_counts": differing, "rows": rows}
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if options.plot:
        plot(rows, options.plot)
    return 1 if differing else 0


# --- networks -------------------------------------------------------------------------------------


def prepare(name: str) -> Network:
    if name.endswith(".onnx"):
        return converted(Path(name), onnx.load(name), None)
    import torch
    from na_convert.models import export_onnx, initialise_steps, networks, quantize

    torch.manual_seed(0)
    net = networks.build(name, 10, shape=SHAPE)
    with torch.no_grad():
        for _ in range(3):
            net.train()(torch.randn(16, *SHAPE))
    with tempfile.TemporaryDirectory() as folder:
        float_path, path = Path(folder) / "float.onnx", Path(folder) / f"{name}.onnx"
        export_onnx(net.eval(), SHAPE, float_path)
        quantised = networks.build(name, 10, shape=SHAPE)
        quantised.load_state_dict(net.state_dict())
        quantised = quantize(quantised, bits=2)
        initialise_steps(quantised, torch.randn(2, *SHAPE))
        export_onnx(quantised, SHAPE, path)
        return converted(path, onnx.load(float_path), net)


def converted(path: Path, ann: onnx.ModelProto, net: Any) -> Network:
    loaded = model_io.load(path)
    name = loaded.model.graph.input[0].name
    found = pipeline.convert(loaded, {name: samples(2)}, pipeline.Options(timesteps=4), check=False)
    assert found.snn is not None
    exact, exactness = snap.run(found.snn, {name: 5.0}, EXACT_TIMESTEPS)
    worst = exactness.worst
    if worst is None:
        print(f"{path.name}: not on grids: {exactness.reason}")
    else:
        print(f"{path.name}: weights rounded by {worst.weight_error:.2g} at most ({worst.name})")
    return Network(ann, found.snn, found.staircase_ann, exact, net)


def samples(count: int) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((count, *SHAPE)).astype(np.float32)
    return np.clip(values, -4, 4)


def float_files(network: Network, steps: int) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Every form in float, on grids."""
    for form in forms.FORMS.values():
        yield form.name, form.parts(recorded(replace(network.exact, timesteps=steps))).whole()


def int8_files(network: Network, steps: int) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Every form in int8, thresholds as they are and tied along shortcuts."""
    snn = replace(network.snn, timesteps=steps)
    given = Samples({snn.graph.inputs[0].name: samples(16)}, None, "random")
    for suffix, tie in (("", "never"), (", tied", "always")):
        for form in forms.INT8_FORMS.values():
            made = integer_conversion.convert(snn, network.staircase_ann, given, form, tie=tie)
            yield form.name + suffix, made.parts.whole()


# --- counts ---------------------------------------------------------------------------------------


def compare(name: str, network: Network, steps: int) -> int:
    """Counts that differ from those of the first file and setting: in float, in int8, int8 tied."""
    feeds, layers = {network.snn.graph.inputs[0].name: samples(1)}, network.snn.neurons
    names = [n.name for n in layers]
    wanted: dict[str, list[np.ndarray]] = {}
    total = differing = 0
    for form, model in (*float_files(network, steps), *int8_files(network, steps)):
        kind = _kind(form)
        for settings in SETTINGS:
            run = file_runner(model, names, backend=partial(session, **settings))
            found = run(feeds, steps)
            counts = [np.count_nonzero(found.spikes[k], axis=0) for k in names]
            pairs = zip(wanted.setdefault(kind, counts), counts, strict=True)
            differing += sum(int(np.count_nonzero(a != b)) for a, b in pairs)
            total += sum(c.size for c in counts)
    print(f"{name}, T = {steps}: {differing} of {total} counts differ", flush=True)
    return differing


def _kind(form: str) -> str:
    """Files of one kind hold the same network."""
    return ("int8" if form.startswith("int8") else "float") + (", tied" * ("tied" in form))


# --- time -----------------------------------------------------------------------------------------


def runs_of(network: Network, steps: int, threads: int) -> dict[str, Run]:
    name = network.snn.graph.inputs[0].name
    runs = {"ann": _onnx(network.ann, threads)}
    for form, model in (*float_files(network, steps), *int8_files(network, steps)):
        if "step" in form.split(",")[0]:
            runs[form] = _stepwise(model, name, steps, threads)
        else:
            runs[form] = _onnx(model, threads)
    if network.net is not None:
        runs |= contenders(network.net, steps, threads)
    return runs


def measure(runs: dict[str, Run], steps: int, batch: int, repeats: int) -> list[dict[str, Any]]:
    x = samples(batch)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run(x)
            if round_:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    rows = []
    for name in runs:
        if name == "ann":
            continue
        ratios = [t / (steps * a) for t, a in zip(times[name], times["ann"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"  {name:26} {middle:6.3f}  ({low:.3f} .. {high:.3f})", flush=True)
        rows.append({"contender": name, "median": middle, "quartiles": [low, high]})
    return rows


def _onnx(model: onnx.ModelProto, threads: int) -> Run:
    runner, name = session(model, threads=threads), model.graph.input[0].name
    return lambda x: runner.run(None, {name: x})


def _stepwise(model: onnx.ModelProto, name: str, steps: int, threads: int) -> Run:
    run = file_runner(model, (), threads)
    return lambda x: run({name: x}, steps)


# --- plot -----------------------------------------------------------------------------------------


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """A panel for each network and T, a bar for each contender and batch; tied ones left out."""
    import matplotlib.pyplot as plt

    rows = [row for row in rows if "tied" not in row["contender"]]
    panels = list(dict.fromkeys((row["network"], row["T"]) for row in rows))
    batches = sorted({row["batch"] for row in rows})
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.6 * len(panels), 4.2), sharey=True, squeeze=False
    )
    for axis, (network, steps) in zip(axes[0], panels, strict=True):
        chosen = [row for row in rows if (row["network"], row["T"]) == (network, steps)]
        names = list(dict.fromkeys(row["contender"] for row in chosen))
        height = 0.8 / len(batches)
        for row in chosen:
            place, batch = names.index(row["contender"]), batches.index(row["batch"])
            at = place + (batch - (len(batches) - 1) / 2) * height
            ours = not row["contender"].startswith(SIMULATORS)
            axis.barh(
                at, row["median"], height, color="#1f77b4" if ours else "#888888",
                alpha=1 - 0.45 * batch / len(batches),
            )  # fmt: skip
            axis.text(row["median"] + 0.02, at, f"{row['median']:.2f}", va="center", fontsize=7)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_yticks(range(len(names)), names)
        axis.margins(x=0.12)
        axis.set_title(f"{network}, T = {steps}")
        axis.set_xlabel("time / (T passes of the float ANN)")
    axes[0][0].invert_yaxis()
    figure.suptitle(f"dark to light: batch {', '.join(map(str, batches))}", fontsize=8, y=0.02)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
