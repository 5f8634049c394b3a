"""Activations are called by their torch module, and metadata of nodes survives conversion."""

from __future__ import annotations

import json
from pathlib import Path

import onnx

import na_convert
from na_convert import model_io, pipeline

from .build import model

BODY = """
    z = Conv <pads = [1,1,1,1]> (x, w)
    c = Clip (z, zero, top)
    a = Round (c)
    z2 = Conv <pads = [1,1,1,1]> (a, w2)
    c2 = Clip (z2, zero, top)
    b = Round (c2)
    f = Flatten (b)
    y = Gemm (f, v)
"""
WEIGHTS = {"w": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "v": (256, 5), "zero": 0.0, "top": 3.0}


def write(folder: Path, scopes: dict[str, object]) -> Path:
    """The network of BODY; ``scopes``: of some nodes, by output."""
    proto = model(BODY, WEIGHTS)
    for node in proto.graph.node:
        if node.output[0] in scopes:
            text = str(scopes[node.output[0]])
            onnx.helper.set_metadata_props(node, {"pkg.torch.onnx.name_scopes": text, "other": "1"})
    path = folder / "model.onnx"
    onnx.save(proto, path)
    return path


def names(path: Path) -> list[str]:
    return [n.name for n in na_convert.inspect(path).neurons]


def test_a_module_of_its_own_gives_the_name(tmp_path: Path) -> None:
    scopes = {"a": ["", "act1", "round"], "b": ["", "blocks.0", "blocks.0.act", "round_1"]}
    assert names(write(tmp_path, scopes)) == ["act1", "blocks.0.act"]


def test_other_activations_keep_the_name_of_the_node(tmp_path: Path) -> None:
    shared = {"a": ["", "act", "round"], "b": ["", "act", "round_1"]}
    assert names(write(tmp_path, shared)) == ["Round_2", "Round_5"]
    unusable = {"a": ["", "round"], "b": "os.system('no list')"}
    assert names(write(tmp_path, unusable)) == ["Round_2", "Round_5"]
    taken = {"a": ["", "Conv_0", "round"], "b": ["", "z", "round"]}
    assert names(write(tmp_path, taken)) == ["Round_2", "Round_5"]


def test_both_names_are_understood(tmp_path: Path) -> None:
    path = write(tmp_path, {"a": ["", "act1", "round"], "b": ["", "act2", "round"]})
    for name in ("act1", "Round_2", "a"):
        assert na_convert.explain(path, name).output == "a"
        found = na_convert.inspect(path, readout_from=name)
        assert [n.name for n in found.neurons] == ["act1"]


def test_metadata_of_nodes_survives(tmp_path: Path) -> None:
    path = write(tmp_path, {"a": ["", "act1", "round"], "z2": ["", "conv2", "conv2d"]})
    result = na_convert.convert(path)
    assert result.output is not None
    snn = onnx.load(result.output.path)
    kept = {n.output[0]: {p.key: p.value for p in n.metadata_props} for n in snn.graph.node}
    for output, module in (("a", "act1"), ("z2", "conv2")):
        assert module in kept[output]["pkg.torch.onnx.name_scopes"]
        assert kept[output]["other"] == "1"
    stored = {p.key: p.value for p in snn.metadata_props}
    assert json.loads(stored["na_convert.neurons"])[0]["name"] == "act1"


def test_lifting_the_opset_keeps_metadata(tmp_path: Path) -> None:
    proto = model(BODY, WEIGHTS, opset=13)
    for node in proto.graph.node:
        onnx.helper.set_metadata_props(node, {"of": node.output[0]})
    path = tmp_path / "old.onnx"
    onnx.save(proto, path)
    loaded = model_io.load(path)
    carried = pipeline.reference(loaded, {}, check=False).carried
    assert carried.node_metadata["z2"] == {"of": "z2"}
