"""Real exports in the forms that are not the default; each of these files once showed a defect."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from na_convert import api
from na_convert.errors import NotConvertible
from na_convert.results import Result

CORPUS = Path(__file__).parent / "corpus.tar.xz"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    with tarfile.open(CORPUS) as archive:
        archive.extractall(folder, filter="data")
    return folder


def converted(files: Path, name: str, tmp_path: Path, **options: object) -> Result:
    (model,), (data,) = (list(files.rglob(f"{name}.{kind}")) for kind in ("onnx", "npz"))
    return api.convert(model, output=tmp_path / "out.onnx", data=data, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    [
        "inquant_resnet_legacy",  # a ReLU that stays analog reads what a neuron reads, rescaled
        "tcl_vgg_legacy",  # a constant minus the data
    ],
)
def test_on_grids(files: Path, name: str, tmp_path: Path) -> None:
    result = converted(files, name, tmp_path, exact=True)
    assert result.exactness is not None
    assert result.exactness.exact
    assert result.passed


@pytest.mark.parametrize("tie", ["always", "never"])
def test_counts_without_weights_and_with_a_bias(files: Path, tie: str, tmp_path: Path) -> None:
    """Tied, the spikes are worth one threshold each: the bias still needs a finer unit."""
    name = "brevitas_qonnx_resnet_legacy"
    result = converted(files, name, tmp_path, weights="int8", tie_shortcuts=tie)
    assert result.passed


@pytest.mark.parametrize("name", ["lsq_vgg_half_dynamo", "lsq_vgg_double_legacy"])
def test_other_float_types_have_no_int8_form(files: Path, name: str, tmp_path: Path) -> None:
    with pytest.raises(NotConvertible, match=r"computes in float\d\d; for int8"):
        converted(files, name, tmp_path, weights="int8")


@pytest.mark.parametrize(
    "name",
    [
        "relu6_mobilev2_legacy",  # linear bottlenecks, the last one read out
        "fastsnn_ae_dynamo",  # ConvTranspose
        "ortq_qdq_u8_resnet_asym",  # a mean over more counts than a uint8 holds
    ],
)
def test_linear_operators_in_a_row_in_integers(files: Path, name: str, tmp_path: Path) -> None:
    assert converted(files, name, tmp_path, weights="int8", tie_shortcuts="never").passed


def test_an_analog_current_beside_others_has_no_int8_form(files: Path, tmp_path: Path) -> None:
    with pytest.raises(NotConvertible) as raised:
        converted(files, "lsqfunc_dense_legacy", tmp_path, weights="int8")
    assert "holds an analog one" in raised.value.refused[0].reason
