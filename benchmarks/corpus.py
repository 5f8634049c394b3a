"""Convert a corpus of real exports and compare what was found with the truth.

    python benchmarks/corpus.py tests/corpus.tar.xz [--only NAME] [--expect FILE] [--table FILE]

The corpus is a folder, or a ``.tar.xz`` of one, of ``NAME.onnx`` with ``NAME.npz`` (`x`, `y`) and
``NAME.json`` (`truth`: one entry per activation: kind, step `s`, levels `p`, lowest level `lo`).
Each file is converted and verified as a user would; a verdict is one of

* converted: every activation of the truth was found, with its step and levels, the ladder passed;
* refused: na-convert says which node and why;
* wrong: converted, but an activation differs from the truth, or something else went wrong.

``--expect`` compares the verdicts with a stored file (written where it is missing) and exits 1 on
any change. ``--table`` writes the table as Markdown.
"""

from __future__ import annotations

import argparse
import json
import tarfile
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from na_convert import convert, model_io, pipeline
from na_convert.activation import read_activation
from na_convert.errors import NaConvertError, NotConvertible
from na_convert.graph import is_ours

RELATIVE = 1e-6  # of steps and thresholds against the truth; the truth is float32
RELATIVE_HALF = 1e-3  # for networks in half precision
CLIP_TIMESTEPS = 16  # for networks without levels


@dataclass(frozen=True)
class Verdict:
    name: str
    verdict: str
    found: str
    detail: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--expect", type=Path)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = unpack(options.corpus, Path(folder))
        files = sorted(p for p in corpus.glob("*.onnx") if options.only in p.name)
        verdicts = []
        for file in files:
            verdicts.append(judge(file, Path(folder)))
            last = verdicts[-1]
            print(f"{last.verdict:10} {last.name:42} {last.found:30} {last.detail}", flush=True)
    counts = Counter(v.verdict for v in verdicts)
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())))
    if options.table:
        options.table.write_text(table(verdicts))
    if options.expect:
        return compare(verdicts, options.expect)
    return 1 if counts["wrong"] else 0


def unpack(corpus: Path, folder: Path) -> Path:
    """The folder of the corpus: itself, or the archive unpacked into ``folder``."""
    if corpus.is_dir():
        return corpus
    with tarfile.open(corpus) as archive:
        archive.extractall(folder / "corpus", filter="data")
    return folder / "corpus"


def judge(file: Path, scratch: Path) -> Verdict:
    """Convert one file and compare it with its truth."""
    truth = json.loads(file.with_suffix(".json").read_text())["truth"]
    with np.load(file.with_suffix(".npz"), allow_pickle=False) as stored:
        data = {"x": stored["x"]}
    try:
        kinds = {"stair"} if isinstance(truth, str) else {t["kind"] for t in truth}
        levels = "stair" in kinds
        result = convert(
            file,
            output=scratch / "snn.onnx",
            data=data,
            timesteps=None if levels else CLIP_TIMESTEPS,
            calibrate=data if "relu" in kinds else None,
        )
        found = activations(file, data["x"])
    except NotConvertible as error:
        reasons = [f"{r.node} ({r.op}): {r.reason}" for r in error.refused] or [error.message]
        return Verdict(file.stem, "refused", "", "; ".join(dict.fromkeys(reasons)))
    except NaConvertError as error:
        return Verdict(file.stem, "wrong", "", f"{type(error).__name__}: {error}")
    except Exception as error:
        return Verdict(file.stem, "wrong", "", f"crash, {type(error).__name__}: {error}")
    missing = compare_truth(truth, found, file)
    text = ", ".join(sorted({describe(f) for f in found}))
    if missing:
        return Verdict(file.stem, "wrong", text, missing)
    equivalence = result.equivalence
    if equivalence is None:
        return Verdict(file.stem, "wrong", text, "not verified")
    detail = f"{len(result.neurons)} layers, agreement {equivalence.by_timestep[-1].agreement:.3f}"
    return Verdict(file.stem, "converted", text, detail)


def activations(file: Path, x: np.ndarray) -> list[dict[str, object]]:
    """Every activation that was recognised, in the order of execution."""
    loaded = model_io.load(file)
    name = loaded.model.graph.input[0].name
    graph = pipeline.reference(loaded, {name: x}, check=False).staircase_ann
    found = []
    for node in graph.nodes:
        if is_ours(node, "Staircase"):
            stair = read_activation(node)
            found.append({
                "kind": "stair", "d": np.ravel(stair.input_step), "s": np.ravel(stair.output_step),
                "p": stair.levels, "lo": np.ravel(stair.lowest_level),
            })  # fmt: skip
        elif is_ours(node, "Ramp"):
            ramp = read_activation(node)
            kind = "clip" if ramp.bounded else "relu"
            found.append({"kind": kind, "theta": np.ravel(ramp.high - ramp.low)})
    return found


def describe(found: dict[str, object]) -> str:
    if found["kind"] != "stair":
        return str(found["kind"])
    signed = "" if np.all(found["lo"] == 0) else " offset"
    return f"p={found['p']}{signed}{' per channel' if np.size(found['d']) > 1 else ''}"


def compare_truth(truth: object, found: list[dict[str, object]], file: Path) -> str:
    """What of the truth was not found; empty if all was."""
    if isinstance(truth, str):
        return compare_scales(found, file)
    relative = RELATIVE_HALF if "half" in file.stem else RELATIVE
    left = list(found)
    for entry in truth:
        match = next((f for f in left if matches(entry, f, relative)), None)
        if match is None:
            return f"{entry['name']}: {entry['kind']} s={entry['s']} p={entry['p']} not found"
        left.remove(match)
    return ""


def matches(entry: dict[str, object], found: dict[str, object], relative: float) -> bool:
    if entry["kind"] != found["kind"]:
        return False
    if entry["kind"] == "clip":
        return close(found["theta"], entry["theta"], relative)
    if entry["kind"] == "relu":
        return True
    step = close(found["d"], entry["s"], relative) or close(found["s"], entry["s"], relative)
    return (
        step
        and found["p"] == entry["p"]
        and bool(np.allclose(found["lo"], entry["lo"], rtol=relative, atol=0))
    )


def close(found: object, truth: object, relative: float) -> bool:
    """Whether two steps (numbers, or one per channel) agree."""
    a, b = np.abs(np.ravel(found)), np.abs(np.ravel(truth))
    return a.size in (1, b.size) and bool(np.allclose(a, b, rtol=relative, atol=0))


def compare_scales(found: list[dict[str, object]], file: Path) -> str:
    """Where the truth is in the file itself: each step must be the scale of one of its nodes."""
    model = onnx.load(file)
    scales = [
        float(v)
        for i in model.graph.initializer
        if i.data_type == onnx.TensorProto.FLOAT
        for v in np.ravel(onnx.numpy_helper.to_array(i))[:1]
    ]
    scales += [
        float(np.ravel(onnx.numpy_helper.to_array(a.t))[0])
        for n in model.graph.node
        if n.op_type == "Constant"
        for a in n.attribute
        if a.name == "value" and a.t.data_type == onnx.TensorProto.FLOAT
    ]
    for entry in found:
        if entry["kind"] != "stair":
            return f"{entry['kind']} where a quantiser was expected"
        if not any(close(entry["s"], scale, RELATIVE) for scale in scales):
            return f"step {np.ravel(entry['s'])[0]:.8g} is no scale of the file"
    return "" if found else "nothing found"


def table(verdicts: list[Verdict]) -> str:
    rows = [
        "| file | verdict | activations found | detail |",
        "| --- | --- | --- | --- |",
        *(f"| {v.name} | {v.verdict} | {v.found} | {v.detail} |" for v in verdicts),
    ]
    counts = Counter(v.verdict for v in verdicts)
    summary = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    title = "# What is read: a corpus of real exports"
    made = "Written by `python benchmarks/corpus.py tests/corpus.tar.xz --table docs/corpus.md`."
    return "\n".join([title, "", made, "", f"{len(verdicts)} files: {summary}.", "", *rows, ""])


def compare(verdicts: list[Verdict], expected: Path) -> int:
    """0 where every verdict and what was found is as stored; 1, with the changes, otherwise."""
    now = {v.name: [v.verdict, v.found] for v in verdicts}
    if not expected.exists():
        expected.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
        print(f"wrote {expected}")
        return 0
    before = json.loads(expected.read_text())
    changed = sorted(n for n in now if now[n] != before.get(n))
    for name in changed:
        print(f"changed: {name}: {before.get(name)} -> {now[name]}")
    return 1 if changed else 0


if __name__ == "__main__":
    raise SystemExit(main())
