"""What a finished run leaves behind: the network, its SNN, and how good both are."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from na_convert import api
from na_convert.whole_files import write_atomically

from .data import Dataset
from .export import export_onnx
from .recipe import Recipe, as_table
from .train import Metrics, Run

_CHECKED_IMAGES = 256
_CHUNK = 250


def write_metrics(metrics: list[Metrics], path: Path) -> None:
    """One line for each epoch: stage, epoch, loss, test_accuracy, seconds of training so far."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["stage", "epoch", "loss", "test_accuracy", "seconds"])
    writer.writeheader()
    writer.writerows(metrics)
    write_atomically(path, text.getvalue().encode())


def finetuned_from(checkpoint: Path, ann_accuracy: float) -> dict[str, Any]:
    """For the report: the run that was fine-tuned, and its quantised network's accuracy."""
    return {
        "run": checkpoint.resolve().parent.name,
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "ann_accuracy": ann_accuracy,
    }


def write_results(
    run: Run, ann_accuracy: float, data: Dataset, out: Path, source: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write ``model.onnx``, ``model.snn.onnx`` and ``report.json`` into ``out``; print the table.

    ``source``: what `finetuned_from` gives, of a run that was fine-tuned.

    The conversion is verified on test images. Raises what `na_convert.convert` raises.
    """
    model, snn = out / "model.onnx", out / "model.snn.onnx"
    export_onnx(run.best, data.shape, model, mean=data.mean, std=data.std)
    images, labels = data.test.batch(torch.arange(min(run.recipe.report.images, len(data.test))))
    x, y = images.numpy(), labels.numpy()
    head = {"x": x[:_CHECKED_IMAGES], "labels": y[:_CHECKED_IMAGES]}
    converted = api.convert(model, output=snn, data=head)
    report = {
        "recipe": as_table(run.recipe),
        "seed": run.recipe.seed,
        "ann_accuracy": ann_accuracy,
        "test_images": len(data.test),
        "snn_images": len(y),
        "by_timestep": by_timestep(model, snn, x, y, run.recipe),
        "layers": [asdict(layer) for layer in converted.equivalence.layers],  # type: ignore[union-attr]
        "training_seconds": round(run.seconds, 1),
    }
    if run.tuning is not None:
        report["finetuning"] = {"from": source, **asdict(run.tuning)}
    write_atomically(out / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    Console().print(_table(report))
    return report


def by_timestep(
    model: Path, snn: Path, images: NDArray[Any], labels: NDArray[Any], recipe: Recipe
) -> list[dict[str, float | int]]:
    """Accuracy of the SNN, and agreement with the ANN's class, on uint8 ``images`` at each T."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    steps = recipe.report.timesteps
    right, same = dict.fromkeys(steps, 0), dict.fromkeys(steps, 0)
    metadata = session.get_modelmeta().custom_metadata_map
    mean, std = (
        np.array(json.loads(metadata[f"na_convert.{name}"]), np.float32).reshape(-1, 1, 1)
        for name in ("mean", "std")
    )
    for start in range(0, len(labels), _CHUNK):
        chunk, truth = images[start : start + _CHUNK], labels[start : start + _CHUNK]
        (ann,) = session.run(None, {"x": ((chunk / np.float32(255)) - mean) / std})
        outputs = api.simulate(snn, data={"x": chunk}, timesteps=max(steps)).outputs
        for T in steps:
            (scores,) = outputs[T].values()
            right[T] += int((scores.argmax(1) == truth).sum())
            same[T] += int((scores.argmax(1) == ann.argmax(1)).sum())
    count = len(labels)
    return [{"T": T, "snn_accuracy": right[T] / count, "agreement": same[T] / count} for T in steps]


def _table(report: dict[str, Any]) -> Table:
    table = Table(title=f"{report['recipe']['name']}: ANN accuracy {report['ann_accuracy']:.4f}")
    for heading in ("T", "SNN accuracy", "agreement"):
        table.add_column(heading, justify="right")
    for row in report["by_timestep"]:
        table.add_row(str(row["T"]), f"{row['snn_accuracy']:.4f}", f"{row['agreement']:.4f}")
    return table
