"""Accuracy of a network in float, on grids and in int8 at each T, on the same images.

    python benchmarks/accuracy.py [MODEL] [DATA] [-T 1,2,3,4,5,6,7,8] [--cifar10 PATH] [--count N]
                                  [--proven 32]

By default the example. Grids are those for up to ``--proven`` time steps; how many images the ANN
with the weights on them puts into the same class is printed first. With PATH, CIFAR-10 in one of
the layouts that `na_convert.models.data` reads (extra ``train``): biases are corrected on 512
training images, and N test images are measured; otherwise both are DATA. Each T has an integer
network of its own, made for that T: thresholds as they are, the same with biases corrected for
rounding (what ``--data`` gives), and thresholds tied along shortcuts (corrected too).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from na_convert.passes import snap

from na_convert import integer_conversion, model_io, pipeline
from na_convert.conversion import EXACT_TIMESTEPS
from na_convert.data import Samples
from na_convert.exactness import as_ann
from na_convert.forms import FORMS, INT8_FORMS
from na_convert.input_range import largest_inputs
from na_convert.reading import samples_for
from na_convert.running import file_runner
from na_convert.snn import Snn
from na_convert.teacher_forcing import runner

EXAMPLE = Path(__file__).parent.parent / "examples" / "resnet8-cifar10.onnx"
COLUMNS = ("float", "exact", "int8", "int8, corrected", "int8, tied")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=EXAMPLE)
    parser.add_argument("data", type=Path, nargs="?", default=EXAMPLE.with_suffix(".npz"))
    parser.add_argument("-T", default="1,2,3,4,5,6,7,8")
    parser.add_argument("--cifar10", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--proven", type=int, default=EXACT_TIMESTEPS)
    options = parser.parse_args()
    loaded = model_io.load(options.model)
    fit = test = samples_for(loaded, options.data, None)
    if options.cifar10 is not None:
        fit, test = cifar_samples(loaded, options.cifar10, options.count)
    converted = pipeline.convert(loaded, fit.feeds, pipeline.Options(), check=False)
    assert converted.snn is not None
    exact = on_grids(converted.snn, test, options.proven)
    same = kept(converted, exact, test)
    print(f"ANN on grids up to T = {options.proven}: {same:.1%} keep the class")
    print(f"{len(test)} images, accuracy in %\n\n| T | {' | '.join(COLUMNS)} |")
    print("| --- " * (len(COLUMNS) + 1) + "|")
    for steps in (int(t) for t in options.T.split(",")):
        models = files(converted, replace(exact, timesteps=steps), fit, steps)
        row = [accuracy(model, test, steps) for model in models]
        print(f"| {steps} | {' | '.join(f'{share:.1f}' for share in row)} |", flush=True)


def files(
    converted: pipeline.Converted, exact: Snn, fit: Samples, steps: int
) -> list[onnx.ModelProto]:
    """In the order of `COLUMNS`."""
    assert converted.snn is not None
    network = replace(converted.snn, timesteps=steps)
    made = [FORMS["folded"].parts(each).whole() for each in (network, exact)]
    for tie, given in (("never", False), ("never", True), ("always", True)):
        int8 = integer_conversion.convert(
            network, converted.staircase_ann, fit, INT8_FORMS["unrolled"], tie=tie, given=given
        )
        made.append(int8.parts.whole())
    return made


def on_grids(snn: Snn, test: Samples, proven: int) -> Snn:
    exact, found = snap.run(snn, largest_inputs(snn, test), proven)
    if not found.exact:
        raise SystemExit(f"not on grids: {found.reason}")
    return exact


def kept(converted: pipeline.Converted, exact: Snn, test: Samples) -> float:
    """Share of the images that the ANN with the rounded weights puts into the same class."""
    name, carried = exact.graph.outputs[0].name, exact.carried
    feeds = {key: np.asarray(values[:]) for key, values in test.feeds.items()}
    before, after = (
        runner(graph, carried, (), [name])(feeds)[name].argmax(axis=1)
        for graph in (converted.staircase_ann, as_ann(exact))
    )
    return float(np.mean(before == after))


def accuracy(model: onnx.ModelProto, samples: Samples, steps: int, batch: int = 64) -> float:
    run, hits = file_runner(model), 0
    output = model.graph.output[0].name
    assert samples.labels is not None
    for start in range(0, len(samples), batch):
        feeds = {name: values[start : start + batch] for name, values in samples.feeds.items()}
        found = run(feeds, steps).outputs[steps][output].argmax(axis=1)
        hits += int(np.count_nonzero(found == samples.labels[start : start + batch]))
    return 100 * hits / len(samples)


def cifar_samples(loaded: model_io.Loaded, path: Path, count: int) -> tuple[Samples, Samples]:
    """512 training images to correct biases on, and the first ``count`` test images."""
    from na_convert.models.data import load

    data: Any = load("cifar10", path)
    chosen = np.random.default_rng(0).permutation(len(data.training))[:512]
    training, test = data.training, data.test
    return (
        samples_for(loaded, {"x": training.images.numpy()[chosen]}, None),
        samples_for(
            loaded,
            {"x": test.images.numpy()[:count], "labels": test.labels.numpy()[:count]},
            None,
        ),
    )


if __name__ == "__main__":
    main()
