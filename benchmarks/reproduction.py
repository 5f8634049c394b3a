"""Write docs/reproduction.md and its plots from the files under docs/results/.

    python benchmarks/reproduction.py [RESULTS] [REPORT]

Every number of the page comes from RESULTS/reproduction/*.json (reproduction_evaluate.py writes
them), RESULTS/static_means.json (static_means.py) and RESULTS/literature.json. Plots need the extra
`plot`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from na_convert.errors import UsageError
from na_convert.whole_files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
ARMS = {
    "plain": "plain",
    "bias": "+ bias fold",
    "loop": "+ SNN in loop",
    "control": "+ control",
    "loop2": "+ SNN in loop, 2 epochs",
    "control2": "+ control, 2 epochs",
}
NEURON_SHORT = "IF"
Entry = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else list(arguments)
    results = Path(given[0]) if given else ROOT / "docs" / "results"
    report = Path(given[1]) if len(given) > 1 else ROOT / "docs" / "reproduction.md"
    entries = [json.loads(p.read_text()) for p in sorted((results / "reproduction").glob("*.json"))]
    if not entries:
        raise UsageError(f"{results}/reproduction: holds no results")
    plots = draw(entries, report.with_suffix(""))
    page = "\n".join(_page(entries, results, plots, report.parent)) + "\n"
    write_atomically(report, page.encode())


def _page(entries: list[Entry], results: Path, plots: list[Path], folder: Path) -> Iterable[str]:
    yield from _introduction(entries)
    yield from _target(entries)
    bits = sorted({e["bits"] for e in entries})
    for b in bits:
        chosen = [e for e in entries if e["bits"] == b]
        images, long_images = (sorted({e[k] for e in chosen}) for k in ("images", "long_images"))
        yield f"\n## Accuracy, {b} bits (p = {2**b - 1})\n"
        yield f"On {_listed(images)} test images, for T above 8 on {_listed(long_images)}.\n"
        yield from _by_timestep(chosen, "snn_accuracy")
        yield f"\n## Agreement with its own quantised network, {b} bits\n"
        yield from _by_timestep(chosen, "agreement")
    yield "\n## Layers\n"
    yield (
        "Share of neurons, in %, mean over seeds: *uneven* / *occasional* (spikes although the "
        "ANN's level is the\nlowest). The first layer's current is constant: it is never uneven.\n"
    )
    for b in bits:
        for T in sorted({T for e in entries for T in e["layers"]}):
            yield from _layers([e for e in entries if e["bits"] == b and T in e["layers"]], T)
    for plot in plots:
        yield f"\n![{plot.stem}]({plot.relative_to(folder).as_posix()})"
    yield from _static_means(results / "static_means.json")
    yield from _literature(results / "literature.json")


# --- the parts ------------------------------------------------------------------------------------


def _introduction(entries: list[Entry]) -> Iterable[str]:
    first = entries[0]
    seeds = sorted({e["seed"] for e in entries})
    epochs = sorted({tuple(e["epochs"][:2]) for e in entries})
    yield "# Reproduction\n"
    yield (
        "This page is written by `python benchmarks/reproduction.py` from the files under "
        "[results/](results/):\nno number in it is typed. It asks how near a network of plain "
        "integrate-and-fire neurons comes to the\nquantised network that it was made from, after "
        "few time steps, without anything added at run time.\n"
    )
    yield f"- Data: {first['data']}. Network: {first['network'].strip()}."
    yield (
        f"- Training: {_listed(epochs, lambda e: f'{e[0]} float + {e[1]} quantised')} epochs; "
        f"seeds {_listed(seeds)}, each with a float network of its own."
    )
    yield (
        "- Arms: *plain*: as trained. *+ bias fold*: `--calibrate-bias`, anew for each T, on 512 "
        "training images\n  without labels. *+ SNN in loop*: `na-train finetune`, T of 1 to 4 "
        "drawn for each batch; one\n  network serves every T. *+ control*: the same epochs, "
        "images, rate and loss without the loop. *Epochs*:\n  float + quantised + fine-tuning."
    )
    yield (
        "- *Noise*: amplitude in the quantisers while training, in steps. *ANN*: accuracy of the "
        "quantised network of\n  that arm; *as trained*: of the one before any fine-tuning."
    )
    yield (
        "- Measured in onnxruntime, from the converted file, on the first test images. Mean ± "
        "standard deviation over\n  seeds, in %; n is the number of seeds."
    )
    yield (
        "- The networks are small and trained for minutes: it is the differences that carry over, "
        "not the accuracies."
    )


def _target(entries: list[Entry]) -> Iterable[str]:
    """How far the SNN is behind the quantised network as trained, seed by seed."""
    yield "\n## Gap to the quantised network as trained\n"
    yield "ANN as trained minus SNN, in points; negative: the SNN is better.\n"
    steps = (1, 2, 3, 4)
    yield from _table(
        ["bits", "noise", "arm", "n", "ANN as trained", *(f"T = {T}" for T in steps)],
        (
            [
                str(bits),
                _number(noise),
                ARMS[arm],
                str(len(group)),
                _cell([e["original_ann_accuracy"] for e in group]),
                *(
                    _cell(
                        [
                            e["original_ann_accuracy"] - acc
                            for e, acc in _at(group, T, "snn_accuracy")
                        ]
                    )
                    for T in steps
                ),
            ]
            for (bits, noise, arm), group in _groups(entries)
        ),
    )


def _by_timestep(entries: list[Entry], figure: str) -> Iterable[str]:
    steps = sorted({row["T"] for e in entries for row in e["by_timestep"]})
    yield from _table(
        [
            "noise", "arm", "n", "neuron", "calibration", "epochs", "ANN as trained", "ANN",
            *(f"T = {T}" for T in steps),
        ],
        (
            [
                _number(noise),
                ARMS[arm],
                str(len(group)),
                NEURON_SHORT,
                group[0]["calibration"],
                " + ".join(str(n) for n in group[0]["epochs"] if n),
                _cell([e["original_ann_accuracy"] for e in group]),
                _cell([e["ann_accuracy"] for e in group]),
                *(_cell([value for _, value in _at(group, T, figure)]) for T in steps),
            ]
            for (_, noise, arm), group in _groups(entries)
        ),
    )  # fmt: skip


def _layers(entries: list[Entry], T: str) -> Iterable[str]:
    if not entries:
        return
    count = max(len(e["layers"][T]) for e in entries)
    yield f"\n{entries[0]['bits']} bits, T = {T}:\n"

    def shares(group: list[Entry], index: int, figure: str) -> str:
        return f"{100 * mean(e['layers'][T][index][figure] for e in group):.1f}"

    yield from _table(
        ["noise", "arm", *(f"layer {i + 1}" for i in range(count))],
        (
            [
                _number(noise),
                ARMS[arm],
                *(
                    f"{shares(group, i, 'unevenness')} / {shares(group, i, 'occasional')}"
                    for i in range(count)
                ),
            ]
            for (_, noise, arm), group in _groups(entries)
        ),
    )


def _static_means(path: Path) -> Iterable[str]:
    if not path.exists():
        return
    found = json.loads(path.read_text())
    yield "\n## Other static means, beside the bias fold\n"
    yield (
        f"On {found['network']}: each fitted for its T on {found['fit_images']} training images "
        "without labels, measured\non "
        f"{found['images']} test images (`benchmarks/static_means.py`). KL is the divergence of "
        "the SNN's outputs from the\nANN's. The ANN has "
        f"{100 * found['ann_accuracy']:.1f} %. Those by gradient need torch and took "
        f"{found['epochs']} passes.\n"
    )
    yield from _table(
        ["T", "means", "accuracy", "agreement", "KL", "agreement beside the fold's", "seconds"],
        (
            [
                str(row["T"]),
                row["means"],
                f"{100 * row['accuracy']:.1f}",
                f"{100 * row['agreement']:.1f}",
                f"{row['kl']:.3f}",
                "" if row["means"] == "bias fold" else _difference(row),
                f"{row['seconds']:.0f}",
            ]
            for row in found["rows"]
        ),
    )
    tried = sorted({r["means"] for r in found["rows"]} - {"none", "bias fold"})
    paying = [name for name in tried if all(_pays(r) for r in found["rows"] if r["means"] == name)]
    yield (
        "\nBetter than the fold by more than twice the standard error at every T: "
        f"{_listed(paying) or 'none of them'}. Only the\nbias fold is part of na-convert."
    )


def _pays(row: Entry) -> bool:
    return bool(row["difference"] > 2 * row["error"])


def _difference(row: Entry) -> str:
    return f"{100 * row['difference']:+.1f} ± {100 * row['error']:.1f}"


def _literature(path: Path) -> Iterable[str]:
    if not path.exists():
        return
    yield "\n## Beside published figures\n"
    yield (
        "As their abstracts (or repositories) state them; where the ANN's accuracy is not stated "
        "there, the column says so,\nand the figure cannot be read as a gap. None of them is to be "
        "compared with ours by its accuracy: data,\nnetwork and training differ.\n"
    )
    yield from _table(
        ["method", "data", "network", "T", "SNN", "ANN", "neuron", "calibration", "what differs"],
        (
            [
                f"[{e['method']}]({e['source']})",
                e["data"],
                e["network"],
                str(e["T"]),
                f"{e['snn']:g}",
                f"{e['ann']:g}" if e["ann"] is not None else "not stated",
                e["neuron"],
                e["calibration"],
                e["differs"],
            ]
            for e in json.loads(path.read_text())
        ),
    )


# --- plots ----------------------------------------------------------------------------------------


def draw(entries: list[Entry], folder: Path) -> list[Path]:
    """One plot for each number of bits and figure; the files, in ``folder``."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise UsageError("plots need matplotlib", remedy="pip install '.[plot]'") from error
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "na-convert"  # same input, same bytes
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for bits in sorted({e["bits"] for e in entries}):
        for figure, label in (("snn_accuracy", "SNN accuracy"), ("agreement", "agreement")):
            chosen = [e for e in entries if e["bits"] == bits]
            noises = sorted({e["noise"] for e in chosen})
            drawn, axes = plt.subplots(
                1, len(noises), figsize=(3.2 * len(noises), 3.0), sharey=True, squeeze=False
            )
            for ax, noise in zip(axes[0], noises, strict=True):
                _curves(ax, [e for e in chosen if e["noise"] == noise], figure)
                ax.set_title(f"noise {_number(noise)}", fontsize=9)
            axes[0][0].set_ylabel(f"{label}, %")
            axes[0][0].legend(fontsize=7)
            drawn.suptitle(f"{bits} bits", fontsize=10)
            drawn.tight_layout()
            path = folder / f"{figure.removeprefix('snn_')}-{bits}bit.svg"
            drawn.savefig(path, metadata={"Date": None})
            plt.close(drawn)
            written.append(path)
    return written


def _curves(ax: Any, entries: list[Entry], figure: str) -> None:
    for (_, _, arm), group in _groups(entries):
        steps = sorted({row["T"] for e in group for row in e["by_timestep"]})
        values = [[100 * value for _, value in _at(group, T, figure)] for T in steps]
        spread = [stdev(v) if len(v) > 1 else 0.0 for v in values]
        ax.errorbar(steps, [mean(v) for v in values], spread, label=ARMS[arm], lw=1, capsize=2)
    if figure == "snn_accuracy":
        ann = 100 * mean(e["original_ann_accuracy"] for e in entries)
        ax.axhline(ann, color="black", lw=0.8, ls="--", label="ANN as trained")
    ax.set_xscale("log", base=2)
    ax.set_xlabel("T")
    ax.tick_params(labelsize=7)


# --- shared ---------------------------------------------------------------------------------------


def _groups(entries: list[Entry]) -> list[tuple[tuple[int, float, str], list[Entry]]]:
    """Entries of the same bits, noise and arm (seed by seed), in the order of the tables."""
    order = list(ARMS)
    keys = sorted(
        {(e["bits"], e["noise"], e["arm"]) for e in entries},
        key=lambda key: (key[0], key[1], order.index(key[2])),
    )
    return [(key, [e for e in entries if (e["bits"], e["noise"], e["arm"]) == key]) for key in keys]


def _at(group: list[Entry], T: int, figure: str) -> list[tuple[Entry, float]]:
    """The entries that were measured at T, and the figure there."""
    return [(e, row[figure]) for e in group for row in e["by_timestep"] if row["T"] == T]


def _cell(shares: list[float]) -> str:
    """Mean and deviation in %; without a deviation where there is one seed, "-" without any."""
    percent = [100 * s for s in shares]
    if not percent:
        return "-"
    if len(percent) == 1:
        return f"{percent[0]:.1f}"
    return f"{mean(percent):.1f} ± {stdev(percent):.1f}"


def _number(value: float) -> str:
    return f"{value:g}" if value else "none"


def _listed(values: Sequence[Any], text: Callable[[Any], str] = str) -> str:
    return ", ".join(text(v) for v in values)


def _table(head: list[str], rows: Iterable[list[str]]) -> Iterable[str]:
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---" for _ in head) + " |"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


if __name__ == "__main__":
    main()
