"""A recipe over several seeds, with and without noise: mean and standard deviation.

    python benchmarks/seeds.py docs/results/cifar10-resnet8-wide-short-2bit [--from RUNS]

The folder holds ``s<seed>-n<noise>.json``, each the report of a run of na-train and its curve; with
``--from`` they are taken from the finished runs ``RUNS/s<seed>-n<noise>`` first. Runs of the same
seed share their float stage (``--float-from``), so that differences between noises are also given
seed by seed. Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

Report = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--from", dest="runs", type=Path)
    options = parser.parse_args()
    if options.runs:
        options.results.mkdir(parents=True, exist_ok=True)
        for report in sorted(options.runs.glob("s*-n*/report.json")):
            store(report, options.results / f"{report.parent.name}.json")
    reports = [json.loads(path.read_text()) for path in sorted(options.results.glob("*.json"))]
    by_noise: dict[float, dict[int, Report]] = defaultdict(dict)
    for report in reports:
        by_noise[report["recipe"]["quantiser"]["noise"]][report["seed"]] = report
    steps = [row["T"] for row in reports[0]["by_timestep"]]
    print(f"{'/'.join(str(len(seeds)) for seeds in by_noise.values())} seeds\n")
    for what in ("snn_accuracy", "agreement"):
        show(what, by_noise, steps)
    show_differences(by_noise, steps)


def store(report: Path, target: Path) -> None:
    """The report with the run's curve: accuracy against seconds."""
    with (report.parent / "metrics.csv").open() as file:
        curve = [
            {name: row[name] if name == "stage" else float(row[name]) for name in row}
            for row in csv.DictReader(file)
        ]
    stored = {**json.loads(report.read_text()), "curve": curve}
    target.write_text(json.dumps(stored, indent=1) + "\n")


def show(what: str, by_noise: dict[float, dict[int, Report]], steps: list[int]) -> None:
    print(f"| {what.replace('_', ' ').replace('snn', 'SNN')} % | ANN | ", end="")
    print(" | ".join(f"T={t}" for t in steps), "|")
    print("| --- " * (len(steps) + 2) + "|")
    for noise, seeds in sorted(by_noise.items()):
        cells = [spread(seeds, lambda r: r["ann_accuracy"])]
        cells += [spread(seeds, lambda r, t=t: at(r, t)[what]) for t in steps]
        print(f"| noise {noise:g} | {' | '.join(cells)} |")
    print()


def show_differences(by_noise: dict[float, dict[int, Report]], steps: list[int]) -> None:
    """Accuracy with noise minus accuracy without, of the same seed."""
    if len(by_noise) != 2:
        return
    (_, without), (noise, with_noise) = sorted(by_noise.items())
    print(f"noise {noise:g} minus none, points of SNN accuracy, seed by seed:\n")
    for t in steps:
        found = [
            100 * (at(with_noise[s], t)["snn_accuracy"] - at(without[s], t)["snn_accuracy"])
            for s in sorted(with_noise.keys() & without.keys())
        ]
        print(f"T={t}: {', '.join(f'{points:+.1f}' for points in found)}")


def at(report: Report, steps: int) -> dict[str, float]:
    return next(row for row in report["by_timestep"] if row["T"] == steps)


def spread(seeds: dict[int, Report], value: Callable[[Report], float]) -> str:
    values = [100 * value(report) for report in seeds.values()]
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


if __name__ == "__main__":
    main()
