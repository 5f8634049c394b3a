"""The same network written in another way is the same network: neurons, thresholds and counts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import na_convert
from na_convert.model_io import sort_nodes
from na_convert.simulator import Simulator

from . import build
from .random_networks import networks

IMAGES = build.images(3, seed=5)
T = 4
Model = onnx.ModelProto
Rng = np.random.Generator


@dataclass(frozen=True)
class Facts:
    """Of an SNN: its layers in order, and what they do."""

    thresholds: list[np.ndarray]
    levels: list[int | None]
    shapes: list[tuple[int, ...]]
    counts: list[np.ndarray]
    outputs: np.ndarray


def facts(model: Model, x: np.ndarray = IMAGES) -> Facts:
    with tempfile.TemporaryDirectory() as folder:
        ann, snn = Path(folder) / "ann.onnx", Path(folder) / "snn.onnx"
        ann.write_bytes(model.SerializeToString())
        found = na_convert.convert(ann, output=snn, check=False, timesteps=T, exact=False).neurons
        simulator = Simulator(snn, record=["*"], threads=1)
    run = simulator.run({simulator.inputs[0]: x})
    return Facts(
        [np.asarray(n.threshold) for n in found],
        [n.levels for n in found],
        [n.shape for n in found],
        [np.count_nonzero(run.spikes[n.name], axis=0) for n in found],
        run.outputs[T][simulator.outputs[0]],
    )


def assert_same(one: Facts, other: Facts) -> None:
    assert one.levels == other.levels
    assert one.shapes == other.shapes
    for a, b in zip(one.thresholds, other.thresholds, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    for a, b in zip(one.counts, other.counts, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(one.outputs, other.outputs, rtol=1e-4, atol=1e-5)


def copied(model: Model) -> Model:
    other = Model()
    other.CopyFrom(model)
    return other


# --- other ways to write it -----------------------------------------------------------------------


def renamed(model: Model, rng: Rng) -> Model:
    """Every node and tensor called by a number."""
    other, names = copied(model), dict[str, str]()

    def new(name: str) -> str:
        return names.setdefault(name, f"{len(names):03d}") if name else ""

    graph = other.graph
    for node in graph.node:
        node.name = new(f"node {node.name}")
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = new(value.name)
    return other


def reordered(model: Model, rng: Rng) -> Model:
    """Initialisers in any order, nodes in any order in which they can run."""
    other = copied(model)
    for field in (other.graph.node, other.graph.initializer):
        entries = list(field)
        shuffled = [type(entries[0]).FromString(entries[k].SerializeToString())
                    for k in rng.permutation(len(entries))]  # fmt: skip
        del field[:]
        field.extend(shuffled)
    sort_nodes(other.graph)
    return other


def bias_split_off(model: Model, rng: Rng) -> Model:
    """The bias of a convolution as an Add of its own."""
    other, nodes = copied(model), list[onnx.NodeProto]()
    for node in other.graph.node:
        if node.op_type != "Conv":
            nodes.append(node)
            continue
        bias, output = node.input[2], node.output[0]
        del node.input[2]
        node.output[0] = f"{output}_unbiased"
        tensor = next(i for i in other.graph.initializer if i.name == bias)
        values = onnx.numpy_helper.to_array(tensor).reshape(1, -1, 1, 1)
        name = f"{output}_bias"
        other.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        add = onnx.helper.make_node(
            "Add", [f"{output}_unbiased", name], [output], name=f"{name}_add"
        )
        nodes += [node, add]
    return with_nodes(other, nodes)


def with_nodes(model: Model, nodes: list[onnx.NodeProto]) -> Model:
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def padded_with_nothing(model: Model, rng: Rng) -> Model:
    """An Identity, or a Cast to double and back, behind some floats."""
    other, nodes = copied(model), list[onnx.NodeProto]()
    floats = {"Conv", "Add", "BatchNormalization", "Clip", "Div", "Mul", "MaxPool"}
    for node in other.graph.node:
        nodes.append(node)
        if node.op_type not in floats or rng.random() < 0.5:
            continue
        output = node.output[0]
        node.output[0] = f"{output}_before"
        if rng.random() < 0.5:
            nodes.append(
                onnx.helper.make_node("Identity", [f"{output}_before"], [output], f"{output}_same")
            )
            continue
        for source, target, to in (("before", "wide", 11), ("wide", "", 1)):
            made = f"{output}_{target}" if target else output
            cast = onnx.helper.make_node(
                "Cast", [f"{output}_{source}"], [made], f"{made}_cast", to=to
            )
            nodes.append(cast)
    return with_nodes(other, nodes)


def in_another_opset(model: Model, rng: Rng) -> Model:
    other = copied(model)
    kept = [i for i in other.opset_import if i.domain != "na_convert"]
    del other.opset_import[:]
    other.opset_import.extend(kept)
    return onnx.version_converter.convert_version(other, int(rng.choice([18, 19, 20, 21])))


def for_a_fixed_batch(model: Model, rng: Rng) -> Model:
    other = copied(model)
    other.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return other


WAYS: dict[str, Callable[[Model, Rng], Model]] = {
    "renamed": renamed,
    "reordered": reordered,
    "bias split off": bias_split_off,
    "padded with nothing": padded_with_nothing,
    "another opset": in_another_opset,
    "a fixed batch": for_a_fixed_batch,
}


@pytest.mark.parametrize("way", WAYS)
@given(model=networks(), seed=st.integers(0, 2**16))
@settings(max_examples=4, deadline=None, derandomize=True, database=None)
def test_another_way_to_write_it(way: str, model: Model, seed: int) -> None:
    assert_same(facts(model), facts(WAYS[way](model, np.random.default_rng(seed))))


@given(model=networks())
@settings(max_examples=4, deadline=None, derandomize=True, database=None)
def test_one_image_after_the_other(model: Model) -> None:
    together = facts(model)
    apart = [facts(model, IMAGES[k : k + 1]) for k in range(len(IMAGES))]
    for k, one in enumerate(apart):
        for whole, single in zip(together.counts, one.counts, strict=True):
            np.testing.assert_array_equal(whole[k : k + 1], single)


@given(model=networks(), seed=st.integers(0, 2**16))
@settings(max_examples=4, deadline=None, derandomize=True, database=None)
def test_channels_in_another_order(model: Model, seed: int) -> None:
    """Of the input: images and the first weights alike. Layers keep all but the order of sums."""
    order = np.random.default_rng(seed).permutation(3)
    other = copied(model)
    first = next(n for n in other.graph.node if n.op_type == "Conv")
    group = next((a.i for a in first.attribute if a.name == "group"), 1)
    assume(first.input[0] == "x" and group == 1)
    tensor = next(i for i in other.graph.initializer if i.name == first.input[1])
    values = onnx.numpy_helper.to_array(tensor)[:, order]
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    assert_same(facts(model), facts(other, IMAGES[:, order]))
