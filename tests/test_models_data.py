"""Data sets: the official archives in both versions, image trees, packs, and augmentation."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from na_convert.models.archives import load_cifar, load_plain_pickle
from na_convert.models.data import Augmentation, ImageSet, augment, load, load_jpeg_pack
from PIL import Image

from na_convert.errors import DataError

_RANDOM = np.random.default_rng(0)
_IMAGES = _RANDOM.integers(0, 256, (4, 3, 32, 32), np.uint8)
_LABELS = [3, 1, 9, 0]


def binary_batch(kind: str) -> bytes:
    coarse = b"\x07" if kind == "cifar100" else b""
    rows = zip(_LABELS, _IMAGES, strict=True)
    return b"".join(coarse + bytes([label]) + image.tobytes() for label, image in rows)


def python_batch(kind: str) -> bytes:
    key = b"labels" if kind == "cifar10" else b"fine_labels"
    return pickle.dumps({b"data": _IMAGES.reshape(4, -1), key: _LABELS}, protocol=2)


def members(kind: str, version: str) -> dict[str, bytes]:
    content = binary_batch(kind) if version == "binary" else python_batch(kind)
    ending = ".bin" if version == "binary" else ""
    if kind == "cifar100":
        folder = f"cifar-100-{version}"
        names = [f"train{ending}", f"test{ending}"]
    else:
        folder = "cifar-10-batches-bin" if version == "binary" else "cifar-10-batches-py"
        names = [f"{n}{ending}" for n in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]]
    return {f"{folder}/{name}": content for name in names}


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
@pytest.mark.parametrize("version", ["binary", "python"])
@pytest.mark.parametrize("form", ["archive", "folder of the archive", "unpacked"])
def test_cifar(kind: str, version: str, form: str, tmp_path: Path) -> None:
    files = members(kind, version)
    if form == "unpacked":
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
        path = tmp_path
    else:
        archive = write_tar(tmp_path / f"cifar-{version}.tar.gz", files)
        path = archive if form == "archive" else tmp_path
    (images, labels), (test_images, test_labels) = load_cifar(kind, path)
    assert len(images) == (20 if kind == "cifar10" else 4)
    np.testing.assert_array_equal(images[:4], _IMAGES)
    np.testing.assert_array_equal(labels[:4], _LABELS)
    np.testing.assert_array_equal(test_images, _IMAGES)
    np.testing.assert_array_equal(test_labels, _LABELS)


class _Evil:
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return os.system, ("echo a pickle ran this",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("content", [_Evil(), {b"data": _Evil()}, np.array([_Evil()], object)])
def test_a_pickle_runs_nothing(content: object, protocol: int, capfd) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError):
        load_plain_pickle(pickle.dumps(content, protocol))
    assert "ran" not in capfd.readouterr().out


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["u1", ">i4", "f8"])
def test_plain_pickles_are_read(protocol: int, dtype: str) -> None:
    array = np.asfortranarray(np.arange(12).reshape(3, 4).astype(dtype))
    read = load_plain_pickle(pickle.dumps({b"data": array, b"labels": [1, 2]}, protocol))
    np.testing.assert_array_equal(np.asarray(read[b"data"]), array)
    assert read[b"labels"] == [1, 2]


def test_an_archive_is_never_unpacked(tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    files = {"../outside.bin": b"x", "/abs.bin": b"x", **members("cifar10", "binary")}
    load_cifar("cifar10", write_tar(folder / "cifar-10.tar.gz", files))
    assert [p.name for p in tmp_path.rglob("*")] == ["inside", "cifar-10.tar.gz"]


def test_bad_archives_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither the binary nor the python"):
        load_cifar("cifar10", tmp_path)
    partial = dict(list(members("cifar10", "binary").items())[:3])
    with pytest.raises(DataError, match=r"lacks data_batch_4\.bin"):
        load_cifar("cifar10", write_tar(tmp_path / "cifar-a.tar.gz", partial))
    short = {name: content[:-1] for name, content in members("cifar10", "binary").items()}
    with pytest.raises(DataError, match="no whole number"):
        load_cifar("cifar10", write_tar(tmp_path / "b.tar.gz", short))
    broken = tmp_path / "c.tar.gz"
    broken.write_bytes(b"no tar")
    with pytest.raises(DataError, match="not a readable tar"):
        load_cifar("cifar10", broken)


def test_jpeg_pack(tmp_path: Path) -> None:
    files = []
    for grey in (0, 100, 200):
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (grey, grey, grey)).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    path = tmp_path / "pack.npz"
    np.savez(
        path,
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        labels=[5, 6, 7],
        split=[0, 1, 0],
    )
    training, test = load_jpeg_pack(path)
    assert load("cifar10", path.rename(tmp_path / "PACK.NPZ")).test.labels.tolist() == [6]
    assert training.labels.tolist() == [5, 7]
    assert test.labels.tolist() == [6]
    assert test.images.shape == (1, 3, 32, 32)
    assert int(test.images[0, 0, 0, 0]) == pytest.approx(100, abs=2)
    np.savez(path, jpeg=np.zeros(1, np.uint8))
    with pytest.raises(DataError, match="not a JPEG pack"):
        load_jpeg_pack(path)


def test_image_folder(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (300, 260), (100 * label, 0, 0)).save(folder / f"{i}.png")
    data = load("image_folder", tmp_path)
    assert (data.classes, data.shape, len(data.training), len(data.test)) == (
        2,
        (3, 224, 224),
        6,
        4,
    )
    images, labels = data.test.batch(torch.arange(4))
    assert labels.tolist() == [0, 0, 1, 1]
    assert images[3, 0].unique().tolist() == [100]
    indices = torch.tensor([5, 0, 3])
    whole, all_labels = data.training.training_batch(indices, 1, Augmentation(), slice(None))
    part, labels = data.training.training_batch(indices, 1, Augmentation(), slice(1, 3))
    assert torch.equal(whole[1:], part)
    assert all_labels.tolist() == [1, 0, 1]
    assert labels.tolist() == [0, 1]


def test_image_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class folders"):
        load("image_folder", tmp_path)
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "val" / "cow").mkdir(parents=True)
    with pytest.raises(DataError, match="'cow' is not in train"):
        load("image_folder", tmp_path)


def test_a_shift_shows_a_part_of_the_padded_image_and_a_flip_mirrors_it() -> None:
    image = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5)
    seen = augment(image.expand(500, 1, 5, 5), 0, Augmentation(padding=1, flip=True))
    padded = torch.nn.functional.pad(image, [1] * 4)[0, 0]
    crops = [padded[r : r + 5, c : c + 5] for r in range(3) for c in range(3)]
    allowed = {tuple(x.flatten().tolist()) for crop in crops for x in (crop, crop.flip(1))}
    assert {tuple(x.flatten().tolist()) for x in seen} == allowed


def test_a_part_of_a_batch_is_augmented_as_in_the_whole() -> None:
    data = ImageSet(torch.from_numpy(_IMAGES), torch.tensor(_LABELS))
    indices = torch.tensor([2, 0, 3, 1])
    whole, _ = data.training_batch(indices, 7, Augmentation())
    part, labels = data.training_batch(indices, 7, Augmentation(), slice(2, 4))
    assert torch.equal(whole[2:], part)
    assert labels.tolist() == [0, 1]


def test_digits() -> None:
    pytest.importorskip("sklearn")
    data = load("digits", None)
    assert (len(data.training), len(data.test), data.shape) == (1437, 360, (1, 8, 8))


@pytest.mark.parametrize(
    ("kind", "path"), [("cifar10", None), ("cifar10", "no-such-folder"), ("faces", ".")]
)
def test_missing_data_is_named(kind: str, path: str | None) -> None:
    with pytest.raises(DataError):
        load(kind, Path(path) if path else None)
