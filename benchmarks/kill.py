"""Conversions stopped at random moments: is the output always a whole file, and what stays behind?

    python benchmarks/kill.py 200 [--seed 0]

Each run converts the small network of the tests over the same output, with other time steps than
the run before, and gets SIGINT, SIGTERM or SIGKILL at a random moment of the time that it takes. It
is forked of a process that has loaded everything, so that the moments fall into the work. Counted
are outputs that are neither the old file nor the new one, error messages of more than a line,
folders that a killed run left, and what is left after the next run that is not stopped. The folder
of the input is watched as well. Exit code 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from na_convert import api, cli, report, result_json  # noqa: E402, F401 - loaded before the forks
from na_convert.whole_files import PREFIX  # noqa: E402
from tests import build  # noqa: E402

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


def start(ann: Path, output: Path, timesteps: int, said: Path) -> int:
    """The process id of a conversion."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        cli.main(["convert", str(ann), "-o", str(output), "-T", str(timesteps), "-q", "--no-check"])
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    finally:
        os._exit(code)


def stopped(child: int, number: signal.Signals, after: float) -> str:
    """How the conversion ended that got the signal after so many seconds."""
    time.sleep(after)
    os.kill(child, number)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"{number.name}: killed"
    return f"{number.name}: exit code {os.WEXITSTATUS(status)}"


def whole_files(ann: Path, output: Path, said: Path) -> tuple[dict[bytes, int], float]:
    """What a conversion that is not stopped writes, by time steps, and the seconds it takes."""
    found, seconds = {}, 0.0
    for timesteps in (1, 2):
        begin = time.monotonic()
        os.waitpid(start(ann, output, timesteps, said), 0)
        seconds = max(seconds, time.monotonic() - begin)
        found[output.read_bytes()] = timesteps
    return found, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, counted = np.random.default_rng(given.seed), Counter[str]()
    corrupt = talkative = left = outside = 0
    with tempfile.TemporaryDirectory() as there:
        beside, folder = Path(there) / "beside", Path(there) / "folder"
        beside.mkdir()
        folder.mkdir()
        ann, output, said = beside / "ann.onnx", folder / "out.onnx", beside / "said"
        ann.write_bytes(build.low_bit_ann().SerializeToString())
        whole, seconds = whole_files(ann, output, said)
        for k in range(given.kills):
            number = SIGNALS[int(rng.integers(len(SIGNALS)))]
            child = start(ann, output, 1 + k % 2, said)
            counted[stopped(child, number, rng.uniform(0, seconds))] += 1
            corrupt += output.read_bytes() not in whole
            talkative += len(said.read_text().splitlines()) > 1
            left += any(folder.glob(f"{PREFIX}*"))
            outside += {p.name for p in beside.iterdir()} != {"ann.onnx", "said"}
            outside += any(not p.name.startswith(PREFIX) and p != output for p in folder.iterdir())
        os.waitpid(start(ann, output, 1, said), 0)
        after = [p.name for p in folder.iterdir() if p != output]
        corrupt += whole.get(output.read_bytes()) != 1
    for how, count in sorted(counted.items()):
        print(f"{how:28} {count}")
    print(f"a conversion takes up to {seconds:.2f} s")
    print(f"of {given.kills} kills {corrupt} left an output neither old nor new, {outside} touched")
    print(f"other files, {talkative} said more than a line; a folder stayed after {left},")
    print(f"{len(after)} after the next run")
    return 1 if corrupt or outside or talkative or after else 0


if __name__ == "__main__":
    sys.exit(main())
