"""What a NIR file cannot hold between layers: the node is named, with the reason and the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from na_convert.errors import NotConvertible
from na_convert.nir_file.lowering import lower

from . import build, spiking

LEFT, NEAR = "keep it behind the network's last linear layer", "train it without padding"
REFUSED: dict[str, tuple[str, str, str]] = {
    "a convolution over three axes": (
        "r = Reshape (a1, cube)\nc2 = Conv (r, w3d)", "Conv", "over 3 axes: NIR has those over one",
    ),
    "weights that are computed": (
        "k = Neg (w2)\nc2 = Conv (a1, k)", "Conv", "its weights are computed: export with constant",
    ),
    "a bias that is computed": (
        "k = Neg (b1)\nc2 = Conv (a1, w2, k)", "Conv", "its bias is computed: export with constant",
    ),
    "a matrix from the left": ("c2 = MatMul (square, a1)", "MatMul", f"or from the left: {LEFT}"),
    "a matrix on every row of pixels": (
        "c2 = MatMul (a1, square)", "MatMul", "on tensors of 3 axes; NIR's Affine is for vectors",
    ),
    "an average with padding": (
        "c2 = AveragePool <kernel_shape: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (a1)",
        "AveragePool", f"with padding or part of a window at the border: {NEAR}",
    ),
    "an average with part of a window": (
        "c2 = AveragePool <kernel_shape: ints = [3, 3], strides: ints = [2, 2], "
        "ceil_mode: int = 1> (a1)",
        "AveragePool", f"with padding or part of a window at the border: {NEAR}",
    ),
    "an average with dilations": (
        "c2 = AveragePool <kernel_shape: ints = [2, 2], dilations: ints = [2, 2]> (a1)",
        "AveragePool", "an average pool with dilations: train it as a dilated convolution",
    ),
    "a mean over channels": (
        "all = ReduceMean <axes: ints = [1]> (a1)\nc2 = Conv (all, one_in)",
        "ReduceMean", "works along the axes [1]; NIR sums over the pixels of a channel",
    ),
    "a mean along rows of other pixels": (
        "r = Reshape (a1, flat)\nc2 = ReduceMean <axes: ints = [2]> (r)",
        "ReduceMean", "pixels that were put into another shape: average over all pixels",
    ),
    "a sum of a tensor and a pixel": (
        "pixel = GlobalAveragePool (a1)\nc2 = Add (a1, pixel)",
        "Add", "adds tensors of different shapes: write both in full",
    ),
    "rows of two layers": (
        "c2 = Concat <axis: int = 2> (a1, a1)", "Concat", "a Concat along pixels: concatenate chan",
    ),
    "a factor for every pixel": (
        "c2 = Mul (a1, square)", "Mul", "works with a constant 'square' of shape [1, 1, 8, 8]: NIR",
    ),
    "another operator": (
        'c2 = Resize <mode = "linear"> (a1, , twice)', "Resize", "NIR has no counterpart of Resize",
    ),
}  # fmt: skip
WEIGHTS: dict[str, Any] = {
    **spiking.SHAPES, "cube": np.array([0, 4, 4, 4, 4]), "w3d": (4, 4, 2, 2, 2), "square": (8, 8),
    "one_in": (4, 1, 3, 3), "flat": np.array([0, 4, 16, 4]),
    "twice": np.array([1, 1, 2, 2], np.float32),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_each_refusal_says_which_node_and_what_to_do(case: str) -> None:
    between, op, message = REFUSED[case]
    body = (
        f"c1 = Conv {spiking.CONV} (x, w1, b1)\n" + build.stair("c1", "a1", levels=1) + between
        + "\n" + build.stair("c2", "last", levels=1) + spiking.HEAD
    )  # fmt: skip
    used = {k: v for k, v in WEIGHTS.items() if k in body}
    snn = spiking.network(body, {**used, "step": 1.0}, opset=19)  # spikes of 1: none to rescale
    with pytest.raises(NotConvertible) as error:
        lower(snn, spiking.samples(snn, 2))
    (refusal,) = error.value.refused
    assert refusal.op == op
    assert message in f"{refusal.reason}: {refusal.remedy}"
    assert refusal.node.startswith(op)
