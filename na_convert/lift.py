"""A loaded model made ready for the passes: the opset, and types that they cannot hold.

What is done, each with its test:

* initialisers listed as graph inputs, too: no longer inputs (their values are weights)
* opset below 17: lifted to 17 by onnx's version converter, and compared with the original on
  random input where onnxruntime runs both
* an opset or IR version newer than onnxruntime takes: refused, or lowered (IR version)
* 2- and 4-bit integers: the same numbers in 8 bits; a QuantizeLinear to them clips to their range
* float8 weights: dequantised; float8 activations: refused (their levels are not uniform)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import version_converter

from . import narrow_types, qonnx, runtime
from .errors import ModelError, NotConvertible

OPSET = 17
_STANDARD = ("", "ai.onnx")
_HEAVY = 1024  # bytes; larger weights do not go through the version converter
_SIZES = (1, 32)  # of an open batch, and of other open axes, in the comparison
_TOLERANCE = 1e-4


def prepare(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The model that the passes take, and notes for the user.

    ``model`` may be edited, though never what it computes; its weights are not copied unless the
    opset has to be lifted. Raises NotConvertible where the opset cannot be lifted, or onnxruntime
    is too old for it, and where float8 numbers are more than weights.
    """
    _drop_weight_inputs(model.graph)
    notes = list(narrow_types.widen(model))
    opset = opset_of(model)
    if opset < OPSET:
        model, checked = _lift(model, opset)
        notes.append(f"opset {opset} lifted to {OPSET}; {checked}")
    notes += _fit_runtime(model)
    return model, tuple(notes)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that ``model`` imports.

    Raises ModelError where it imports none.
    """
    for imported in model.opset_import:
        if imported.domain in _STANDARD:
            return int(imported.version)
    raise ModelError("the model imports no opset of ONNX", remedy="export it anew")


def _drop_weight_inputs(graph: onnx.GraphProto) -> None:
    weights = {i.name for i in graph.initializer}
    kept = [i for i in graph.input if i.name not in weights]
    if len(kept) < len(graph.input):
        del graph.input[:]
        graph.input.extend(kept)


# --- lifting the opset ----------------------------------------------------------------------------


def _lift(model: onnx.ModelProto, opset: int) -> tuple[onnx.ModelProto, str]:
    """``model`` at opset 17, and how far it was compared with the original."""
    feeds, expected = _random_run(model)
    light, heavy = _without_heavy_weights(model)
    try:
        lifted = version_converter.convert_version(light, OPSET)
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["?"])[0]
        raise NotConvertible(
            f"opset {opset} cannot be lifted to {OPSET} ({reason})",
            remedy=f"export the model with opset {OPSET} or newer",
        ) from error
    _put_back(lifted, heavy)
    _carry_over(model, lifted)
    if isinstance(expected, str):
        return lifted, f"not compared with the original ({expected})"
    return lifted, _compared(lifted, feeds, expected, opset)


def _without_heavy_weights(
    model: onnx.ModelProto,
) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    """A copy whose large weights are inputs, and those weights: the converter copies its model."""
    light = onnx.ModelProto()
    light.ir_version = max(model.ir_version, 4)
    light.opset_import.extend(model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    heavy = []
    for weight in model.graph.initializer:
        if weight.ByteSize() <= _HEAVY:
            light.graph.initializer.append(weight)
            continue
        heavy.append(weight)
        light.graph.input.append(
            onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        )
    return light, heavy


def _put_back(lifted: onnx.ModelProto, heavy: list[onnx.TensorProto]) -> None:
    names = {w.name for w in heavy}
    kept = [i for i in lifted.graph.input if i.name not in names]
    del lifted.graph.input[:]
    lifted.graph.input.extend(kept)
    lifted.graph.initializer.extend(heavy)


def _carry_over(model: onnx.ModelProto, lifted: onnx.ModelProto) -> None:
    """What the converter may drop: docs, metadata, the producer, names of nodes."""
    lifted.producer_name, lifted.producer_version = model.producer_name, model.producer_version
    lifted.doc_string, lifted.domain = model.doc_string, model.domain
    lifted.model_version = model.model_version
    lifted.graph.doc_string = model.graph.doc_string
    del lifted.metadata_props[:]
    lifted.metadata_props.extend(model.metadata_props)
    del lifted.functions[:]
    lifted.functions.extend(model.functions)
    named = {n.output[0]: n for n in model.graph.node if n.output}
    for node in lifted.graph.node:
        original = named.get(node.output[0]) if node.output else None
        if original is not None:
            node.name = node.name or original.name
            node.doc_string = node.doc_string or original.doc_string
    docs = {v.name: v.doc_string for v in [*model.graph.input, *model.graph.output]}
    for value in [*lifted.graph.input, *lifted.graph.output]:
        value.doc_string = docs.get(value.name, "")


def _random_run(model: onnx.ModelProto) -> tuple[runtime.Feeds, runtime.Feeds | str]:
    """Random input for ``model`` and what it answers, or why it cannot be run."""
    if any(qonnx.is_qonnx(node.domain, node.op_type) for node in model.graph.node):
        return {}, "onnxruntime has no QONNX operators"
    feeds = {}
    generator = np.random.default_rng(0)
    for tensor in model.graph.input:
        kind = tensor.type.tensor_type
        dims = [
            d.dim_value if d.HasField("dim_value") else _SIZES[min(k, 1)]
            for k, d in enumerate(kind.shape.dim)
        ]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        feeds[tensor.name] = generator.uniform(-2, 2, dims).astype(dtype)
    try:
        return feeds, runtime.run(model, feeds)
    except Exception as error:
        return feeds, (str(error).strip().splitlines() or ["?"])[0]


def _compared(
    lifted: onnx.ModelProto, feeds: runtime.Feeds, expected: runtime.Feeds, opset: int
) -> str:
    try:
        found = runtime.run(lifted, feeds, list(expected))
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["?"])[0]
        raise NotConvertible(
            f"lifted from opset {opset} to {OPSET}, the model no longer runs ({reason})",
            remedy=f"export the model with opset {OPSET} or newer",
        ) from error
    worst = max(_difference(found[name], values) for name, values in expected.items())
    if worst > _TOLERANCE:
        raise NotConvertible(
            f"lifted from opset {opset} to {OPSET}, the model gives other values "
            f"(relative difference {worst:.1e})",
            remedy=f"export the model with opset {OPSET} or newer",
        )
    return f"equal to the original on random input (relative difference {worst:.1e})"


def _difference(found: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    if found.shape != expected.shape:
        return float("inf")
    wide = expected.astype(np.float64)
    scale = max(float(np.max(np.abs(wide), initial=0.0)), 1e-30)
    return float(np.max(np.abs(found.astype(np.float64) - wide), initial=0.0)) / scale


# --- what onnxruntime takes -----------------------------------------------------------------------


def _fit_runtime(model: onnx.ModelProto) -> Iterator[str]:
    """Lower the IR version to what onnxruntime reads; refuse an opset that it does not."""
    opset = opset_of(model)
    for version in range(model.ir_version, 7, -1):
        if _loads(opset, version):
            if version < model.ir_version:
                yield f"IR version {model.ir_version} lowered to {version} for onnxruntime"
                model.ir_version = version
            return
    if model.ir_version < 8 and _loads(opset, 8):
        return
    raise NotConvertible(
        f"opset {opset} is newer than the installed onnxruntime takes",
        remedy="export with an older opset (17 to 21 do), or install a newer onnxruntime",
    )


def _loads(opset: int, ir_version: int) -> bool:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "probe", [value], [result])
    imports = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    try:
        runtime.session(model, threads=1)
    except ModelError:
        return False
    return True
