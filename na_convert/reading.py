"""What every command begins with: the model as it is described, and the data read for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from .data import InputSpec, Preprocessing, Samples, load_data, random_data
from .errors import ModelError, UsageError
from .graph import STANDARD_DOMAINS
from .model_io import Loaded
from .results import ModelInfo
from .size_guard import check_sizes
from .snn import TIMESTEPS

Data: TypeAlias = str | Path | Mapping[str, NDArray[np.generic]]
Labels: TypeAlias = str | Path | NDArray[np.generic]
Progress: TypeAlias = Callable[[str, float], None]

RANDOM_SAMPLES = 16
_RANDOM_NUMBERS = 1 << 22  # in all: of inputs that are very large there are fewer samples
_FEWEST = 2  # a batch of one hides wrong broadcasting


def silent(step: str, share: float) -> None:
    """No progress display."""


def samples_for(
    loaded: Loaded,
    data: Data | None,
    preprocessing: Preprocessing | None,
    labels: Labels | None = None,
) -> Samples:
    """What ``data`` gives the network in ``loaded``; random numbers without data.

    Raises ModelError where running the network on a sample would make tensors that are too large
    (`size_guard`), UsageError and DataError.
    """
    inputs = _input_specs(loaded.model)
    if data is None:
        if labels is not None:
            raise UsageError("--labels needs --data")
        found = random_data(inputs, seed=0, count=_random_samples(inputs))
    else:
        metadata = {p.key: p.value for p in loaded.model.metadata_props}
        found = load_data(data, inputs, metadata, preprocessing, labels)
    check_sizes(loaded.path, loaded.model, found.feeds)
    return found


def _random_samples(inputs: Sequence[InputSpec]) -> int:
    numbers = sum(prod(size or 1 for size in spec.shape[1:]) for spec in inputs)
    return max(_FEWEST, min(RANDOM_SAMPLES, _RANDOM_NUMBERS // max(1, numbers)))


def model_info(loaded: Loaded) -> ModelInfo:
    """What the results say of the model in ``loaded``; the passes use that model up."""
    model = loaded.model
    opset = next((i.version for i in model.opset_import if i.domain in STANDARD_DOMAINS), 0)
    counts: dict[str, int] = {}
    for node in model.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return ModelInfo(
        path=str(loaded.path),
        sha256=loaded.sha256,
        opset=opset,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        bytes=loaded.bytes,
        nodes=counts,
    )


def _input_specs(model: onnx.ModelProto) -> list[InputSpec]:
    """The network's inputs; the batch counts as free, since `normalise` frees it."""
    weights = {i.name for i in model.graph.initializer}
    specs = []
    for value in model.graph.input:
        if value.name in weights or value.name == TIMESTEPS:
            continue
        tensor = value.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        if not dims:
            raise ModelError(
                f"input {value.name!r} has no batch axis", node=value.name,
                remedy="export with inputs of shape [N, ...]",
            )  # fmt: skip
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        specs.append(InputSpec(value.name, (None, *dims[1:]), dtype))
    return specs
