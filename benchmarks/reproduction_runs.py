"""Fine-tune finished runs of na-train for docs/reproduction.md: the loop, and its control.

    python benchmarks/reproduction_runs.py RUNS OUT --data PATH [--epochs 1]

RUNS holds folders of na-train named ``s<seed>-b<bits>-n<noise>``. OUT gets ``NAME-loop`` and
``NAME-control`` (with ``--suffix`` behind) with checkpoint.pt, metrics.csv and model.onnx, as
`na-train finetune` would write them; benchmarks/reproduction_evaluate.py measures them afterwards.
What is there already is left alone, and a run that was cut off goes on from its checkpoint. Runs
that are not finished yet are waited for until ``--until`` (HH:MM).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch
from na_convert.models import checkpoint
from na_convert.models.data import Dataset, load
from na_convert.models.export import export_onnx
from na_convert.models.recipe import FineTuning
from na_convert.models.report import write_metrics
from na_convert.models.train import Hooks, Run, train

_CPU = torch.device("cpu")


def main(arguments: Sequence[str] | None = None) -> None:
    given = _arguments(arguments)
    torch.set_num_threads(1)
    data: Dataset | None = None
    while True:
        arms = [f"{arm}{given.suffix}" for arm in given.arms.split(",")]
        waiting = _next(given.runs, given.out, given.order.split(","), arms, given.only)
        if waiting is not None:
            base, arm = waiting
            print(f"{datetime.now():%H:%M:%S} {base.name} {arm}", flush=True)
            data = data or load(checkpoint.recipe_of(base / "checkpoint.pt").data, given.data)
            _fine_tune(
                base, given.out / f"{base.name}-{arm}", arm.startswith("loop"), given.epochs, data
            )
        elif f"{datetime.now():%H:%M}" >= given.until:
            return
        else:
            time.sleep(10)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--arms", default="loop,control")
    parser.add_argument("--suffix", default="", help="of the arms' names, such as 2 for 2 epochs")
    parser.add_argument("--only", default="", help="part of the names of the runs to do")
    parser.add_argument("--order", default="", help="parts of names, the first to be done first")
    parser.add_argument("--until", default="00:00")
    return parser.parse_args(arguments)


def _next(
    runs: Path, out: Path, order: list[str], arms: list[str], only: str
) -> tuple[Path, str] | None:
    """The next base run that is finished, and the arm that it lacks."""
    bases = sorted(p.parent for p in runs.glob("s*/report.json") if only in p.parent.name)
    ranked = sorted(bases, key=lambda p: next((i for i, o in enumerate(order) if o in p.name), 99))
    for base in ranked:
        for arm in arms:
            if not (out / f"{base.name}-{arm}" / "model.onnx").exists():
                return base, arm
    return None


def _fine_tune(base: Path, out: Path, loop: bool, epochs: int, data: Dataset) -> None:
    source, saved = base / "checkpoint.pt", out / "checkpoint.pt"
    recipe = checkpoint.recipe_of(source)
    tuning = FineTuning(epochs=epochs, noise=0.0 if loop else recipe.quantiser.noise, loop=loop)
    if saved.exists():
        run = checkpoint.resume_finetuning(source, tuning, data, _CPU, saved)
    else:
        run = checkpoint.start_finetuning(source, tuning, data, _CPU)
    out.mkdir(parents=True, exist_ok=True)

    def save(state: Run) -> None:
        checkpoint.save(state, saved)
        write_metrics(state.metrics, out / "metrics.csv")

    run = train(run, data, Hooks(save=save))
    export_onnx(run.best, data.shape, out / "model.onnx", mean=data.mean, std=data.std)


if __name__ == "__main__":
    main()
