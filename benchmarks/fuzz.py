"""Inputs of every kind, valid and broken, thrown at the command line for a given time.

    python benchmarks/fuzz.py --minutes 60 [--keep FOLDER] [--seed 0] [--kinds KIND,...]

Networks come from the hypothesis strategies of tests/random_networks.py; broken ones are made of
them by changing bytes, fields of the protobuf (any, to any extreme value) or the wiring; SNN files
and arrays likewise. Each input is one run of `na-convert` in a process of its own. A finding is

* an exit code other than 0, 1 and 2, an "unexpected" error, a traceback, or not exactly one line;
* more than 10 s of processor time, or more than 2 GiB of memory;
* an output of a failed run, or a file left behind;
* of a valid network: a check that fails, or a refusal.

Prints a table of inputs by kind and verdict; findings are kept in FOLDER. Exit code 1 if there are.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import na_convert  # noqa: E402
from na_convert import api, cli, report, result_json  # noqa: E402, F401 - loaded before the forks
from tests import build  # noqa: E402
from tests.file_forms import FORMS, arguments  # noqa: E402
from tests.random_networks import networks  # noqa: E402

SECONDS, BYTES, WALL = 10, 2 << 30, 120
EXTREMES = [0, 1, -1, 2, 3, 7, 255, 2**16, 2**31 - 1, -(2**31), 2**31, 2**40, 2**62, -(2**63)]
INF, NAN = float("inf"), float("nan")
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e-38, 1e30, 3e38, INF, -INF, NAN]
TEXTS = ["", "x", "a", "y", "../..", "/dev/zero", "\x1b[31m", "q" * 5000, "Loop", "If"]


@dataclass(frozen=True)
class Case:
    """One input: the arguments of a run, whether it has to convert, and what was done to it."""

    arguments: list[str]
    valid: bool = False


# --- what is thrown -------------------------------------------------------------------------------


def valid(model: onnx.ModelProto, rng: random.Random, folder: Path) -> Case:
    options = arguments(rng.choice(list(FORMS)))
    return Case([*convert(model.SerializeToString(), folder), *options], valid=True)


def changed_bytes(model: onnx.ModelProto, rng: random.Random, folder: Path) -> Case:
    return Case(convert(damaged(model.SerializeToString(), rng), folder))


def changed_fields(model: onnx.ModelProto, rng: random.Random, folder: Path) -> Case:
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        change_field(model, rng)
    return Case(convert(model.SerializeToString(), folder))


def changed_wiring(model: onnx.ModelProto, rng: random.Random, folder: Path) -> Case:
    for _ in range(rng.choice([1, 1, 2, 3])):
        rewire(model.graph, rng)
    return Case(convert(model.SerializeToString(), folder))


def random_bytes(model: onnx.ModelProto, rng: random.Random, folder: Path) -> Case:
    return Case(convert(rng.randbytes(rng.randrange(2000)), folder))


def changed_snn(model: onnx.ModelProto, rng: random.Random, folder: Path) -> Case:
    """An SNN file of any form, with changed metadata, fields or bytes, in `simulate` or `check`."""
    snn = onnx.load(rng.choice(sorted((folder.parent / "snn").glob("*.onnx"))))
    how = rng.choice(["metadata", "metadata", "field", "field", "bytes", "wiring"])
    if how == "metadata":
        change_metadata(snn, rng)
    elif how == "field":
        change_field(snn, rng)
    elif how == "wiring":
        rewire(snn.graph, rng)
    content = snn.SerializeToString()
    path = folder / "snn.onnx"
    path.write_bytes(damaged(content, rng) if how == "bytes" else content)
    data = ["--data", str(folder.parent / "data.npz"), "-q"]
    if rng.random() < 0.7:
        return Case(["simulate", str(path), *data])
    return Case(["check", str(folder.parent / "ann.onnx"), str(path), *data])


def changed_data(model: onnx.ModelProto, rng: random.Random, folder: Path) -> Case:
    """An ``.npz`` or ``.npy`` whose bytes, headers above all, were changed."""
    suffix = rng.choice(["npz", "npy"])
    path = folder / f"data.{suffix}"
    shutil.copy(folder.parent / f"data.{suffix}", path)
    content = path.read_bytes()
    part = content[:200] if rng.random() < 0.5 else content
    path.write_bytes(damaged(part, rng) + content[len(part) :])
    snn = sorted((folder.parent / "snn").glob("folded*.onnx"))[0]
    return Case(["simulate", str(snn), "--data", str(path), "-q"])


KINDS: dict[str, Callable[[onnx.ModelProto, random.Random, Path], Case]] = {
    "valid networks": valid,
    "changed bytes": changed_bytes,
    "changed fields": changed_fields,
    "changed wiring": changed_wiring,
    "random bytes": random_bytes,
    "changed SNN files": changed_snn,
    "changed data": changed_data,
}


def convert(content: bytes, folder: Path) -> list[str]:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return ["convert", str(path), "-o", str(folder / "out.onnx"), "-q"]


def damaged(content: bytes, rng: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(found) or 1)
        kind = rng.randrange(5)
        if kind == 0:
            del found[at:]
        elif kind == 1:
            del found[at : at + rng.randrange(20)]
        elif kind == 2:
            found[at:at] = rng.randbytes(rng.randrange(20))
        elif found:
            found[at] = rng.choice([0, 255, rng.randrange(256), found[at] ^ 1 << rng.randrange(8)])
    return bytes(found)


def messages(message: Message) -> list[Message]:
    """``message`` and all inside it."""
    found = [message]
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            inner = [value] if isinstance(value, Message) else list(value)
            for each in inner:
                found += messages(each)
    return found


def change_field(model: onnx.ModelProto, rng: random.Random) -> None:
    """One field, anywhere: to an extreme value, gone, twice, or another's."""
    message = rng.choice(messages(model))
    fields = [d for d, _ in message.ListFields()]
    if not fields or rng.random() < 0.15:
        fields = list(message.DESCRIPTOR.fields)
    descriptor = rng.choice(fields)
    name = descriptor.name
    value = getattr(message, name)
    try:
        if rng.random() < 0.15:
            message.ClearField(name)
        elif hasattr(value, "append") and not isinstance(value, str | bytes):
            change_list(value, descriptor.message_type is not None, rng, descriptor.cpp_type)
        elif descriptor.message_type is None:
            setattr(message, name, extreme(descriptor.cpp_type, value, rng))
    except (TypeError, ValueError):
        return  # not a value that this field can hold


def change_list(values: object, of_messages: bool, rng: random.Random, kind: int) -> None:
    assert hasattr(values, "__len__")
    if of_messages:
        if len(values) and rng.random() < 0.5:  # type: ignore[arg-type]
            del values[rng.randrange(len(values))]  # type: ignore[attr-defined, arg-type]
        elif len(values):  # type: ignore[arg-type]
            values.add().CopyFrom(rng.choice(list(values)))  # type: ignore[attr-defined, call-overload]
    elif len(values) and rng.random() < 0.7:  # type: ignore[arg-type]
        at = rng.randrange(len(values))  # type: ignore[arg-type]
        values[at] = extreme(kind, values[at], rng)  # type: ignore[index]
    else:
        values.append(extreme(kind, 0, rng))  # type: ignore[attr-defined]


def extreme(kind: int, value: object, rng: random.Random) -> object:
    if isinstance(value, bytes):
        return damaged(value, rng)
    if isinstance(value, str):
        return rng.choice(TEXTS)
    return rng.choice(FLOATS if kind in (5, 6) else EXTREMES)


def rewire(graph: onnx.GraphProto, rng: random.Random) -> None:
    """Nodes that read, make or are something else; or fewer of them, or more."""
    if not graph.node:
        return
    names = [n for node in graph.node for n in (*node.input, *node.output)] + ["x", "nothing", ""]
    node = rng.choice(list(graph.node))
    kind = rng.randrange(7)
    if kind == 0 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif kind == 1 and node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice(names)
    elif kind == 2:
        graph.node.remove(node)
    elif kind == 3:
        other = graph.node.add()
        other.CopyFrom(node)
        other.output[:] = [f"{name}_again" for name in node.output]
    elif kind == 4:
        node.op_type = rng.choice(list(graph.node)).op_type
    elif kind == 5:
        node.op_type = rng.choice(sorted({s.name for s in onnx.defs.get_all_schemas()}))
    elif graph.initializer:
        tensor = rng.choice(list(graph.initializer))
        values = onnx.numpy_helper.to_array(tensor).copy()
        if values.size and values.dtype.kind == "f":
            values.flat[rng.randrange(values.size)] = rng.choice(FLOATS)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def change_metadata(model: onnx.ModelProto, rng: random.Random) -> None:
    entry = rng.choice(list(model.metadata_props))
    text = entry.value
    at = rng.randrange(len(text) + 1)
    entry.value = rng.choice(
        [
            *("", "[]", "{}", "null", "[{}]", "-1", "9" * 30, "[" * 3000),
            text[:at],
            text[:at] + rng.choice(["1", "-", "null", '"', "e9", "[", "0"]) + text[at + 1 :],
            text.replace("1", rng.choice(["-1", "9999999", "0", "null"]), 1),
        ]
    )


# --- one run --------------------------------------------------------------------------------------


def verdict_of(case: Case, folder: Path) -> str:
    """What `na-convert` made of ``case``; a finding begins with "!"."""
    said = folder / "said"
    before = {p.name for p in folder.iterdir()} | {"said", "out.onnx"}
    child = os.fork()
    if child == 0:
        _run(case, said)
    start, status = time.monotonic(), None
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() - start > WALL:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    lines = said.read_text(errors="replace").splitlines()
    seconds = used.ru_utime + used.ru_stime
    if seconds > SECONDS or os.WIFSIGNALED(status):
        return f"! {seconds:.0f} s of processor time, status {status}"
    if used.ru_maxrss * 1024 > BYTES:
        return f"! {used.ru_maxrss / 2**20:.1f} GiB of memory"
    left = {p.name for p in folder.iterdir()} - before
    code = os.WEXITSTATUS(status)
    if left or (code and (folder / "out.onnx").exists()):
        return f"! left behind: {left or 'an output'}"
    if code == 0:
        return "converted, or run" if not lines else f"! said {lines[0][:200]}"
    errors = [line for line in lines if line.startswith("error: ")]
    if (
        code not in (1, 2)
        or len(errors) != 1
        or errors[0].startswith("error: unexpected ")
        or "Trace" in lines[0]
    ):
        return f"! exit code {code}: {(errors or lines or [''])[-1][:300]}"
    if "defect of na-convert" in errors[0] or case.valid:
        return f"! {errors[0][:300]}"
    return "refused (exit code 1)" if code == 1 else "unreadable (exit code 2)"


def _run(case: Case, said: Path) -> None:
    """In the child: never returns."""
    code = 99
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (3 * SECONDS, 3 * SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        cli.main(case.arguments)
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


class TimeIsUp(Exception):
    """The budget is spent."""


def fuzz(
    minutes: float, keep: Path | None, start: int, kinds: list[str]
) -> dict[str, Counter[str]]:
    """Verdicts by kind, after ``minutes``, or once it is interrupted."""
    counted: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as there:
        shared = Path(there)
        _prepare(shared)

        @seed(start)
        @settings(
            max_examples=10**9, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(st.sampled_from(kinds), networks(), st.integers(0, 2**60))
        def one(kind: str, model: onnx.ModelProto, number: int) -> None:
            if time.monotonic() > end:
                raise TimeIsUp
            folder = shared / "case"
            folder.mkdir()
            case = KINDS[kind](model, random.Random(number), folder)
            verdict = verdict_of(case, folder)
            counted[kind][verdict if verdict[0] != "!" else "FINDING"] += 1
            if verdict[0] == "!":
                total = sum(c["FINDING"] for c in counted.values())
                print(f"{kind}: {' '.join(case.arguments[:1])} {verdict}", flush=True)
                if keep is not None:
                    shutil.copytree(folder, keep / f"{total}-{kind.replace(' ', '-')}")
            shutil.rmtree(folder)

        with suppress(TimeIsUp, KeyboardInterrupt):
            one()
    return counted


def _prepare(shared: Path) -> None:
    """An ANN, its SNN in every form, and data; made in a process of their own, before the forks."""
    child = os.fork()
    if child == 0:
        ann = shared / "ann.onnx"
        ann.write_bytes(build.low_bit_ann().SerializeToString())
        (shared / "snn").mkdir()
        for name, options in FORMS.items():
            na_convert.convert(ann, output=shared / f"snn/{name}.onnx", check=False, **options)
        np.savez(shared / "data.npz", x=build.images(6), labels=np.arange(6) % 5)
        np.save(shared / "data.npy", build.images(6))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    given_ = parser.parse_args()
    if given_.keep is not None:
        given_.keep.mkdir(parents=True, exist_ok=True)
    counted = fuzz(given_.minutes, given_.keep, given_.seed, given_.kinds.split(","))
    verdicts = sorted({verdict for found in counted.values() for verdict in found})
    print("| kind | inputs | " + " | ".join(verdicts) + " |")
    print("| --- " * (len(verdicts) + 2) + "|")
    for kind, found in counted.items():
        print(f"| {kind} | {found.total()} | " + " | ".join(str(found[v]) for v in verdicts) + " |")
    return 1 if any(found["FINDING"] for found in counted.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
