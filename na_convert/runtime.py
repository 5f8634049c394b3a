"""onnxruntime sessions: quiet, on the CPU, one place for their options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from .errors import DoesNotRun, ModelError, NaConvertError, PassFailed, first_line
from .graph import STANDARD_DOMAINS, Parts
from .protos import (
    PROTOBUF_LIMIT,
    all_nodes,
    array_of,
    dtype_of,
    size_of,
    stays_in_file,
    with_subgraphs,
)

Feeds = dict[str, NDArray[np.generic]]
Model: TypeAlias = onnx.ModelProto | Parts
Backend: TypeAlias = Callable[[Model], Any]  # makes what runs a model: `session`, ...


def session(model: Model | Path, *, threads: int = 0, optimise: bool = True):  # type: ignore[no-untyped-def]
    """An InferenceSession for ``model``, which may be a file's path.

    Raises DoesNotRun where onnxruntime does not take it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # the overridable `timesteps` input would warn at each start
    options.intra_op_num_threads = threads
    # Keep quantisers what the file says: fused into integer kernels they round elsewhere.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        source, beside = (str(model), {}) if isinstance(model, Path) else _serialised(model)
        options.add_external_initializers(list(beside), list(beside.values()))
        made = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        made.beside = beside  # it reads them where they are, and does not keep them
        return made
    except Exception as error:
        raise DoesNotRun(f"onnxruntime does not run this graph ({first_line(error)})") from error


BESIDE = 1 << 26  # bytes of weights; those of `Parts` with more are handed over where they are
HEAVY = 1 << 16  # bytes; smaller weights stay inside


def _serialised(model: Model) -> tuple[bytes, dict[str, Any]]:
    """``model`` for onnxruntime, and, where they are large, its weights: not copied if they are
    beside it already."""
    if isinstance(model, Parts):
        if model.bytes <= BESIDE:
            return bytes(model.whole().SerializeToString()), {}
    elif _fits(model):
        return bytes(model.SerializeToString()), {}
    else:
        model = _with_weights_beside(model)
    weights = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values))
        for name, values in model.weights.items()
    }
    return bytes(model.referring("memory", {}).SerializeToString()), weights


def _fits(model: onnx.ModelProto) -> bool:
    weights = model.graph.initializer
    inside = not any(map(stays_in_file, weights))
    return inside and sum(map(size_of, weights)) <= PROTOBUF_LIMIT


def _with_weights_beside(model: onnx.ModelProto) -> Parts:
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name
    for field in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(light.graph, field).extend(getattr(model.graph, field))
    weights = taken_beside(light, model.graph.initializer)
    return Parts(light, weights)


def taken_beside(
    light: onnx.ModelProto, weights: Iterable[onnx.TensorProto]
) -> dict[str, NDArray[np.generic]]:
    """Put ``weights`` into ``light``, but for the large ones, which are returned by name."""
    beside = {}
    for tensor in weights:
        heavy = size_of(tensor) > HEAVY and dtype_of(tensor).isbuiltin == 1
        if heavy or stays_in_file(tensor):
            beside[tensor.name] = array_of(tensor)
        else:
            light.graph.initializer.append(tensor)
    return beside


@contextmanager
def or_its_refusal(path: Path) -> Iterator[None]:
    """What goes wrong with the model in ``path`` in an unforeseen way is its own fault where
    onnxruntime does not take it: types that do not fit, say, which onnx's checker does not look at.

    Raises ModelError with onnxruntime's reason then; else what was raised. Of a model with
    operators that onnxruntime does not know, or has not got, its refusal says nothing.
    """
    try:
        yield
    except NaConvertError as error:
        if isinstance(error, PassFailed | DoesNotRun):
            _require_valid(path, error)
        if isinstance(error, DoesNotRun):
            raise DoesNotRun(f"{path}: {error.message}") from error
        raise
    except Exception as error:
        _require_valid(path, error)
        raise


_NOT_IMPLEMENTED = onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented


def _require_valid(path: Path, found: Exception) -> None:
    if not _only_known_domains(onnx.load(path, load_external_data=False)):
        return
    try:
        session(path, optimise=False)
    except ModelError as error:
        reason = error.__cause__
        if reason is None or isinstance(reason, _NOT_IMPLEMENTED):
            return
        raise ModelError(
            f"{path}: not a valid model, says onnxruntime ({first_line(reason)})"
        ) from found


def _only_known_domains(model: onnx.ModelProto) -> bool:
    own = {f.domain for f in model.functions}
    bodies = (node for f in model.functions for node in with_subgraphs(f.node))
    used = {node.domain for node in (*all_nodes(model.graph), *bodies)}
    return used <= {*STANDARD_DOMAINS, "ai.onnx.ml", "com.microsoft", *own}


def with_outputs(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """A copy of ``model`` whose outputs include the inner ``tensors``."""
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    known = {o.name for o in model.graph.output}
    extended.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors if t not in known)
    return extended


def run(model: onnx.ModelProto, feeds: Feeds, outputs: Sequence[str] | None = None) -> Feeds:
    """Run once; outputs by name (all of them by default)."""
    runner = session(model)
    names = list(outputs) if outputs is not None else [o.name for o in runner.get_outputs()]
    return dict(zip(names, values_of(runner, names, feeds), strict=True))


def values_of(
    runner: Any, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    """The values of ``outputs``, from what a `Backend` made; raises DoesNotRun where it fails."""
    try:
        return list(runner.run(list(outputs), feeds))
    except Exception as error:
        reason = f"{engine_of(runner)} does not run this graph ({first_line(error)})"
        raise DoesNotRun(reason) from error


def engine_of(runner: Any) -> str:
    """The package of what a `Backend` made."""
    return type(runner).__module__.partition(".")[0]
