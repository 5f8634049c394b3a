"""Small NIR graphs with weights on a grid of 1/16, of nodes from nir or of stand-ins for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import build


def _stand_in(name: str) -> type[SimpleNamespace]:
    """A class of nodes with the name, and nothing else, of that in nir."""
    return type(name, (SimpleNamespace,), {})


@dataclass
class NIRGraph:
    nodes: dict[str, Any]
    edges: list[tuple[str, str]]
    metadata: dict[str, Any] = field(default_factory=dict)
    type_check: bool = False


_KINDS = ["Input", "Output", "Conv1d", "Conv2d", "Affine", "SumPool2d", "Flatten", "IF", "Scale"]
METADATA = {"timesteps": 4, "input": "x"}
STAND_IN = SimpleNamespace(NIRGraph=NIRGraph, **{kind: _stand_in(kind) for kind in _KINDS})


def residual(nir: Any = STAND_IN, *, initial: float = 0.5, seed: int = 0) -> Any:
    """Three neuron layers of 4x6x6, a shortcut with a convolution into the third, sum pool,
    readout; input [2, 6, 6], output [5]."""
    rng = np.random.default_rng(seed)
    nodes = {
        "input": nir.Input(input_type={"input": np.array([2, 6, 6])}),
        "conv1": conv(nir, rng, 4, 2, 3),
        "n1": neurons(nir, (4, 6, 6), initial),
        "conv2": conv(nir, rng, 4, 4, 3),
        "n2": neurons(nir, (4, 6, 6), initial),
        "conv3": conv(nir, rng, 4, 4, 3),
        "shortcut": conv(nir, rng, 4, 4, 1),
        "n3": neurons(nir, (4, 6, 6), initial),
        "pool": nir.SumPool2d(
            kernel_size=np.array([6, 6]), stride=np.array([6, 6]), padding=np.array([0, 0])
        ),
        "flatten": flatten(nir, (4, 1, 1)),
        "readout": affine(nir, rng, 5, 4),
        "output": nir.Output(output_type={"output": np.array([5])}),
    }
    main = ["input", "conv1", "n1", "conv2", "n2", "conv3", "n3", "pool", "flatten", "readout"]
    edges = [*chain(*main, "output"), ("n1", "shortcut"), ("shortcut", "n3")]
    return nir.NIRGraph(nodes, edges, metadata=METADATA.copy(), type_check=False)


def layered(nir: Any = STAND_IN, *, initial: float = 0.5, seed: int = 0) -> Any:
    """Two neuron layers of 12 and 8 and a readout of 3; input [6]."""
    rng = np.random.default_rng(seed)
    nodes = {
        "input": nir.Input(input_type={"input": np.array([6])}),
        "first": affine(nir, rng, 12, 6),
        "n1": neurons(nir, (12,), initial),
        "second": affine(nir, rng, 8, 12),
        "n2": neurons(nir, (8,), initial),
        "readout": affine(nir, rng, 3, 8),
        "output": nir.Output(output_type={"output": np.array([3])}),
    }
    return nir.NIRGraph(nodes, chain(*nodes), metadata=METADATA.copy(), type_check=False)


def images(shape: tuple[int, ...], steps: int = 4, samples: int = 3, seed: int = 1) -> Any:
    """Inputs [steps, samples, *shape], in quarters from -4 to 4, others at each step."""
    return np.random.default_rng(seed).integers(-16, 17, (steps, samples, *shape)) / 4


# --- nodes ----------------------------------------------------------------------------------------


def conv(nir: Any, rng: Any, out: int, given: int, kernel: int) -> Any:
    return nir.Conv2d(
        input_shape=(6, 6), weight=on_grid(rng, out, given, kernel, kernel), stride=(1, 1),
        padding=(kernel // 2, kernel // 2), dilation=(1, 1), groups=1, bias=on_grid(rng, out),
    )  # fmt: skip


def affine(nir: Any, rng: Any, out: int, given: int) -> Any:
    return nir.Affine(weight=on_grid(rng, out, given), bias=on_grid(rng, out))


def neurons(nir: Any, shape: tuple[int, ...], initial: float = 0.5) -> Any:
    ones = np.ones(shape, np.float32)
    node = nir.IF(r=ones, v_threshold=ones.copy())
    node.metadata = {"initial_membrane": initial} if initial else {}
    return node


def flatten(nir: Any, shape: tuple[int, ...]) -> Any:
    return nir.Flatten(input_type={"input": np.array(shape)}, start_dim=-len(shape), end_dim=-1)


def chain(*names: str) -> list[tuple[str, str]]:
    return list(zip(names, names[1:], strict=False))


def on_grid(rng: Any, *shape: int) -> Any:
    return (rng.integers(-8, 9, shape) / 16).astype(np.float32)


def layered_ann(steps: int = 4, seed: int = 0) -> Any:
    """The ANN of `layered`: its activations have as many levels as it gets time steps."""
    nodes = layered(seed=seed).nodes
    body, weights = "", dict(build.PLAIN)
    for index, (name, given) in enumerate((("first", "x"), ("second", "a0"))):
        body += f"g{index} = Gemm <transB: int = 1> ({given}, {name}_w, {name}_b)\n"
        body += build.quantised(f"g{index}", f"a{index}", levels=steps)
    body += "y = Gemm <transB: int = 1> (a1, readout_w, readout_b)"
    for name in ("first", "second", "readout"):
        weights |= {f"{name}_w": nodes[name].weight, f"{name}_b": nodes[name].bias}
    weights["step"] = 1 / steps
    del weights["half"]
    return build.model(body, weights, inputs="float[N,6] x", outputs="float[N,3] y")
