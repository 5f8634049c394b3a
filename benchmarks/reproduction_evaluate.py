"""Measure the networks of docs/reproduction.md: one small JSON file for each network and arm.

    python benchmarks/reproduction_evaluate.py RUNS TUNED RESULTS --data PATH

RUNS holds folders of na-train (``s0-b2-n0.5``), TUNED those of benchmarks/reproduction_runs.py
(``s0-b2-n0.5-loop``, ``-control``). Each gives RESULTS/NAME.json; the runs themselves are the arm
"plain", and give the arm "bias" besides: their biases calibrated anew for each T, on training
images without labels. What is there already is left alone; what is not trained yet is left out.

Up to T = 8 the SNN runs on the first ``--images`` test images, beyond that on the first
``--long-images`` of them. Everything runs in onnxruntime, from the converted file.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from na_convert.models import checkpoint
from na_convert.models.data import Dataset, load, normalise
from na_convert.models.recipe import Recipe
from numpy.typing import NDArray

from na_convert import api
from na_convert.arguments import several_timesteps
from na_convert.whole_files import write_atomically

STEPS = (1, 2, 3, 4, 6, 8, 16, 32)
LAYER_STEPS = (3, 4)
LONG = 8  # beyond this T fewer images
CALIBRATION_IMAGES = 512
LAYER_IMAGES = 256
_CHUNK = 250
_NAME = re.compile(r"s(\d+)-b(\d+)-n([\d.]+)")

Array = NDArray[Any]


def main(arguments: Sequence[str] | None = None) -> None:
    given = _arguments(arguments)
    given.results.mkdir(parents=True, exist_ok=True)
    bases = sorted(p.parent for p in given.runs.glob("s*/model.onnx"))
    jobs = [(base, arm) for base in bases for arm in ("plain", *_tuned(base, given.tuned), "bias")]
    bias_steps = several_timesteps(given.bias_steps or None) or STEPS
    data: Dataset | None = None
    for base, arm in sorted(jobs, key=_urgency):
        recipe = checkpoint.recipe_of(base / "checkpoint.pt")
        name = base.name if arm == "plain" else f"{base.name}-{arm}"
        target = given.results / f"{name}.json"
        own = base if arm in ("plain", "bias") else given.tuned / name
        if given.only not in name or target.exists() or not (own / "model.onnx").exists():
            continue
        data = data or load(recipe.data, given.data)
        limits = (given.images, given.long_images)
        found = evaluate(base, own, arm, recipe, data, limits, bias_steps)
        write_atomically(target, (json.dumps(found, indent=1) + "\n").encode())
        print(f"{time.process_time():.0f} s", name, found["by_timestep"][-1], flush=True)


def _tuned(base: Path, tuned: Path) -> list[str]:
    return [p.parent.name[len(base.name) + 1 :] for p in tuned.glob(f"{base.name}-*/model.onnx")]


def _urgency(job: tuple[Path, str]) -> tuple[bool, bool, bool]:
    """Two bits and noise 0.5 first; of the others the costly arm last."""
    base, arm = job
    other = "n0.5" not in base.name
    return "b2" not in base.name, other and arm == "bias", other


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("tuned", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--bias-steps", default="", help="fewer T for the arm bias")
    parser.add_argument("--only", default="", help="part of the names that are measured")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--long-images", type=int, default=1_000)
    return parser.parse_args(arguments)


def evaluate(
    base: Path,
    own: Path,
    arm: str,
    recipe: Recipe,
    data: Dataset,
    images: tuple[int, int],
    bias_steps: tuple[int, ...] = STEPS,
) -> dict[str, Any]:
    """Everything that the report says about one network and arm."""
    seed, bits, noise = _NAME.fullmatch(base.name).groups()  # type: ignore[union-attr]
    test, labels = (
        t.numpy() for t in data.test.batch(torch.arange(min(len(data.test), images[0])))
    )
    before, after = (logits(p / "model.onnx", test, data).argmax(1) for p in (base, own))
    network = recipe.network
    calibration = {"x": _calibration_images(data)}
    return {
        "arm": arm,
        "seed": int(seed),
        "bits": int(bits),
        "noise": float(noise),
        "data": recipe.data,
        "network": " ".join([network.name, network.stem, "-".join(map(str, network.widths))]),
        "neuron": "IF, soft reset, u(0) = threshold / 2",
        "calibration": f"{CALIBRATION_IMAGES} training images" if arm == "bias" else "none",
        "epochs": [recipe.float.epochs, recipe.quantised.epochs, _extra_epochs(own)],
        "ann_accuracy": float(np.mean(after == labels)),
        "original_ann_accuracy": float(np.mean(before == labels)),
        "images": len(labels),
        "long_images": min(len(labels), images[1]),
        **_spiking(
            own / "model.onnx",
            [(T,) for T in bias_steps] if arm == "bias" else _groups(),
            calibration if arm == "bias" else None,
            (test, labels),
            (before, after),
            images[1],
        ),
    }


def _spiking(
    model: Path,
    groups: list[tuple[int, ...]],
    calibration: dict[str, Array] | None,
    test: tuple[Array, Array],
    classes: tuple[Array, Array],
    long_images: int,
) -> dict[str, Any]:
    """``by_timestep`` and ``layers`` of the converted network, for each group converted anew."""
    x, labels = test
    rows, layers = [], {}
    with tempfile.TemporaryDirectory() as folder:
        snn = Path(folder) / "snn.onnx"
        for steps in groups:
            api.convert(
                model, output=snn, timesteps=steps[0], calibrate_bias=calibration, check=False
            )
            count = len(labels) if max(steps) <= LONG else min(long_images, len(labels))
            found = spiking_classes(snn, x[:count], steps)
            for T in steps:
                row = {"T": T, "images": count, "snn_accuracy": _share(found[T], labels)}
                row["agreement"] = _share(found[T], classes[1])
                row["agreement_original"] = _share(found[T], classes[0])
                rows.append(row)
            if steps[0] in LAYER_STEPS:
                layers[str(steps[0])] = layer_figures(model, snn, x[:LAYER_IMAGES])
    return {"by_timestep": sorted(rows, key=lambda row: row["T"]), "layers": layers}


def _groups() -> list[tuple[int, ...]]:
    """The T that are measured in one run, the file's default first."""
    return [(3, 1, 2), (4, 6, 8), (16, 32)]


def _calibration_images(data: Dataset) -> Array:
    """Training images; their order does not go by class."""
    order = torch.randperm(len(data.training), generator=torch.Generator().manual_seed(1))
    return data.training.batch(order[:CALIBRATION_IMAGES])[0].numpy()


def _share(a: Array, b: Array) -> float:
    return float(np.mean(a == b[: len(a)]))


def spiking_classes(snn: Path, x: Array, steps: tuple[int, ...]) -> dict[int, Array]:
    """The SNN's class of each uint8 image of ``x`` after each of ``steps``."""
    found: dict[int, list[Array]] = {T: [] for T in steps}
    for start in range(0, len(x), _CHUNK):
        outputs = api.simulate(snn, data={"x": x[start : start + _CHUNK]}, timesteps=max(steps))
        for T in steps:
            (scores,) = outputs.outputs[T].values()
            found[T].append(scores.argmax(1))
    return {T: np.concatenate(parts) for T, parts in found.items()}


def logits(model: Path, x: Array, data: Dataset) -> Array:
    """Of the ANN in ``model`` for uint8 images."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    parts = [
        session.run(
            None,
            {"x": normalise(torch.from_numpy(x[i : i + _CHUNK]), data.mean, data.std).numpy()},
        )[0]
        for i in range(0, len(x), _CHUNK)
    ]
    return np.concatenate(parts)


def layer_figures(model: Path, snn: Path, x: Array) -> list[dict[str, float | str]]:
    """Rate, unevenness and occasional spikes of each layer at the file's T."""
    result = api.check(model, snn, data={"x": x}, checks=["end-to-end"])
    assert result.equivalence is not None
    return [
        {
            "name": layer.name,
            "spike_rate": round(layer.spike_rate, 4),
            "unevenness": round(layer.unevenness, 4),
            "occasional": round(layer.occasional, 4),
        }
        for layer in result.equivalence.layers
    ]


def _extra_epochs(own: Path) -> int:
    tuning = checkpoint.read(own / "checkpoint.pt").get("tuning")
    return tuning["epochs"] if tuning else 0


if __name__ == "__main__":
    main()
