"""Time of every form of file beside T passes of the float ANN, and beside SpikingJelly.

    python benchmarks/speed.py [--networks resnet18,resnet50] [--steps 4] [--batches 1,16]
                               [--repeats 9] [--threads 1] [--json FILE] [--plot FILE]

Each network of `na_convert.models` gets random weights and 2-bit activations and is converted with
weights on grids (``--exact``); a path to an ``.onnx`` file takes that one. The contenders run in
one process, one after the other, again and again; what counts is the ratio, within each round, to T
times the time of one pass of the float ANN (the same network with ReLUs) in onnxruntime, on the
same batch. Printed are medians and quartiles over the rounds, and how many spike counts differ
between the forms: there must be none. SpikingJelly runs in its multi-step and its single-step mode,
with BatchNorm folded, if it is installed (extra ``bench``).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from na_convert.passes import snap

from na_convert import forms, model_io, pipeline
from na_convert.running import file_runner
from na_convert.runtime import session
from na_convert.snn import Snn, recorded

Run = Callable[[np.ndarray], Any]
SHAPE = (3, 32, 32)
EXACT_TIMESTEPS = 32


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="resnet18,resnet50")
    parser.add_argument("--steps", default="4")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count-steps", default="1,2,4,8", help="T at which counts are compared")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    rows, differing = [], 0
    for name in options.networks.split(","):
        ann, network, torch_net = prepare(name)
        differing += compare(name, network, [int(t) for t in options.count_steps.split(",")])
        for steps in (int(t) for t in options.steps.split(",")):
            for batch in (int(n) for n in options.batches.split(",")):
                timed = measure(
                    ann, network, torch_net, steps, batch, options.repeats, options.threads
                )
                rows += [{"network": name, "T": steps, "batch": batch, **row} for row in timed]
    if options.json:
        found = {"threads": options.threads, "differing_counts": differing, "rows": rows}
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if options.plot:
        plot(rows, options.plot)
    return 1 if differing else 0


# --- networks -------------------------------------------------------------------------------------


def prepare(name: str) -> tuple[onnx.ModelProto, Snn, Any]:
    """The float ANN, the SNN on grids, and the float network in torch (None for a file)."""
    if name.endswith(".onnx"):
        return onnx.load(name), snn_of(Path(name)), None
    import torch
    from na_convert.models import export_onnx, initialise_steps, networks, quantize

    torch.manual_seed(0)
    net = networks.build(name, 10, shape=SHAPE).eval()
    with tempfile.TemporaryDirectory() as folder:
        float_path, path = Path(folder) / "float.onnx", Path(folder) / "quantised.onnx"
        export_onnx(net, SHAPE, float_path)
        ann = onnx.load(float_path)
        quantised = quantize(networks.build(name, 10, shape=SHAPE), bits=2)
        initialise_steps(quantised, torch.randn(2, *SHAPE))
        export_onnx(quantised, SHAPE, path)
        return ann, snn_of(path), net


def snn_of(path: Path) -> Snn:
    feeds = {"x": samples(2)}
    loaded = model_io.load(path)
    name = loaded.model.graph.input[0].name
    converted = pipeline.convert(
        loaded, {name: feeds["x"]}, pipeline.Options(timesteps=4), check=False
    )
    assert converted.snn is not None
    network, found = snap.run(converted.snn, {name: 5.0}, EXACT_TIMESTEPS)
    worst = found.worst
    if worst is None:
        print(f"{path.name}: not on grids: {found.reason}")
    else:
        print(f"{path.name}: weights rounded by {worst.weight_error:.2g} at most ({worst.name})")
    return network


def samples(count: int) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((count, *SHAPE)).astype(np.float32)
    return np.clip(values, -4, 4)


# --- counts ---------------------------------------------------------------------------------------


def compare(name: str, network: Snn, steps: list[int]) -> int:
    """Counts that differ from those of the folded file, over forms, settings and all T."""
    feeds = {network.graph.inputs[0].name: samples(1)}
    layers = [n.name for n in network.neurons]
    total = differing = 0
    for timesteps in steps:
        wanted = None
        for form in forms.FORMS.values():
            model = form.parts(recorded(replace(network, timesteps=timesteps))).whole()
            for settings in ({"threads": 1}, {"threads": 2}, {"threads": 1, "optimise": False}):
                run = file_runner(model, layers, backend=partial(session, **settings))
                found = run(feeds, timesteps)
                counts = [np.count_nonzero(found.spikes[k], axis=0) for k in layers]
                wanted = counts if wanted is None else wanted
                pairs = zip(wanted, counts, strict=True)
                differing += sum(int(np.count_nonzero(a != b)) for a, b in pairs)
                total += sum(c.size for c in counts)
    print(f"{name}: {differing} of {total} counts differ, T in {steps}", flush=True)
    return differing


# --- time -----------------------------------------------------------------------------------------


def measure(
    ann: onnx.ModelProto, network: Snn, net: Any, steps: int, batch: int, repeats: int, threads: int
) -> list[dict[str, Any]]:
    x = samples(batch)
    runs = {"ann": _onnx(ann, threads)}
    for form in forms.FORMS.values():
        runs[form.name] = _form(form, network, steps, threads)
    if net is not None:
        runs |= _spikingjelly(net, steps, threads)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run(x)
            if round_:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    rows = []
    print(f"T = {steps}, batch {batch}: ratio to T x ANN, median (quartiles)")
    for name in runs:
        if name == "ann":
            continue
        ratios = [t / (steps * a) for t, a in zip(times[name], times["ann"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"  {name:26} {middle:6.2f}  ({low:.2f} .. {high:.2f})", flush=True)
        rows.append({"contender": name, "median": middle, "quartiles": [low, high]})
    return rows


def _onnx(model: onnx.ModelProto, threads: int) -> Run:
    runner, name = session(model, threads=threads), model.graph.input[0].name
    return lambda x: runner.run(None, {name: x})


def _form(form: forms.Form, network: Snn, steps: int, threads: int) -> Run:
    model = form.parts(recorded(replace(network, timesteps=steps))).whole()
    if form.name == "step":
        name = network.graph.inputs[0].name
        run = file_runner(model, (), threads)
        return lambda x: run({name: x}, steps)
    return _onnx(model, threads)


def _spikingjelly(net: Any, steps: int, threads: int) -> dict[str, Run]:
    """SpikingJelly's neurons in place of the ReLUs; stateless layers see time in the batch."""
    try:
        import torch
        from spikingjelly.activation_based import functional, neuron
        from torch.fx.experimental.optimization import fuse
    except ImportError as error:
        print(f"  SpikingJelly left out: {error}")
        return {}
    torch.set_num_threads(threads)

    class Neurons(torch.nn.Module):
        def __init__(self, mode: str) -> None:
            super().__init__()
            self.mode = mode
            self.node = neuron.IFNode(v_threshold=1.0, v_reset=None, step_mode=mode)

        def forward(self, x: Any) -> Any:
            if self.mode == "s":
                return self.node(x)
            return self.node(x.unflatten(0, (steps, -1))).flatten(0, 1)

    def spiking(mode: str) -> Any:
        made = fuse(net)
        for name, module in list(made.named_modules()):
            if isinstance(module, torch.nn.ReLU):
                parent = made.get_submodule(name.rpartition(".")[0])
                setattr(parent, name.rpartition(".")[2], Neurons(mode))
        return made

    multi, single = spiking("m"), spiking("s")

    @torch.inference_mode()
    def run_multi(x: np.ndarray) -> Any:
        functional.reset_net(multi)
        y = multi(torch.from_numpy(x).repeat(steps, 1, 1, 1))
        return y.unflatten(0, (steps, -1)).mean(0)

    @torch.inference_mode()
    def run_single(x: np.ndarray) -> Any:
        functional.reset_net(single)
        given = torch.from_numpy(x)
        return sum(single(given) for _ in range(steps)) / steps

    return {"SpikingJelly multi-step": run_multi, "SpikingJelly single-step": run_single}


# --- plot -----------------------------------------------------------------------------------------


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib.pyplot as plt

    groups = list(dict.fromkeys((r["network"], r["T"], r["batch"]) for r in rows))
    contenders = list(dict.fromkeys(r["contender"] for r in rows))
    figure, axes = plt.subplots(figsize=(8, 1 + 0.5 * len(groups) * len(contenders) / 2))
    for index, contender in enumerate(contenders):
        chosen = {
            (r["network"], r["T"], r["batch"]): r for r in rows if r["contender"] == contender
        }
        heights = [
            g * (len(contenders) + 1) + index for g, key in enumerate(groups) if key in chosen
        ]
        axes.barh(
            heights, [chosen[key]["median"] for key in groups if key in chosen], label=contender
        )
    axes.axvline(1, color="black", linewidth=0.8)
    middles = [g * (len(contenders) + 1) + (len(contenders) - 1) / 2 for g in range(len(groups))]
    axes.set_yticks(middles, [f"{n}, T = {t}, batch {b}" for n, t, b in groups])
    axes.set_xlabel("time, as a multiple of T passes of the float ANN in onnxruntime")
    axes.invert_yaxis()
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
