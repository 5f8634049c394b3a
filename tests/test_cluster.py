"""`check --scheduler`: the figures of one process, bit for bit, also when a worker is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import na_convert
from na_convert import batches, behaviour, cli, cluster
from na_convert.errors import DataError, UsageError
from na_convert.results import Equivalence

from . import build

distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")

COUNT, BATCH = 42, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ANN with two activations, its SNN, and data in shards."""
    folder = tmp_path_factory.mktemp("cluster")
    onnx.save(build.low_bit_ann(), folder / "net.onnx")
    (folder / "data").mkdir()
    labels = np.random.default_rng(2).integers(0, 5, COUNT)
    x = build.images(COUNT)
    for index, start in enumerate(range(0, COUNT, 10)):
        rows = slice(start, start + 10)
        np.savez(folder / f"data/part-{index}.npz", x=x[rows], labels=labels[rows])
    na_convert.convert(folder / "net.onnx", check=False)
    return folder


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two samples at a time, layers measured on every second batch."""
    monkeypatch.setattr(batches, "LARGEST", BATCH)
    monkeypatch.setattr(behaviour, "ALL_SAMPLES", 0)
    monkeypatch.setattr(behaviour, "LAYER_SAMPLES", COUNT // 2)


@pytest.fixture(scope="module")
def workers() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as found:
        yield found


def checked(folder: Path, **options: Any) -> Equivalence:
    data = options.pop("data", folder / "data")
    result = na_convert.check(folder / "net.onnx", folder / "net.snn.onnx", data=data, **options)
    assert result.equivalence is not None
    return result.equivalence


def test_a_cluster_gives_what_one_process_gives(folder: Path, workers: Any) -> None:
    alone = checked(folder)
    together = checked(folder, scheduler=workers.scheduler_address)
    assert together == alone
    assert alone.samples == COUNT
    assert alone.layer_samples < COUNT


def die_in_the_middle(note: Path) -> None:
    """On a worker: the next part that it takes ends with its process, after the first batch."""
    import os
    import signal

    from na_convert.behaviour import Observer

    original, calls = Observer.part, []

    def part(self: Any, samples: Any, part: Any) -> Any:
        calls.append(part)
        if len(calls) > 1:
            note.write_text(f"{calls[0].start} {os.getpid()}")
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, samples, part)

    Observer.part = part  # type: ignore[method-assign]


def test_the_part_of_a_lost_worker_is_redone(folder: Path, workers: Any, tmp_path: Path) -> None:
    alone = checked(folder)
    address, note = workers.scheduler_address, tmp_path / "died"
    with distributed.Client(address, set_as_default=False) as client:
        pids = client.run(os.getpid)
        victim = sorted(pids)[0]
        client.run(die_in_the_middle, note, workers=[victim])
        assert checked(folder, scheduler=address) == alone
    assert int(note.read_text().split()[1]) == pids[victim]


def test_merging_does_not_depend_on_the_order(folder: Path) -> None:
    """What makes it exact: the sums of parts, merged in any order and grouping."""
    from na_convert import cluster as module
    from na_convert.model_io import load

    ann, snn = load(folder / "net.onnx"), load(folder / "net.snn.onnx")
    job = module.job_for(ann, snn, folder / "data", None, None, (1, 2, 3))
    observer, samples = module._prepared(job)
    parts = [behaviour.Part(at, at + BATCH, True) for at in range(0, COUNT, BATCH)]
    found = [observer.part(samples, part) for part in parts]
    forward, backward = found[0], found[-1]
    for each in found[1:]:
        forward = forward.merged(each)
    for each in found[-2::-1]:
        backward = backward.merged(each)
    assert forward.results() == backward.results()
    assert [c.split() for c in forward.layers] == [c.split() for c in backward.layers]


def test_errors_of_a_worker_are_the_clients(folder: Path, workers: Any, tmp_path: Path) -> None:
    """An array that is not finite, far behind what the client itself looks at."""
    x = build.images(COUNT)
    x[-1, 0, 0, 0] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match="not finite"):
        checked(folder, data=tmp_path / "x.npy", scheduler=workers.scheduler_address)


def test_a_worker_that_reads_another_file(folder: Path, workers: Any) -> None:
    from na_convert.model_io import load

    ann, snn = load(folder / "net.onnx"), load(folder / "net.snn.onnx")
    job = cluster.job_for(ann, snn, folder / "data", None, None, (1,))
    other = replace(job, digests=(job.digests[0], "0" * 64))
    found = cluster.Cluster(workers.scheduler_address, other)
    with pytest.raises(UsageError, match=r"net.snn.onnx: a worker reads another file"):
        found([behaviour.Part(0, 1, True)], lambda share: None)


def test_no_scheduler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_TIMEOUT", 1)
    with pytest.raises(UsageError, match=r"tcp://127.0.0.1:9: no scheduler answers there"):
        checked(folder, scheduler="tcp://127.0.0.1:9")


def test_arrays_cannot_be_sent(folder: Path) -> None:
    with pytest.raises(UsageError, match="files that every worker can read"):
        checked(folder, data={"x": build.images(4)}, scheduler="tcp://127.0.0.1:9")


def test_without_distributed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    line = f"check {folder}/net.onnx {folder}/net.snn.onnx --data {folder}/data"
    assert cli._run([*line.split(), "--scheduler", "tcp://127.0.0.1:9"]) == 2
    assert "pip install 'na-convert[cluster]'" in capsys.readouterr().err
