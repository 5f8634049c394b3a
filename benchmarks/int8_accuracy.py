"""Accuracy of a network in float and in int8 at each T, on the same images.

    python benchmarks/int8_accuracy.py [MODEL] [DATA] [-T 1,2,3,4,8]

By default the example. Each T has an integer network of its own, made for that T: thresholds as
they are, the same with biases corrected for rounding, and thresholds tied along shortcuts
(corrected too).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from na_convert import integer_conversion, model_io, pipeline
from na_convert.forms import FORMS, INT8_FORMS
from na_convert.reading import samples_for
from na_convert.running import file_runner
from na_convert.snn import Snn

EXAMPLE = Path(__file__).parent.parent / "examples" / "resnet8-cifar10.onnx"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=EXAMPLE)
    parser.add_argument("data", type=Path, nargs="?", default=EXAMPLE.with_suffix(".npz"))
    parser.add_argument("-T", default="1,2,3,4,8")
    options = parser.parse_args()
    loaded = model_io.load(options.model)
    samples = samples_for(loaded, options.data, None)
    converted = pipeline.convert(loaded, samples.feeds, pipeline.Options(), check=False)
    snn, ann = converted.snn, converted.staircase_ann
    assert snn is not None
    print(f"{len(samples)} samples of {options.data.name}, accuracy in %")
    print(f"{'T':>3} {'float':>7} {'int8':>7} {'corrected':>10} {'tied':>7}")
    for steps in (int(t) for t in options.T.split(",")):
        network = Snn(snn.graph, snn.neurons, steps, snn.carried)
        row = [accuracy(FORMS["folded"].parts(network).whole(), samples, steps)]
        for tie, given in (("never", False), ("never", True), ("always", True)):
            made = integer_conversion.convert(
                network, ann, samples, INT8_FORMS["unrolled"], tie=tie, given=given
            )
            row.append(accuracy(made.parts.whole(), samples, steps))
        print(f"{steps:3} {row[0]:7.1f} {row[1]:7.1f} {row[2]:10.1f} {row[3]:7.1f}", flush=True)


def accuracy(model, samples, steps: int, batch: int = 64) -> float:  # type: ignore[no-untyped-def]
    run, hits = file_runner(model), 0
    output = model.graph.output[0].name
    for start in range(0, len(samples), batch):
        feeds = {name: values[start : start + batch] for name, values in samples.feeds.items()}
        found = run(feeds, steps).outputs[steps][output].argmax(axis=1)
        hits += int(np.count_nonzero(found == samples.labels[start : start + batch]))
    return 100 * hits / len(samples)


if __name__ == "__main__":
    main()
