"""Files that appear whole or not at all: failures, full disks, killed and concurrent writers."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import na_convert
from na_convert import bisection, model_writing, whole_files
from na_convert.errors import UsageError
from na_convert.graph import Parts
from na_convert.whole_files import PREFIX, atomic_file, atomic_folder, write_atomically

from . import build

ROOT = Path(__file__).parent.parent


@pytest.fixture
def ann(tmp_path: Path) -> Path:
    path = tmp_path / "ann.onnx"
    path.write_bytes(build.low_bit_ann().SerializeToString())
    return path


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


WRITER = """
    import sys, time
    from pathlib import Path
    from na_convert.whole_files import atomic_file
    with atomic_file(Path(sys.argv[1])) as part:
        part.write_bytes(b"half")
        print("writing", flush=True)
        time.sleep(60)
"""


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_clears_up(tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"old")
    writer = start(WRITER, target)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    (left,) = tmp_path.glob(f"{PREFIX}*")
    write_atomically(tmp_path / "other.onnx", b"whole")
    assert left.is_dir()  # it is in use
    writer.kill()
    writer.communicate()
    assert target.read_bytes() == b"old"
    assert left.is_dir()
    write_atomically(target, b"new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.onnx", "out.onnx"]
    assert target.read_bytes() == b"new"


def test_what_only_looks_like_ours_stays(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / f"{PREFIX}link").symlink_to(outside)
    (folder / f"{PREFIX}file").write_text("mine")
    write_atomically(folder / "out", b"new")
    assert (outside / "mine").read_text() == "mine"
    assert (folder / f"{PREFIX}file").exists()


def test_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from na_convert.whole_files import write_atomically
        for _ in range(50):
            write_atomically(Path(sys.argv[1]), sys.argv[2].encode() * 200_000)
    """
    target = tmp_path / "out"
    writers = [start(code, target, letter) for letter in "abc"]
    while any(writer.poll() is None for writer in writers):
        if target.exists():
            content = target.read_bytes()
            assert len(content) == 200_000
            assert len(set(content)) == 1
    assert [writer.communicate()[1] for writer in writers] == ["", "", ""]
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_one_line_and_the_old_file(
    tmp_path: Path, ann: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"old")

    def full(part: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(whole_files, "_to_disk", full)
    with pytest.raises(UsageError, match="No space left on device"):
        na_convert.convert(ann, output=target, check=False)
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ann.onnx", "out.onnx"]


def test_a_file_size_limit_is_one_line_and_nothing_written(tmp_path: Path, ann: Path) -> None:
    code = """
        import resource, signal, sys
        from na_convert import cli
        import na_convert.api
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        cli.main(["convert", sys.argv[1], "-o", sys.argv[2], "--no-check", "-q"])
    """
    run = start(code, ann, tmp_path / "out.onnx")
    shown = run.communicate()[1]
    assert run.returncode == 2
    assert shown == f"error: {tmp_path}/out.onnx: cannot write (File too large)\n"
    assert list(tmp_path.iterdir()) == [ann]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root every folder can; so what the system would say is said for it."""

    def refused(prefix: str, dir: Path) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(whole_files.tempfile, "mkdtemp", refused)
    with pytest.raises(UsageError, match="Permission denied"):
        write_atomically(tmp_path / "out", b"new")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_unwind(tmp_path: Path, ann: Path, number: signal.Signals) -> None:
    """In the middle of writing, where `atomic_file` waits for the disk."""
    program = """
        import signal, sys, time
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind &
        from na_convert import cli, whole_files
        def wait(part):
            print("writing", flush=True)
            time.sleep(60)
        whole_files._to_disk = wait
        cli.main(["convert", sys.argv[1], "-o", sys.argv[2], "--no-check", "-q"])
    """
    target = tmp_path / "out.onnx"
    run = start(program, ann, target)
    assert run.stdout is not None
    assert run.stdout.readline() == "writing\n"
    run.send_signal(number)
    shown = run.communicate()[1]
    assert (run.returncode, shown) == (130, "error: stopped\n")
    assert list(tmp_path.iterdir()) == [ann]


def test_kills_at_random_moments(tmp_path: Path, ann: Path) -> None:
    """A few of the kills of benchmarks/kill.py, of a process that writes again and again."""
    code = """
        import sys
        import na_convert
        for t in (1, 2) * 1000:
            na_convert.convert(sys.argv[1], output=sys.argv[2], timesteps=t, check=False)
            print("written", flush=True)
    """
    target = tmp_path / "out.onnx"
    whole = {}
    for t in (1, 2):
        na_convert.convert(ann, output=target, timesteps=t, check=False)
        whole[target.read_bytes()] = t
    rng = np.random.default_rng(0)
    for _ in range(4):
        run = start(code, ann, target)
        assert run.stdout is not None
        run.stdout.readline()
        time.sleep(rng.uniform(0, 0.2))
        run.kill()
        run.communicate()
        assert target.read_bytes() in whole
    na_convert.convert(ann, output=target, timesteps=1, check=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ann.onnx", "out.onnx"]


def test_the_block_gets_a_file_of_the_right_name(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "out.npz") as part:
        assert part.name == "out.npz"
        part.write_bytes(b"whole")
    assert (tmp_path / "out.npz").read_bytes() == b"whole"


def test_a_folder_appears_whole_and_what_is_written_beside_it_leaves_it_alone(
    tmp_path: Path,
) -> None:
    target = tmp_path / "parts"
    with atomic_folder(target) as made:
        (made / "one").write_bytes(b"1")
        write_atomically(tmp_path / "other.onnx", b"whole")
        assert not target.exists()
        (made / "two").write_bytes(b"2")
    assert {p.name: p.read_bytes() for p in target.iterdir()} == {"one": b"1", "two": b"2"}
    (tmp_path / "plain").mkdir()
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "plain").rmdir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.onnx", "parts"]


def write_folder(path: Path, error: Exception | None = None) -> None:
    with atomic_folder(path) as made:
        (made / "one").write_bytes(b"1")
        if error is not None:
            raise error


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(UsageError, match="full: cannot write"):
        write_folder(tmp_path / "full")
    with pytest.raises(ZeroDivisionError):
        write_folder(tmp_path / "new", ZeroDivisionError())
    assert [p.name for p in tmp_path.iterdir()] == ["full"]
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine"]


def test_a_bisection_in_progress_survives_what_is_written_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = model_writing.save

    def meanwhile(model: Parts, path: Path) -> tuple[int, str]:
        found = save(model, path)
        write_atomically(tmp_path / "other.onnx", b"whole")
        return found

    monkeypatch.setattr(bisection.model_writing, "save", meanwhile)
    model = Parts(build.low_bit_ann(), {})
    part = bisection._Part(model, {"x": build.images(1)}, frozenset(), 1)
    bisection._write(tmp_path / "parts", part, part, 0)
    found = sorted(p.name for p in (tmp_path / "parts").iterdir())
    assert found == ["ann.npz", "ann.onnx", "snn.npz", "snn.onnx"]


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_written_to_and_nothing_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refused(handle: int, how: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(whole_files.fcntl, "flock", refused)
    (tmp_path / f"{PREFIX}perhaps-in-use").mkdir()
    write_atomically(tmp_path / "out", b"new")
    write_folder(tmp_path / "parts")
    assert (tmp_path / "out").read_bytes() == b"new"
    found = sorted(p.name for p in tmp_path.iterdir())
    assert found == [f"{PREFIX}perhaps-in-use", "out", "parts"]


def test_a_folder_that_others_took_for_abandoned_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making it and locking it: gone the first time, locked by the other the second."""
    opened, take, times = os.open, whole_files._take, [0, 0]

    def open_late(path: Path, how: int) -> int:
        times[0] += 1
        if times[0] == 1:
            Path(path).rmdir()
        return opened(path, how)

    def take_late(lock: int) -> bool | None:
        times[1] += 1
        return False if times[1] == 1 else take(lock)

    monkeypatch.setattr(os, "open", open_late)
    monkeypatch.setattr(whole_files, "_take", take_late)
    (tmp_path / "parent").mkdir()
    write_atomically(tmp_path / "parent" / "out", b"new")
    assert (tmp_path / "parent" / "out").read_bytes() == b"new"
    assert times[0] >= 3
