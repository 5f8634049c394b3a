"""Files of more nodes than na-convert reads are refused before they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import na_convert
from na_convert import model_guard, model_io, node_limit
from na_convert.errors import UsageError

from . import build


@pytest.fixture
def ann(tmp_path: Path) -> Path:
    path = tmp_path / "ann.onnx"
    path.write_bytes(build.low_bit_ann().SerializeToString())
    return path


def convert(ann: Path, timesteps: int, **options: object) -> int:
    """Nodes of the file that is written."""
    to = ann.with_name("snn.onnx")
    na_convert.convert(ann, output=to, timesteps=timesteps, check=False, **options)  # type: ignore[arg-type]
    return model_guard.count_nodes(model_io.load(to).model)


@pytest.mark.parametrize("exact", [True, False])
def test_the_most_time_steps_that_are_read_are_named(
    ann: Path, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    monkeypatch.setattr(node_limit, "MOST_NODES", 500)
    with pytest.raises(UsageError, match="at most 500") as caught:
        convert(ann, 1000, form="unrolled", exact=exact)
    assert not ann.with_name("snn.onnx").exists()
    named = re.search(r"-T (\d+) at most", str(caught.value))
    assert named is not None
    assert convert(ann, int(named[1]), form="unrolled", exact=exact) <= 500
    with pytest.raises(UsageError, match=rf"unrolled at T = {int(named[1]) + 1} would have"):
        convert(ann, int(named[1]) + 1, form="unrolled", exact=exact)


@pytest.mark.parametrize("options", [{}, {"weights": "int8"}])
def test_few_steps_of_a_large_network(
    ann: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    monkeypatch.setattr(node_limit, "MOST_NODES", 20)
    with pytest.raises(UsageError, match=r"--form unrolled at T = 4 .*: fewer time steps, or"):
        convert(ann, 4, form="unrolled", **options)
    assert not ann.with_name("snn.onnx").exists()


@pytest.mark.parametrize("form", ["folded", "step"])
def test_other_forms_do_not_blame_the_time_steps(
    ann: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(node_limit, "MOST_NODES", 30)
    with pytest.raises(UsageError, match=f"--form {form} .*: the network has too many layers"):
        convert(ann, 4, form=form)
    assert not ann.with_name("snn.onnx").exists()


@pytest.mark.parametrize("form", ["folded", "step"])
def test_other_forms_hold_any_number_of_time_steps(ann: Path, form: str) -> None:
    assert convert(ann, 10_000, form=form) < 100
    with pytest.raises(UsageError, match="at most 10000 time steps"):
        convert(ann, 10_001, form=form)
