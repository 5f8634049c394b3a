"""Files that appear whole or not at all, whatever happens to the process that writes them.

`atomic_file` writes into a folder of its own beside the file, ``.na-convert-*``, and moves what is
finished into place; `atomic_folder` does so with a whole folder. Where a process was killed, its
folder stays; the next run that writes beside it removes it: a folder is in use as long as the
process that made it holds a lock on it, and the lock goes with the process.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UsageError

PREFIX = ".na-convert-"


def write_atomically(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` as a whole file, or leave what was there.

    Raises UsageError where the folder is missing or cannot be written.
    """
    with atomic_file(path) as part:
        part.write_bytes(data)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends without error.

    Raises UsageError where the folder is missing or cannot be written, or the disk is full.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder", remedy="create it, or choose another -o")
    try:
        _remove_abandoned(path.parent)
        with _folder_in_use(path.parent) as folder:
            part = folder / path.name
            yield part
            _to_disk(part)
            os.replace(part, path)
    except OSError as error:
        raise UsageError(f"{path}: cannot write ({error.strerror or error})") from error


def put_if_absent(part: Path, path: Path) -> bool:
    """Put the finished file ``part`` at ``path`` too, unless something is there; returns whether
    it was put.

    Raises OSError where it cannot be written.
    """
    _to_disk(part)
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return False
        os.close(handle)
        try:
            os.replace(part, path)
        except BaseException:
            path.unlink()
            raise
    return True


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends without error.

    ``path`` is none yet, or an empty folder. Raises UsageError where it cannot be written, holds
    something, or the disk is full.
    """
    parent = path.absolute().parent
    try:
        _remove_abandoned(parent)
        with _folder_in_use(parent) as folder:
            whole = folder / path.name
            whole.mkdir()
            yield whole
            for part in whole.iterdir():
                _to_disk(part)
            os.replace(whole, path)
    except OSError as error:
        raise UsageError(f"{path}: cannot write ({error.strerror or error})") from error


@contextmanager
def _folder_in_use(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent``, locked, and gone when the block ends."""
    folder, lock = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # another run took it for abandoned, between the two lines
        if _take(lock) is False or not folder.exists():
            os.close(lock)
            continue
        return folder, lock


def _remove_abandoned(parent: Path) -> None:
    """Remove folders of runs that were killed; those of runs in progress are locked.

    Where the file system has no locks, all of them stay.
    """
    for folder in parent.glob(f"{PREFIX}*"):
        if not folder.is_dir() or folder.is_symlink():
            continue
        try:
            lock = os.open(folder, os.O_RDONLY)
        except OSError:
            continue  # gone by now, or somebody else's
        try:
            if _take(lock) is True:
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _take(lock: int) -> bool | None:
    """Whether this process now holds the lock, or another does; None where the file system has no
    locks, so that nobody can tell."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _to_disk(part: Path) -> None:
    """Have the bytes of ``part`` on the disk before its name is: a full disk shows here."""
    handle = os.open(part, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
