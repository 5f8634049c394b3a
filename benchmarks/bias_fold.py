"""Calibrated biases beside plain conversion: accuracy and agreement on other images, for each T.

    python benchmarks/bias_fold.py MODEL [--cifar10 PATH] [--count 512] [--test 2000] [-T 1,2,3,4,8]

Without PATH the 600 images of the example are halved: calibrated on 300, measured on the others.
With PATH, CIFAR-10 in one of the layouts that `na_convert.models.data` reads (extra `train`),
biases are calibrated on COUNT training images and measured on TEST test images. A quarter of the
former is held out by the calibration itself. Prints a row for each T and way: none, the mean
current, the mean output; * marks the one that `--calibrate-bias` keeps.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from na_convert.passes import bias_shifts, calibrate_bias

from na_convert import model_io, pipeline
from na_convert.layers import match_layers
from na_convert.outputs import ann_output, snn_output
from na_convert.reading import samples_for
from na_convert.results import TimestepResult
from na_convert.snn import Snn
from na_convert.statistics import count_outputs

EXAMPLE = Path(__file__).parent.parent / "examples/resnet8-cifar10"


@dataclass(frozen=True)
class Images:
    """uint8 [N, C, H, W] and labels [N]: to calibrate on, and to measure on."""

    calibration: np.ndarray[Any, Any]
    test: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=EXAMPLE.with_suffix(".onnx"))
    parser.add_argument("--cifar10", type=Path)
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("-T", "--timesteps", default="1,2,3,4,8")
    options = parser.parse_args()
    images = example_images() if options.cifar10 is None else cifar_images(options)
    loaded = model_io.load(options.model)
    calibration = samples_for(loaded, {"x": images.calibration}, None).feeds
    test = samples_for(loaded, {"x": images.test}, None).feeds
    converted = pipeline.convert(loaded, calibration, pipeline.Options(), check=False)
    if converted.snn is None:
        print(f"{options.model}: not convertible", file=sys.stderr)
        return 1
    network, ann = converted.snn, converted.staircase_ann
    layers = match_layers(network, ann)
    expected = ann_output(ann, network, layers, test)

    def measured(candidate: Snn) -> TimestepResult:
        found = snn_output(candidate, layers, test)[candidate.timesteps]
        return count_outputs(candidate.timesteps, expected, found, images.labels).result()

    print(f"{len(images.calibration)} images to calibrate on, {len(images.test)} to measure on")
    print("| T | biases matched by | SNN accuracy % | ANN accuracy % | agreement % | logit RMSE |")
    print("| --- | --- | --- | --- | --- | --- |")
    fit, _ = calibrate_bias.split(calibration)
    for steps in (int(text) for text in options.timesteps.split(",")):
        plain = replace(network, timesteps=steps)
        kept = calibrate_bias.run(plain, ann, calibration).found.kept
        row(steps, "none", measured(plain), kept is None)
        for match in calibrate_bias.MATCHES:
            shifts = bias_shifts.measure(plain, ann, fit, match)
            shifted = calibrate_bias.apply(plain, layers, shifts)
            row(steps, f"mean {match}", measured(shifted), kept == match)
    return 0


def row(steps: int, way: str, found: TimestepResult, kept: bool) -> None:
    assert found.snn_accuracy is not None
    assert found.ann_accuracy is not None
    cells = [100 * share for share in (found.snn_accuracy, found.ann_accuracy, found.agreement)]
    figures = " | ".join(f"{cell:.1f}" for cell in cells)
    mark = " *" if kept else ""
    print(f"| {steps} | {way}{mark} | {figures} | {found.logit_rmse:.3f} |", flush=True)


def example_images() -> Images:
    with np.load(EXAMPLE.with_suffix(".npz")) as stored:
        x, labels = stored["x"], stored["labels"].astype(np.int64)
    return Images(x[:300], x[300:], labels[300:])


def cifar_images(options: argparse.Namespace) -> Images:
    from na_convert.models.data import load

    data = load("cifar10", options.cifar10)
    chosen = np.random.default_rng(0).permutation(len(data.training))[: options.count]
    training, test = data.training, data.test
    return Images(
        training.images.numpy()[chosen],  # type: ignore[attr-defined]
        test.images.numpy()[: options.test],  # type: ignore[attr-defined]
        test.labels.numpy()[: options.test],  # type: ignore[attr-defined]
    )


if __name__ == "__main__":
    sys.exit(main())
