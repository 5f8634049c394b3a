"""What `--data` and `--labels` may name: `.npy`, shards, image folders, files of labels."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from na_convert import cli, sources
from na_convert.data import InputSpec, Preprocessing, Samples, load_data
from na_convert.errors import DataError, UsageError
from na_convert.labels import read_labels
from na_convert.lazy import LazyArray

SPEC = InputSpec("pixels", (None, 3, 4, 5), np.dtype(np.float32))
FREE = InputSpec("pixels", (None, 3, None, None), np.dtype(np.float32))
SCALE = Preprocessing(scale=(0.5,))


def floats(count: int = 7) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((count, 3, 4, 5)).astype(np.float32)


def pixels(count: int = 7) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 4, 5), np.uint8)


def refused(match: str, source: Any, spec: InputSpec = SPEC, **options: Any) -> None:
    with pytest.raises(DataError, match=match) as caught:
        load_data(source, [spec], **options).feeds["pixels"][:]
    assert "\n" not in str(caught.value)


def rows(samples: Samples, start: int = 0, stop: int | None = None) -> np.ndarray:
    return np.asarray(samples.feeds["pixels"][start:stop])


# --- .npy -----------------------------------------------------------------------------------------


def test_npy_is_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", floats())
    samples = load_data(tmp_path / "x.npy", [SPEC], labels=np.arange(7))
    assert isinstance(samples.feeds["pixels"], LazyArray)
    np.testing.assert_array_equal(rows(samples, 2, 5), floats()[2:5])
    np.testing.assert_array_equal(rows(samples, 5, 99), floats()[5:])
    assert samples.labels is not None
    assert (len(samples), samples.labels.tolist()) == (7, list(range(7)))


def test_suffixes_are_read_in_any_case(tmp_path: Path) -> None:
    for name, array in {"x": floats(), "labels": np.arange(7)}.items():
        np.save(tmp_path / "part.npy", array)
        (tmp_path / "part.npy").rename(tmp_path / f"{name.upper()}.NPY")
    samples = load_data(tmp_path / "X.NPY", [SPEC], labels=read_labels(tmp_path / "LABELS.NPY"))
    assert samples.labels is not None
    assert (len(rows(samples)), samples.labels.tolist()) == (7, list(range(7)))


def test_npy_of_pixels(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", pixels())
    samples = load_data(tmp_path / "x.npy", [SPEC], preprocessing=SCALE)
    np.testing.assert_array_equal(rows(samples, 1, 3), pixels()[1:3] / 2)
    assert rows(samples).dtype == np.float32


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    """A gigabyte that is not there: a sparse file, of which two rows are read."""
    import tracemalloc

    shape = (1 << 20, 3, 16, 16)
    array = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, shape)
    array[-1] = 200
    del array
    spec = InputSpec("x", (None, 3, 16, 16), np.dtype(np.float32))
    tracemalloc.start()
    samples = load_data(tmp_path / "x.npy", [spec], preprocessing=SCALE)
    assert np.asarray(samples.feeds["x"][-1:]).max() == 100
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_bad_npy(tmp_path: Path) -> None:
    np.savez(tmp_path / "several.npz", a=floats())
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    refused("several arrays", tmp_path / "several.npy")
    (tmp_path / "text.npy").write_text("hello")
    refused("not ", tmp_path / "text.npy")
    np.save(tmp_path / "one.npy", np.float32(1))
    refused("a single number", tmp_path / "one.npy")
    np.save(tmp_path / "last.npy", floats().transpose(0, 2, 3, 1))
    refused("channels come last", tmp_path / "last.npy")
    np.save(tmp_path / "nan.npy", np.where(floats() > 1, np.nan, floats()))
    refused("nan.npy: x: .* are not finite", tmp_path / "nan.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    refused("plain numbers", tmp_path / "objects.npy")


# --- shards ---------------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Seven samples in three shards; the tenth comes after the second."""
    parts = {"part-1": (0, 3), "part-2": (3, 4), "part-10": (4, 7)}
    for name, (start, stop) in parts.items():
        save = np.savez_compressed if name == "part-2" else np.savez
        save(tmp_path / f"{name}.npz", x=pixels()[start:stop], labels=np.arange(start, stop))
    return tmp_path


@pytest.mark.parametrize("suffix", [".npz", ".NPZ"])
def test_shards_are_one_array(suffix: str, shards: Path) -> None:
    (shards / "part-2.npz").rename(shards / f"part-2{suffix}")
    samples = load_data(shards, [SPEC], preprocessing=SCALE)
    assert samples.labels is not None
    assert samples.labels.tolist() == list(range(7))
    for start in range(7):
        for stop in range(start, 8):
            np.testing.assert_array_equal(rows(samples, start, stop), pixels()[start:stop] / 2)


def test_one_shard_at_a_time(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    read = sources.read_npz
    sources._shard.cache_clear()
    samples = load_data(shards, [SPEC], preprocessing=SCALE)
    monkeypatch.setattr(sources, "read_npz", lambda path: opened.append(path.stem) or read(path))
    for start in range(7):
        rows(samples, start, start + 1)
    assert opened == ["part-1", "part-2", "part-10"]
    assert sources._shard.cache_info().currsize == 1


def test_shards_that_do_not_fit(shards: Path) -> None:
    extra = shards / "part-11.npz"
    np.savez(extra, x=pixels()[:, :, :2], labels=np.arange(7))
    refused(r"part-11.npz: x is uint8 \[7, 3, 2, 5\], in part-1.npz uint8", shards)
    np.savez(extra, x=pixels())
    refused("part-11.npz: holds x, part-1.npz labels, x", shards)
    np.savez(extra, x=pixels(), labels=np.arange(3))
    refused(r"part-11.npz: arrays of a shard need one length \(x 7, labels 3\)", shards)
    extra.write_bytes(b"damaged")
    refused("part-11.npz: not a readable .npz", shards)


def test_a_shard_that_is_damaged_inside(shards: Path) -> None:
    """Headers are fine, the content is not: said when it is read."""
    damaged = bytearray((shards / "part-1.npz").read_bytes())
    at = damaged.index(pixels()[0].tobytes()[:16])
    damaged[at] ^= 255
    (shards / "part-1.npz").write_bytes(damaged)
    sources._shard.cache_clear()
    refused("part-1.npz: not a readable .npz", shards, preprocessing=SCALE)


# --- images ---------------------------------------------------------------------------------------


def save_image(path: Path, size: tuple[int, int] = (5, 4), seed: int = 0) -> Image.Image:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(draw)
    image.save(path)
    return image


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes with three images, one of them in a folder below, and a file that is none."""
    for seed, name in enumerate(("cat/b.png", "cat/deep/a.PNG", "ape/z.png")):
        save_image(tmp_path / name, seed=seed)
    (tmp_path / "cat/notes.txt").write_text("no image")
    return tmp_path


def test_class_folders(tree: Path) -> None:
    samples = load_data(tree, [SPEC], preprocessing=SCALE)
    files = [tree / name for name in ("ape/z.png", "cat/b.png", "cat/deep/a.PNG")]
    expected = np.stack([np.asarray(Image.open(f)).transpose(2, 0, 1) for f in files])
    np.testing.assert_array_equal(rows(samples), expected / 2)
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 1]
    assert any("2 class folders, numbered from 0" in note for note in samples.notes)


def test_images_need_a_rule_for_pixels(tree: Path) -> None:
    refused("uint8 pixels, and the model does not say", tree)


def test_grey_images(tree: Path) -> None:
    grey = InputSpec("pixels", (None, 1, 4, 5), np.dtype(np.uint8))
    expected = np.asarray(Image.open(tree / "ape/z.png").convert("L"))
    np.testing.assert_array_equal(rows(load_data(tree, [grey]), 0, 1)[0, 0], expected)


def test_resize_and_crop_are_those_of_torchvision(tmp_path: Path) -> None:
    """`Resize(8)` of 17x12: short side 8, long side int(8 * 17 / 12) = 11; then the middle."""
    image = save_image(tmp_path / "wide.png", (17, 12))
    how = Preprocessing(scale=(1.0,), resize=(8,), crop=(6, 7))
    resized = np.asarray(image.resize((11, 8), Image.Resampling.BILINEAR))
    found = rows(load_data(tmp_path, [FREE], preprocessing=how))[0]
    np.testing.assert_array_equal(found, resized[1:7, 2:9].transpose(2, 0, 1))
    exact = Preprocessing(scale=(1.0,), resize=(6, 9))
    assert rows(load_data(tmp_path, [FREE], preprocessing=exact)).shape == (1, 3, 6, 9)
    tall = save_image(tmp_path / "wide.png", (12, 17))
    assert tall.size == (12, 17)
    assert rows(load_data(tmp_path, [FREE], preprocessing=how)).shape == (1, 3, 6, 7)


def test_images_that_do_not_fit(tree: Path) -> None:
    save_image(tree / "cat/big.png", (9, 9))
    refused(r"big.png: is 9x9, z.png is 5x4.*--resize and --crop", tree, preprocessing=SCALE)
    big = Preprocessing(scale=(0.5,), crop=(8,))
    refused("z.png: is 5x4, smaller than the crop 8x8.*--resize", tree, preprocessing=big)
    size = Preprocessing(scale=(0.5,), resize=(8, 8))
    refused(r"has 8x8 pixels.*wants 4x5.*--resize and --crop", tree, preprocessing=size)
    (tree / "cat/big.png").write_bytes(b"no image")
    refused("big.png: not a readable image", tree, preprocessing=SCALE)
    save_image(tree / "beside.png")
    refused("images beside class folders", tree)
    vector = InputSpec("pixels", (None, 8), np.dtype(np.float32))
    (tree / "beside.png").unlink()
    refused(r"images are for a network with one input \[N, C, H, W\]", tree, vector)


def test_resize_is_for_images(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", floats())
    refused("for image files", tmp_path / "x.npy", preprocessing=Preprocessing(crop=(2,)))


def test_without_pillow(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UsageError, match=r"needs Pillow: pip install 'na-convert\[images\]'"):
        load_data(tree, [SPEC])


# --- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "3\n1\n\n2\n", [3, 1, 2]),
        ("a.json", "[3, 1, 2]", [3, 1, 2]),
        ("a.txt", "cat 1\nape\t0\n", {"cat": 1, "ape": 0}),
        ("a.csv", "deep/a, b.png,1\n", {"deep/a, b.png": 1}),
        ("a.json", '{"cat": 1}', {"cat": 1}),
        ("A.JSON", "[3, 1, 2]", [3, 1, 2]),
    ],
)
def test_files_of_labels(tmp_path: Path, name: str, text: str, expected: Any) -> None:
    (tmp_path / name).write_text(text)
    found = read_labels(tmp_path / name)
    assert (found if isinstance(found, dict) else found.tolist()) == expected


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.txt", "name,label\ncat,1", "line 1 ends in no class number: 'name,label'"),
        ("a.txt", "cat 1\n2", "some lines have a name"),
        ("a.json", "[1, 2.5]", "neither a list"),
        ("a.json", "{", "not JSON"),
        ("a.npy", "hello", "not "),
    ],
)
def test_bad_files_of_labels(tmp_path: Path, name: str, text: str, match: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=match):
        read_labels(tmp_path / name)


def test_labels_by_class_folder_or_file(tree: Path) -> None:
    mapping = tree.parent / f"{tree.name}.txt"
    for text, expected in (
        ("cat 0\nape 7", [7, 0, 0]),
        ("z.png 5\ncat/b.png 6\na 7", [5, 6, 7]),
    ):
        mapping.write_text(text)
        samples = load_data(tree, [SPEC], preprocessing=SCALE, labels=mapping)
        assert samples.labels is not None
        assert samples.labels.tolist() == expected
    mapping.write_text("cat 0")
    refused("z.png: has no number in --labels", tree, preprocessing=SCALE, labels=mapping)


def test_flat_images_have_labels_in_order_or_none(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_image(tmp_path / name)
    assert load_data(tmp_path, [SPEC], preprocessing=SCALE).labels is None
    samples = load_data(tmp_path, [SPEC], preprocessing=SCALE, labels=np.array([4, 2]))
    assert samples.labels is not None
    assert samples.labels.tolist() == [4, 2]


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    source = {"x": floats()}
    refused("6 labels for 7 samples", source, labels=np.arange(6))
    refused("not class numbers", source, labels=np.arange(7) / 2)
    refused("holds labels already", {**source, "y": np.arange(7)}, labels=np.arange(7))
    (tmp_path / "named.json").write_text(json.dumps({"cat": 1}))
    refused("--labels has names", source, labels=tmp_path / "named.json")


# --- lazy arrays ----------------------------------------------------------------------------------


def test_a_lazy_array_is_sliced_like_an_array() -> None:
    x = floats()
    lazy = LazyArray(x.shape, x.dtype, lambda start, stop: x[start:stop])
    for rows in (slice(None), slice(2, 4), slice(-2, None), slice(5, 100), slice(4, 2)):
        np.testing.assert_array_equal(lazy[rows], x[rows])
    np.testing.assert_array_equal(np.asarray(lazy), x)
    assert np.asarray(lazy, np.float64).dtype == np.float64
    with pytest.raises(IndexError, match="consecutive"):
        lazy[::2]


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--resize 0", "--resize 0: one number of pixels is needed, or height,width"),
        ("--crop 1,2,3", "--crop 1,2,3: one number of pixels"),
        ("--labels none.npy", "none.npy: no such file"),
        ("--data folder", "folder: is a folder with nothing in it"),
    ],
)
def test_options(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(b"content")
    Path("folder").mkdir()
    assert cli._run(["model.onnx", *line.split()]) == 2
    assert message in capsys.readouterr().err


def test_an_archive_written_elsewhere_is_read(tmp_path: Path) -> None:
    """Shards made by other tools have no `labels` and a version 2 header."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, pixels(), version=(2, 0))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", buffer.getvalue())
    samples = load_data(tmp_path, [SPEC], preprocessing=SCALE)
    np.testing.assert_array_equal(rows(samples), pixels() / 2)
    assert samples.labels is None
