"""Data made to do harm: pickles, bombs, headers that lie, labels and stored runs of any shape."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import na_convert
from na_convert.array_files import npz_headers, read_npy, read_npz
from na_convert.data import InputSpec, load_data
from na_convert.errors import DataError, UsageError
from na_convert.labels import read_labels

from . import build

IMAGES = build.images(24)
INPUT = InputSpec("x", (None, 3, 8, 8), np.dtype(np.float32))


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


def with_header(text: str) -> bytes:
    """The images behind a header that says something else."""
    padded = text.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + IMAGES.tobytes()


def said_to_be(shape: object, descr: str = "<f4") -> bytes:
    return with_header(repr({"descr": descr, "fortran_order": False, "shape": shape}))


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def refused(path: Path, match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        load_data(path, [INPUT])
    assert "\n" not in str(caught.value)


# --- pickles --------------------------------------------------------------------------------------


class Trap:
    """Makes the folder that it was told when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.folder),))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    trap = Trap(sprung)
    objects = npy(np.array([trap], object))
    for suffix in ("npy", "npz"):
        (tmp_path / f"plain.{suffix}").write_bytes(pickle.dumps(trap))
        refused(tmp_path / f"plain.{suffix}", "of plain numbers")
    (tmp_path / "a.npy").write_bytes(objects)
    refused(tmp_path / "a.npy", "of plain numbers")
    refused(archive(tmp_path / "a.npz", {"x.npy": objects}), "of plain numbers")
    labelled = {"x.npy": npy(IMAGES), "labels.npy": objects}
    refused(archive(tmp_path / "l.npz", labelled), "of plain numbers")
    with pytest.raises(DataError, match="of plain numbers"):
        read_labels(tmp_path / "a.npy")
    code = f"__import__('os').mkdir({str(sprung)!r})"
    (tmp_path / "code.npy").write_bytes(with_header(code))
    refused(tmp_path / "code.npy", "not a readable")
    assert not sprung.exists()


# --- headers --------------------------------------------------------------------------------------

LIES = {
    "terabytes": (said_to_be((2**40, 3, 8, 8)), "takes .* bytes, and has 18432"),
    "more": (said_to_be((30, 3, 8, 8)), "takes 23040 bytes, and has 18432"),
    "less": (said_to_be((5, 3, 8, 8)), "takes 3840 bytes, and has 18432"),
    "overflow": (said_to_be((2**62, 2**62, 8, 8)), "takes .* bytes"),
    "negative": (said_to_be((-5, 3, 8, 8)), r"the shape \[-5"),
    "truth": (said_to_be((True, 3, 8, 8)), r"the shape \[True"),
    "long text": (said_to_be((24,), "<U999999"), "takes .* bytes"),
    "huge items": (said_to_be((24,), "|V99999999999"), "not a readable|takes"),
    "nested": (with_header("(" * 5000), "not a readable"),
    "empty": (with_header(""), "not a readable"),
    "a list": (with_header("[]"), "not a readable"),
    "no type": (
        with_header("{'descr': None, 'fortran_order': False, 'shape': (1,)}"),
        "not a readable|takes",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_headers_that_lie(tmp_path: Path, name: str) -> None:
    content, match = LIES[name]
    (tmp_path / "a.npy").write_bytes(content)
    refused(tmp_path / "a.npy", match)
    path = archive(tmp_path / "a.npz", {"x.npy": content})
    refused(path, match)
    folder = tmp_path / "shards"
    folder.mkdir()
    path.rename(folder / "a.npz")
    refused(folder, match)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A GiB of zeros in a MiB."""
    path, block = tmp_path / "bomb.npz", bytes(1 << 24)
    blocks = 64
    head = said_to_be((blocks * len(block),), "|u1")[: -IMAGES.nbytes]
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("x.npy", "w", force_zip64=True) as member,
    ):
        member.write(head)
        for _ in range(blocks):
            member.write(block)
    assert path.stat().st_size < 2 << 20
    refused(path, r"1\.0 MiB that unpack to 1\.0 GiB")
    with pytest.raises(DataError, match="unpack"):
        npz_headers(path)


# --- archives -------------------------------------------------------------------------------------


def test_members_that_are_no_arrays(tmp_path: Path) -> None:
    refused(archive(tmp_path / "a.npz", {"x": b"bytes"}), "'x' is no array")
    refused(archive(tmp_path / "b.npz", {}), "found: nothing")
    outside = archive(tmp_path / "c.npz", {"../../x.npy": npy(IMAGES)})
    refused(outside, r"found: \.\./\.\./x")
    many = {f"a{k}.npy": npy(np.zeros(1)) for k in range(1001)}
    refused(archive(tmp_path / "d.npz", many), "holds 1001 arrays")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", npy(IMAGES))
        file.writestr("x.npy", npy(IMAGES[:3]))
    refused(path, "holds 'x' twice")


def test_damaged_archives(tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", x=IMAGES)
    content = (tmp_path / "good.npz").read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 10):
        (tmp_path / "cut.npz").write_bytes(content[:length])
        refused(tmp_path / "cut.npz", "not a readable|not an")
    for seed in range(30):
        rng, damaged = np.random.default_rng(seed), bytearray(content)
        for at in rng.integers(len(content), size=4):
            damaged[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "damaged.npz").write_bytes(bytes(damaged))
        try:
            found = read_npz(tmp_path / "damaged.npz")
        except DataError:
            continue
        assert all(np.array_equal(values, IMAGES) for values in found.values())  # by a checksum


def test_one_kind_called_the_other(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    refused(tmp_path / "a.npz", "a single array")
    np.savez(tmp_path / "b.npz", x=IMAGES)
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    with pytest.raises(DataError, match="several arrays"):
        read_npy(tmp_path / "b.npy")


# --- labels, images, stored runs ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.txt", "9" * 400, "ends in no class number"),
        ("a.txt", " " * 50_000 + "x", "ends in no class number"),
        ("a.txt", "²\n", "ends in no class number"),
        ("a.json", "[" * 100_000, "not JSON"),
        ("a.json", "[" + "9" * 400 + "]", "more than 63 bits"),
        ("a.json", "[" + "9" * 10_000 + "]", "not JSON"),
        ("a.json", '{"a": [1]}', "neither a list"),
        ("a.json", "[NaN]", "neither a list"),
    ],
)
def test_labels(tmp_path: Path, name: str, text: str, match: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=match):
        read_labels(tmp_path / name)


def test_labels_that_would_wrap_around(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=IMAGES, labels=np.full(24, 2**63, np.uint64))
    refused(tmp_path / "a.npz", r"below 2\^63")


def png(width: int, height: int) -> bytes:
    """A PNG whose header promises more than its kilobyte of pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (png(60_000, 60_000), "so many pixels"),
        (png(12_000, 12_000), "so many pixels"),
        (png(2**31 - 1, 2**31 - 1), "so many pixels"),
        (png(80, 80), "not a readable image"),
        (png(80, 80)[:40], "not a readable image"),
        (b"nonsense", "not a readable image"),
    ],
)
def test_images(tmp_path: Path, content: bytes, match: str) -> None:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path, match)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("networks")
    ann, snn = folder / "ann.onnx", folder / "snn.onnx"
    ann.write_bytes(build.low_bit_ann().SerializeToString())
    na_convert.convert(ann, output=snn, check=False)
    return ann, snn


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "null",
        "[]",
        '{"equivalence": {"samples": 24, "by_timestep": [5]}}',
        '{"equivalence": {"samples": 24, "by_timestep": [{"T": 3}]}}',
        '{"equivalence": {"samples": 24, "by_timestep": [{"T": 3, "agreement": "x"}]}}',
        '{"equivalence": {"samples": 24, "by_timestep": [{"T": [], "agreement": 1}]}}',
        '{"equivalence": {"samples": 24, "timesteps": 3, "layers": [5], '
        '"by_timestep": [{"T": 3, "agreement": 1, "snn_accuracy": null}]}}',
        '{"equivalence": {"samples": 24, "timesteps": 3, "energy": {"mac_pj": 1}, '
        '"by_timestep": [{"T": 3, "agreement": 1, "snn_accuracy": null}]}}',
    ],
)
def test_stored_runs(tmp_path: Path, networks: tuple[Path, Path], text: str) -> None:
    (tmp_path / "stored.json").write_text(text)
    with pytest.raises(UsageError, match="--baseline"):
        na_convert.check(
            *networks,
            data={"x": IMAGES},
            checks=["end-to-end"],
            baseline=tmp_path / "stored.json",
        )
