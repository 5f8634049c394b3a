from pathlib import Path
from typing import Any

import numpy as np
import pytest

from na_convert.data import InputSpec, Preprocessing, load_data, random_data
from na_convert.errors import DataError

IMAGES = InputSpec("pixels", (None, 3, 4, 5), np.dtype(np.float32))
METADATA = {
    "na_convert.scale": "0.5",
    "na_convert.mean": "[1, 2, 3]",
    "na_convert.std": "[1, 2, 4]",
}


def images(count: int = 6) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((count, 3, 4, 5)).astype(np.float32)


def pixels(count: int = 6) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 4, 5), np.uint8)


def refused(match: str, source: Any, inputs: list[InputSpec] | None = None, **options: Any) -> None:
    with pytest.raises(DataError, match=match) as caught:
        load_data(source, inputs or [IMAGES], **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["pixels", "x"])
def test_inputs_by_their_name_or_x(tmp_path: Path, name: str) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **{name: images(), "labels": np.arange(6, dtype=np.uint8)})
    samples = load_data(path, [IMAGES])
    np.testing.assert_array_equal(samples.feeds["pixels"], images())
    assert samples.labels is not None
    assert samples.labels.dtype == np.int64
    assert samples.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert samples.description == str(path)
    assert len(samples) == 6


def test_mapping_and_several_inputs() -> None:
    other = InputSpec("size", (None, 2), np.dtype(np.int64))
    source = {"pixels": images(), "size": np.ones((6, 2), np.int32), "y": np.arange(6)}
    samples = load_data(source, [IMAGES, other])
    assert samples.feeds["size"].dtype == np.int64
    assert samples.labels is not None
    refused("no array named 'size' ", {"pixels": images(), "x": images()}, [IMAGES, other])
    source["size"] = np.ones((5, 2), np.int64)
    refused(r"number of samples \(pixels 6, size 5\)", source, [IMAGES, other])


def test_floats_take_the_dtype_of_the_input() -> None:
    half = InputSpec("pixels", IMAGES.shape, np.dtype(np.float16))
    assert load_data({"x": images().astype(np.float64)}, [half]).feeds["pixels"].dtype == np.float16


def test_pixels_become_floats_by_metadata() -> None:
    samples = load_data({"x": pixels()}, [IMAGES], METADATA)
    mean, std = np.array([1, 2, 3.0]).reshape(3, 1, 1), np.array([1, 2, 4.0]).reshape(3, 1, 1)
    np.testing.assert_allclose(samples.feeds["pixels"], (pixels() * 0.5 - mean) / std, rtol=1e-6)
    assert samples.feeds["pixels"].dtype == np.float32
    assert samples.notes == (
        "data: x: uint8 pixels made (x * 0.5 - [1, 2, 3]) / [1, 2, 4] (by the model's metadata)",
    )


def test_options_come_before_metadata() -> None:
    given = Preprocessing(scale=(0.25,))
    samples = load_data({"x": pixels()}, [IMAGES], METADATA, given)
    assert "x * 0.25 - [1, 2, 3]" in samples.notes[0]
    assert "(by the options and the model's metadata)" in samples.notes[0]
    samples = load_data({"x": pixels()}, [IMAGES], {}, given)
    np.testing.assert_array_equal(samples.feeds["pixels"], pixels() / 4)
    assert "(by the options)" in samples.notes[0]


def test_floats_change_only_when_asked() -> None:
    samples = load_data({"x": images()}, [IMAGES], METADATA)
    np.testing.assert_array_equal(samples.feeds["pixels"], images())
    assert samples.notes == ()
    samples = load_data({"x": images()}, [IMAGES], METADATA, Preprocessing(scale=(2.0,)))
    np.testing.assert_array_equal(samples.feeds["pixels"], 2 * images())
    assert len(samples.notes) == 1


def test_uint8_inputs_get_uint8() -> None:
    raw = InputSpec("pixels", IMAGES.shape, np.dtype(np.uint8))
    np.testing.assert_array_equal(load_data({"x": pixels()}, [raw]).feeds["pixels"], pixels())
    refused("do not apply", {"x": pixels()}, [raw], preprocessing=Preprocessing(scale=(2.0,)))


def test_pixels_without_a_rule_are_refused() -> None:
    refused("uint8 pixels, and the model does not say.*--scale", {"x": pixels()})


@pytest.mark.parametrize(
    ("preprocessing", "metadata", "match"),
    [
        (Preprocessing(mean=(1.0, 2.0)), {}, "--mean has 2 values for 3 channels"),
        (Preprocessing(std=(0.0,)), {}, "--std holds a zero"),
        (None, {"na_convert.mean": "none"}, "metadata na_convert.mean is no number.*--mean"),
        (None, {"na_convert.scale": '{"a": 1}'}, "metadata na_convert.scale"),
    ],
)
def test_bad_preprocessing(
    preprocessing: Preprocessing | None, metadata: dict[str, str], match: str
) -> None:
    refused(match, {"x": pixels()}, metadata=metadata, preprocessing=preprocessing)


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (images().transpose(0, 2, 3, 1), r"channels come last: store x.transpose\(0, 3, 1, 2\)"),
        (images()[0], r"add the batch axis: x\[None\]"),
        (images()[:, :, 0], r"has shape \[6, 3, 5\], the model wants \[N, 3, 4, 5\]"),
        (images()[:, :2], r"has shape \[6, 2, 4, 5\], the model wants \[N, 3, 4, 5\]"),
        (images()[:0], "no samples"),
        (images().astype(np.int64), "holds int64, the model wants float32"),
        (images().astype(np.complex64), "holds complex64"),
        (np.where(images() > 2, np.nan, images()), "are not finite"),
        (images().astype(np.float64) * 1e300, "are not finite as float32"),
        (np.full((6, 3, 4, 5), "a"), "holds <U1"),
    ],
)
def test_arrays_that_do_not_fit(array: Any, match: str) -> None:
    refused(match, {"x": array})


def test_free_dimensions_take_any_size() -> None:
    free = InputSpec("pixels", (None, 3, None, None), np.dtype(np.float32))
    assert load_data({"x": images()}, [free]).feeds["pixels"].shape == (6, 3, 4, 5)
    refused("channels come last", {"x": images().transpose(0, 2, 3, 1)}, [free])


def test_integers_out_of_range() -> None:
    small = InputSpec("size", (None,), np.dtype(np.int8))
    refused("holds int64, the model wants int8", {"x": np.array([1000])}, [small])


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.arange(5), "5 labels for 6 samples"),
        (np.eye(6), r"labels has shape \[6, 6\].*argmax"),
        (np.arange(6) - 1, "not class numbers"),
        (np.arange(6) / 2, "not class numbers"),
        (np.array(list("abcdef")), "not class numbers"),
    ],
)
def test_bad_labels(labels: Any, match: str) -> None:
    refused(match, {"x": images(), "labels": labels})


def test_y_may_be_the_output_of_a_network() -> None:
    samples = load_data({"x": images(), "y": np.eye(6), "more": np.ones(1)}, [IMAGES])
    assert samples.labels is None
    assert samples.notes == (
        "data: y holds float64 [6, 6], no class labels",
        "data: not used: more",
    )


def test_an_input_called_y_is_no_label() -> None:
    spec = InputSpec("y", (None,), np.dtype(np.int64))
    assert load_data({"y": np.arange(6)}, [spec]).labels is None


def test_missing_array_lists_what_there_is() -> None:
    refused(r"no array named 'pixels' or 'x' \(found: a, b\)", {"b": images(), "a": images()})
    refused(r"\(found: nothing\)", {})


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    refused("no such file", tmp_path / "none.npz")
    refused("is a folder", tmp_path)
    text = tmp_path / "text.npz"
    text.write_text("hello")
    refused("not ", text)
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, images())
    refused("a single array", tmp_path / "one.npz")
    np.savez(tmp_path / "objects.npz", x=np.array([{}, None], object))
    refused("plain numbers", tmp_path / "objects.npz")
    np.savez(tmp_path / "cut.npz", x=images())
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    refused("not a readable", tmp_path / "cut.npz")
    (tmp_path / "empty.npz").write_bytes(b"")
    refused("not a readable", tmp_path / "empty.npz")
    damaged = bytearray(whole)
    damaged[200] ^= 255
    (tmp_path / "damaged.npz").write_bytes(damaged)
    refused("not a readable", tmp_path / "damaged.npz")


def test_random_data_is_seeded_and_says_so() -> None:
    first, again = (random_data([IMAGES], seed=3, count=5) for _ in range(2))
    assert first.feeds["pixels"].shape == (5, 3, 4, 5)
    assert first.feeds["pixels"].dtype == np.float32
    np.testing.assert_array_equal(first.feeds["pixels"], again.feeds["pixels"])
    assert (first.feeds["pixels"] != random_data([IMAGES], 4, 5).feeds["pixels"]).any()
    assert first.labels is None
    assert "seed 3" in first.description
    assert "random input" in first.notes[0]


def test_random_data_of_pixels() -> None:
    raw = InputSpec("pixels", IMAGES.shape, np.dtype(np.uint8))
    assert random_data([raw]).feeds["pixels"].max() > 128


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        (InputSpec("x", (None, 3, None, None), np.dtype(np.float32)), r"\[\?, 3, \?, \?\].*--data"),
        (InputSpec("ids", (None, 8), np.dtype(np.int64)), "'ids' holds int64.*--data"),
    ],
)
def test_random_data_does_not_guess(spec: InputSpec, match: str) -> None:
    with pytest.raises(DataError, match=match):
        random_data([spec])
