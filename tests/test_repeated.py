"""Tensors of one number, repeated, are followed as that number."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from na_convert.passes.walk_shapes import Trial, walk

import na_convert

from . import build

LARGE = "s = Shape (x)\nf = Expand (three, s)\n"


def followed(body: str, tensor: str) -> np.ndarray | None:
    """The number that ``tensor`` is known to repeat, of images too large to be followed."""
    weights = {
        "three": np.asarray([3], np.int64), "two": np.asarray(2, np.int64), "real": 2.0,
        "last": np.asarray([-1], np.int64), "table": np.asarray([0.1, 0.2, 0.3, 0.4], np.float32),
        "rows": np.full((4, 3), 2.0, np.float32), "mixed": np.arange(5, dtype=np.int64),
    }  # fmt: skip
    graph, _ = build.graph(body + "y = Identity (x)\n", weights, inputs="float[N,3,64,64] x")
    trial = Trial(batch=2)
    found: dict[str, np.ndarray | None] = {}
    walk(
        graph,
        [trial],
        after=lambda node: found.update({t.name: trial.number(t) for t in node.outputs}),
    )
    return found.get(tensor)


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("g = Unsqueeze (f, last)", 3),
        ("g = Add (f, two)", 5),
        ("g = Less (f, two)", False),
        ("c = Cast <to: int = 1> (f)\ng = Mul (c, real)", 6),
        ("g = Gather (table, f)", 0.4),
        ("u = Unsqueeze (f, last)\ng = GatherND (table, u)", 0.4),
        ("g = ConstantOfShape (s)", 0),
    ],
)
def test_what_is_computed_of_one_number(line: str, number: float) -> None:
    found = followed(LARGE + line + "\n", "g")
    assert found is not None
    assert found.shape == ()
    assert found == np.asarray(number, found.dtype)


@pytest.mark.parametrize(
    "line",
    [
        "g = Greater (x, real)",
        "g = Expand (mixed, s)",
        "i = Add (f, two)\ng = Gather (table, i)",  # beyond the table
        "g = Gather (rows, f)",
    ],
)
def test_what_is_not(line: str) -> None:
    assert followed(LARGE + line + "\n", "g") is None


class Bucketize(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 16, 3)
        self.edges = torch.nn.Buffer((torch.arange(7) + 0.5) * 0.2)
        self.out = torch.nn.Conv2d(16, 5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = torch.bucketize(self.conv(x), self.edges, right=True)
        return self.out(levels * 0.2).mean(dim=(2, 3))


@pytest.mark.parametrize("free", [True, False], ids=["any-batch", "fixed-batch"])
def test_bucketize_by_torch_export(tmp_path: Path, free: bool) -> None:
    """A binary search in the table of edges; more pixels than are followed in full."""
    path, batch = tmp_path / "model.onnx", torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Bucketize().eval(), (torch.randn(2, 3, 16, 16),), path, dynamo=True, verbose=False,
            dynamic_shapes=({0: batch},) if free else None,
        )  # fmt: skip
    assert any(node.op_type == "GatherND" for node in onnx.load(path).graph.node)
    result = na_convert.convert(path)
    assert [neuron.levels for neuron in result.neurons] == [7]
