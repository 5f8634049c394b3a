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
from .errors import ModelError, NotConvertible, first_line
from .inner_names import rename_hiding
from .protos import is_heavy, without_weights

OPSET = 17
_STANDARD = ("", "ai.onnx")
_SIZES = (1, 32)  # of an open batch, and of other open axes, in the comparison
_TOLERANCE = 1e-4


def prepare(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The model that the passes take, and notes for the user.

    ``model`` itself is edited and returned, without copies of its weights; what it computes stays
    the same. Raises NotConvertible where the opset cannot be lifted, or onnxruntime
    is too old for it, and where float8 numbers are more than weights.
    """
    _drop_weight_inputs(model.graph)
    rename_hiding(model)
    notes = list(narrow_types.widen(model))
    opset = opset_of(model)
    if opset < OPSET:
        compared = _lift(model, opset)
        notes.append(f"opset {opset} lifted to {OPSET}; {compared}")
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


def _lift(model: onnx.ModelProto, opset: int) -> str:
    """Bring ``model`` to opset 17 in place; returns how far it was compared with what it was.

    Large weights stay where they are: converter and comparison see them as inputs.
    """
    light = without_weights(model)
    light.graph.output.extend(model.graph.output)
    heavy = [weight for weight in model.graph.initializer if is_heavy(weight)]
    try:
        lifted = version_converter.convert_version(light, OPSET)
    except Exception as error:
        raise _refusal(
            f"opset {opset} cannot be lifted to {OPSET} ({first_line(error)})"
        ) from error
    compared = _compared(light, lifted, heavy, opset)
    _take_over(model, lifted, {weight.name for weight in heavy})
    return compared


def _refusal(message: str) -> NotConvertible:
    return NotConvertible(message, remedy=f"export the model with opset {OPSET} or newer")


def _take_over(model: onnx.ModelProto, lifted: onnx.ModelProto, heavy: set[str]) -> None:
    """Let ``model`` have the nodes, small weights and opset of ``lifted``, and keep the rest."""
    graph = model.graph
    docs = {n.output[0]: (n.name, n.doc_string) for n in graph.node if n.output}
    properties = {n.output[0]: list(n.metadata_props) for n in graph.node if n.output}
    del graph.node[:]
    graph.node.extend(lifted.graph.node)
    named = {node.name for node in graph.node}
    for node in graph.node:
        name, doc = docs.get(node.output[0], ("", "")) if node.output else ("", "")
        node.name = node.name or ("" if name in named else name)
        node.doc_string = node.doc_string or doc
        if node.output and not node.metadata_props:
            node.metadata_props.extend(properties.get(node.output[0], []))
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in heavy:
            del graph.initializer[index]
    graph.initializer.extend(lifted.graph.initializer)
    del graph.value_info[:]
    model.ir_version = max(model.ir_version, lifted.ir_version)
    del model.opset_import[:]
    model.opset_import.extend(lifted.opset_import)


# --- comparing what was lifted with what it was ---------------------------------------------------


def _compared(
    light: onnx.ModelProto,
    lifted: onnx.ModelProto,
    heavy: list[onnx.TensorProto],
    opset: int,
) -> str:
    """How far both agree on random input; raises NotConvertible where they do not."""
    if any(qonnx.is_qonnx(node.domain, node.op_type) for node in light.graph.node):
        return "not compared with the original (onnxruntime has no QONNX operators)"
    try:
        feeds = _random_feeds(light, heavy)
        expected = runtime.run(light, feeds)
    except Exception as error:
        return f"not compared with the original ({first_line(error)})"
    try:
        found = runtime.run(lifted, feeds, list(expected))
    except Exception as error:
        reason = first_line(error)
        raise _refusal(
            f"lifted from opset {opset} to {OPSET}, the model no longer runs ({reason})"
        ) from error
    worst = max(_difference(found[name], values) for name, values in expected.items())
    if worst > _TOLERANCE:
        raise _refusal(
            f"lifted from opset {opset} to {OPSET}, the model gives other values "
            f"(relative difference {worst:.1e})"
        )
    return f"equal to the original on random input (relative difference {worst:.1e})"


def _random_feeds(light: onnx.ModelProto, heavy: list[onnx.TensorProto]) -> runtime.Feeds:
    feeds: runtime.Feeds = {w.name: onnx.numpy_helper.to_array(w) for w in heavy}
    generator = np.random.default_rng(0)
    for tensor in light.graph.input:
        kind = tensor.type.tensor_type
        if tensor.name in feeds:
            continue
        dims = [
            d.dim_value if d.HasField("dim_value") else _SIZES[min(k, 1)]
            for k, d in enumerate(kind.shape.dim)
        ]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        feeds[tensor.name] = generator.uniform(-2, 2, dims).astype(dtype)
    return feeds


def _difference(found: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    if found.shape != expected.shape:
        return float("inf")
    new, old = found.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.abs(new - old)[(new != old) & ~(np.isnan(new) & np.isnan(old))]
    scale = max(float(np.max(np.abs(old), where=np.isfinite(old), initial=0.0)), 1e-30)
    worst = float(np.max(apart, initial=0.0)) / scale
    return float("inf") if np.isnan(worst) else worst


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
