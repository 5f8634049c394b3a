"""int8 forms beside T runs of the float ANN: ratios in one process, interleaved.

    python benchmarks/int8_speed.py [--networks resnet18,resnet50] [-T 4] [--batches 1,16]

Random weights, 32x32 images, one thread, onnxruntime. A ratio is the median over the rounds of
(time of the SNN) / (T x time of the float ANN), both run one after the other in each round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from na_convert.passes import quantise_weights, tie_shortcuts

from na_convert import model_io, pipeline
from na_convert.data import InputSpec, random_data
from na_convert.forms import INT8_FORMS, int8_step
from na_convert.runtime import session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="resnet18,resnet50")
    parser.add_argument("-T", type=int, default=4)
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    print(f"{'network':10} {'B':>3} {'ANN ms':>8}  ratio to {options.T} x ANN")
    for name in options.networks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            runners = sessions(export(name, Path(folder)), options.T)
        for batch in (int(b) for b in options.batches.split(",")):
            images = np.random.default_rng(0).standard_normal((batch, 3, 32, 32), np.float32)
            times = interleaved(runners, {"x": images}, options.runs)
            ann = times.pop("ann")
            ratios = {
                form: statistics.median(t / (options.T * a) for t, a in zip(each, ann, strict=True))
                for form, each in times.items()
            }
            shown = "  ".join(f"{form} {ratio:.3f}" for form, ratio in ratios.items())
            print(f"{name:10} {batch:3} {1e3 * statistics.median(ann):8.1f}  {shown}", flush=True)


def export(name: str, folder: Path) -> Path:
    """A network of `na_convert.models`: random weights, settled BatchNorm, 2-bit activations."""
    import torch
    from na_convert.models import export_onnx, initialise_steps, networks, quantize

    torch.manual_seed(0)
    net = networks.build(name, 10, shape=(3, 32, 32))
    with torch.no_grad():
        for _ in range(3):
            net.train()(torch.randn(16, 3, 32, 32))
    net = quantize(net, bits=2)
    initialise_steps(net, torch.randn(2, 3, 32, 32))
    export_onnx(net, (3, 32, 32), folder / f"{name}.onnx")
    return folder / f"{name}.onnx"


def sessions(path: Path, timesteps: int) -> dict[str, Callable[..., object]]:
    """The ANN as exported, and each int8 form, thresholds as they are and tied."""
    ann = onnx.load(path)
    feeds = random_data([InputSpec("x", (None, 3, 32, 32), np.dtype(np.float32))], 0, 4).feeds
    options = pipeline.Options(timesteps=timesteps)
    snn = pipeline.convert(model_io.load(path), feeds, options, check=False).snn
    assert snn is not None
    made = {"ann": session(ann, threads=1).run}
    networks = {"": snn, ", tied": tie_shortcuts.tie_shortcuts(snn).network}
    for suffix, network in networks.items():
        integer = quantise_weights.run(network, timesteps).network
        for form in INT8_FORMS.values():
            runner = session(form.parts(integer).whole(), threads=1)
            stepped = form.name == int8_step.FORM
            made[form.name + suffix] = in_steps(runner, timesteps) if stepped else runner.run
    return made


def in_steps(
    runner: onnxruntime.InferenceSession, timesteps: int
) -> Callable[[object, dict[str, np.ndarray]], None]:
    """A step file for all its steps, its state handed on as a user would."""
    names = [o.name for o in runner.get_outputs()]

    def run(_: object, feeds: dict[str, np.ndarray]) -> None:
        state: dict[str, np.ndarray] = {}
        for _step in range(timesteps):
            found = dict(zip(names, runner.run(names, {**feeds, **state}), strict=True))
            state = {n.removesuffix("_next"): found[n] for n in names if n.endswith("_next")}

    return run


def interleaved(
    runners: dict[str, Callable[..., object]], feeds: dict[str, np.ndarray], rounds: int
) -> dict[str, list[float]]:
    for run in runners.values():
        run(None, feeds)
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, run in runners.items():
            start = time.perf_counter()
            run(None, feeds)
            times[name].append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
