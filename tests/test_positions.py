"""Where an operator stands decides what it may be: docs/operators.md."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from na_convert.passes.strip_noise import RANDOM_OPS

import na_convert
from na_convert.errors import NotConvertible

from . import build

# "{...}" are places: before the first weights, before the first neurons, between neurons, between
# the last neurons and the last weights but one, between those, and behind the last.
BODY = (
    "{input}c = Conv <pads: ints = [1,1,1,1]> (input, w1)\n{stem}" + build.quantised("stem", "a")
    + "{between}d = Conv <pads: ints = [1,1,1,1]> (between, w2)\n" + build.quantised("d", "b")
    + "m = GlobalAveragePool (b)\nf = Flatten (m)\n{readout}g = Gemm (readout, v)\n"
    "{weights}h = Gemm (weights, u)\n{last}y = Identity (last)\n"
)  # fmt: skip
PLACES = {
    "input": "x", "stem": "c", "between": "a", "readout": "f", "weights": "g", "last": "h",
}  # fmt: skip
WEIGHTS = {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "v": (4, 6), "u": (6, 5), **build.PLAIN}
ANALOG = ("input", "readout", "last")
RANDOM = {
    "RandomNormalLike": "{out}_r = RandomNormalLike <mean: float = 1.0> ({x})\n",
    "RandomUniformLike": "{out}_r = RandomUniformLike ({x})\n",
    "RandomNormal": "{out}_r = RandomNormal <mean: float = 1.0, shape: ints = [1]> ()\n",
    "RandomUniform": "{out}_r = RandomUniform <shape: ints = [1]> ()\n",
    "Bernoulli": "{out}_s = Sigmoid ({x})\n{out}_r = Bernoulli ({out}_s)\n",
    "Multinomial": "{out}_i = Multinomial <sample_size: int = 5> ({x})\n"
    "{out}_r = Cast <to: int = 1> ({out}_i)\n",
}
ADDED = "{out} = Add ({x}, {out}_r)\n"


def convert(folder: Path, place: str, nodes: str, readout_from: str | None = None) -> None:
    """Convert the network with ``nodes`` at ``place``, which make {out} of {x}."""
    texts = {
        name: (nodes if name == place else "{out} = Identity ({x})\n").format(x=before, out=name)
        for name, before in PLACES.items()
    }
    onnx.save(build.model(BODY.format(**texts), WEIGHTS), folder / "ann.onnx")
    na_convert.convert(folder / "ann.onnx", check=False, readout_from=readout_from)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("op", ["Softmax", "Mul"])
def test_what_is_not_linear_stands_outside_weights_and_behind_neurons(
    place: str, op: str, tmp_path: Path
) -> None:
    nodes = {"Softmax": "{out} = Softmax ({x})\n", "Mul": "{out} = Mul ({x}, {x})\n"}[op]
    if place in ANALOG:
        convert(tmp_path, place, nodes)
        return
    with pytest.raises(NotConvertible) as refused:
        convert(tmp_path, place, nodes)
    assert [r.op for r in refused.value.refused] == [op]


def test_behind_the_named_readout_it_may_stand_between_weights(tmp_path: Path) -> None:
    convert(tmp_path, "weights", "{out} = Softmax ({x})\n", readout_from="g")


@pytest.mark.parametrize("op", RANDOM)
def test_random_values_are_refused_wherever_they_stand(op: str, tmp_path: Path) -> None:
    assert set(RANDOM) == set(RANDOM_OPS)
    for place in PLACES if op != "Multinomial" else ("last",):
        with pytest.raises(NotConvertible) as refused:
            convert(tmp_path, place, RANDOM[op] + ADDED)
        assert op in [r.op for r in refused.value.refused], place


def test_random_values_are_refused_behind_the_named_readout(tmp_path: Path) -> None:
    with pytest.raises(NotConvertible) as refused:
        convert(tmp_path, "last", RANDOM["Bernoulli"] + ADDED, readout_from="g")
    assert [r.op for r in refused.value.refused] == ["Bernoulli"]
