"""Element-by-element ONNX operators in numpy: what `elementwise` and `sample` see through.

Each kernel takes the node, its inputs (None where an optional one is missing) and the float type
to compute in: float64 to measure a function exactly, the model's own to see what it really does.
Integers keep their types, so that they saturate and wrap as they do in the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from . import kernels, qonnx
from .graph import STANDARD_DOMAINS

Array = NDArray[Any]
FloatType = np.dtype[Any]
Inputs = Sequence[Array | None]
Kernel = Callable[[gs.Node, Inputs, FloatType], Array]

RANDOM = ("RandomUniformLike", "RandomNormalLike", "Bernoulli")

# Smooth activations: no staircase and no clip, so that there is no need to evaluate them.
SMOOTH = (
    *("Celu", "Elu", "Erf", "FastGelu", "Gelu", "HardSwish", "Mish", "QuickGelu", "Selu", "Swish"),
    *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Sin", "Sinh", "Tan"),
)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_MICROSOFT = ("QuantizeLinear", "DequantizeLinear", *SMOOTH)


def known(node: gs.Node) -> bool:
    """Whether ``node`` computes each element from the elements at the same place (broadcast)."""
    domain = node.domain or ""
    if qonnx.is_pointwise(domain, node.op):
        return True
    if domain == "com.microsoft":
        return node.op in _MICROSOFT
    if domain not in STANDARD_DOMAINS:
        return False
    if node.op in ("QuantizeLinear", "DequantizeLinear"):
        return not int(node.attrs.get("block_size", 0))
    if node.op == "Cast":
        return _cast_target(node.attrs["to"]) is not None
    if node.op in ("BatchNormalization", "Dropout"):
        return not _in_training(node)
    return node.op in _KERNELS or node.op in SMOOTH or node.op in RANDOM


def evaluate(node: gs.Node, inputs: Inputs, dtype: FloatType) -> Array:
    """The first output of ``node``, floats computed in ``dtype``; `known` must hold.

    Raises NotImplementedError for random and smooth operators, which have no kernel.
    """
    if qonnx.is_qonnx(node.domain, node.op):
        given = [np.asarray(value) for value in inputs if value is not None]
        shape = np.broadcast_shapes(*(value.shape for value in given))
        x = np.broadcast_to(given[0], shape)
        return np.asarray(qonnx.evaluate(node.op, [x, *given[1:]], node.attrs))
    kernel = _KERNELS.get(node.op)
    if kernel is None:
        raise NotImplementedError(node.op)
    with np.errstate(all="ignore"):
        return np.asarray(kernel(node, inputs, dtype))


def _in_training(node: gs.Node) -> bool:
    if node.op == "BatchNormalization":
        return bool(int(node.attrs.get("training_mode", 0)))
    if len(node.inputs) < 3 or node.inputs[2].is_empty():
        return False
    mode = node.inputs[2]
    return not isinstance(mode, gs.Constant) or bool(np.any(mode.values))


# --- types ----------------------------------------------------------------------------------------


def _cast_target(target: object) -> np.dtype[Any] | None:
    """The numpy type of a Cast; None for types that round values (float8, bfloat16) or are text."""
    if isinstance(target, int):
        if target in _FLOATS:
            return np.dtype(np.float64)
        target = tensor_dtype_to_np_dtype(target)
    wanted = np.dtype(target)  # type: ignore[call-overload]
    if wanted.kind == "f" and wanted.itemsize >= 2 and wanted.name.startswith("float"):
        return np.dtype(np.float64)
    return wanted if wanted.kind in "iub" else None


def _to(x: Array, target: np.dtype[Any], dtype: FloatType) -> Array:
    """``x`` as ``target``; ONNX leaves open what a float out of an integer's range becomes.

    In 8 and 16 bits it wraps round, as it does in torch and onnxruntime on most processors, so that
    a Cast that nothing clips is no quantiser. In more bits it saturates: nothing gets that large.
    """
    if target.kind == "f":
        return np.asarray(x.astype(dtype))
    if target.kind in "iu" and x.dtype.kind == "f":
        info = np.iinfo(target)
        high = np.nextafter(float(info.max), 0.0) if target.itemsize == 8 else float(info.max)
        whole = np.nan_to_num(np.trunc(x.astype(np.float64)), posinf=high, neginf=float(info.min))
        if target.itemsize <= 2:
            return np.asarray(
                np.mod(whole, 2.0 ** (8 * target.itemsize)).astype(np.int64).astype(target)
            )
        return np.asarray(np.clip(whole, float(info.min), high).astype(target))
    return np.asarray(x.astype(target))


def _cast(node: gs.Node, inputs: Inputs, dtype: FloatType) -> Array:
    target = _cast_target(node.attrs["to"])
    if target is None:
        raise NotImplementedError(f"Cast to {node.attrs['to']}")
    return _to(_need(inputs[0]), target, dtype)


def _cast_like(node: gs.Node, inputs: Inputs, dtype: FloatType) -> Array:
    return _to(_need(inputs[0]), _need(inputs[1]).dtype, dtype)


def _need(value: Array | None) -> Array:
    if value is None:
        raise ValueError("a required input is missing")
    return value


def _need_all(inputs: Inputs) -> list[Array]:
    return [_need(value) for value in inputs]


# --- operators ------------------------------------------------------------------------------------


def _plain(function: Callable[..., Any]) -> Kernel:
    """A kernel of a numpy function of the inputs alone."""
    return lambda node, inputs, dtype: np.asarray(function(*_need_all(inputs)))


def _folded(function: Callable[[Array, Array], Any]) -> Kernel:
    """A kernel of an associative function of any number of inputs."""
    return lambda node, inputs, dtype: np.asarray(reduce(function, _need_all(inputs)))


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu":
        return np.asarray(np.trunc(np.true_divide(a, b))).astype(a.dtype)
    return np.asarray(a / b)


def _modulo(node: gs.Node, inputs: Inputs, dtype: FloatType) -> Array:
    a, b = _need_all(inputs)
    return np.asarray(np.fmod(a, b) if int(node.attrs.get("fmod", 0)) else np.mod(a, b))


def _bit_shift(node: gs.Node, inputs: Inputs, dtype: FloatType) -> Array:
    a, b = _need_all(inputs)
    left = str(node.attrs["direction"]).upper() == "LEFT"
    return np.asarray(np.left_shift(a, b) if left else np.right_shift(a, b))


def _clip(node: gs.Node, inputs: Inputs, dtype: FloatType) -> Array:
    x, low, high = [*inputs, None, None][:3]
    y = _need(x)
    y = y if low is None else np.maximum(y, low)
    return y if high is None else np.minimum(y, high)


def _is_inf(node: gs.Node, inputs: Inputs, dtype: FloatType) -> Array:
    x = _need(inputs[0])
    above = np.isposinf(x) & bool(int(node.attrs.get("detect_positive", 1)))
    return np.asarray(above | (np.isneginf(x) & bool(int(node.attrs.get("detect_negative", 1)))))


def _leaky_relu(node: gs.Node, inputs: Inputs, dtype: FloatType) -> Array:
    x = _need(inputs[0])
    return np.asarray(np.where(x < 0, x * dtype.type(node.attrs.get("alpha", 0.01)), x))


def _prelu(node: gs.Node, inputs: Inputs, dtype: FloatType) -> Array:
    x, slope = _need_all(inputs)
    return np.asarray(np.where(x < 0, x * slope, x))


def _thresholded_relu(node: gs.Node, inputs: Inputs, dtype: FloatType) -> Array:
    x = _need(inputs[0])
    return np.asarray(np.where(x > dtype.type(node.attrs.get("alpha", 1.0)), x, 0))


def _hard_sigmoid(node: gs.Node, inputs: Inputs, dtype: FloatType) -> Array:
    alpha, beta = dtype.type(node.attrs.get("alpha", 0.2)), dtype.type(node.attrs.get("beta", 0.5))
    return np.asarray(np.clip(alpha * _need(inputs[0]) + beta, 0, 1))


def _shrink(node: gs.Node, inputs: Inputs, dtype: FloatType) -> Array:
    x, bias = _need(inputs[0]), dtype.type(node.attrs.get("bias", 0.0))
    threshold = dtype.type(node.attrs.get("lambd", 0.5))
    return np.asarray(np.where(x < -threshold, x + bias, np.where(x > threshold, x - bias, 0)))


def _fill(node: gs.Node, inputs: Inputs, dtype: FloatType) -> Array:
    """ConstantOfShape: what `sample` hands over is a tensor of the shape itself."""
    value = np.asarray(_attribute_values(node.attrs.get("value")))
    kind = dtype if value.dtype.kind == "f" else value.dtype
    return np.full(np.shape(_need(inputs[0])), value.ravel()[0], kind)


def _attribute_values(value: object) -> Array:
    if value is None:
        return np.zeros(1, np.float32)
    return np.asarray(value.values if isinstance(value, gs.Constant) else value)


def _first(node: gs.Node, inputs: Inputs, dtype: FloatType) -> Array:
    return _need(inputs[0])


_KERNELS: Mapping[str, Kernel] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "And": _plain(np.logical_and),
    "BitShift": _bit_shift,
    "BitwiseAnd": _plain(np.bitwise_and),
    "BitwiseNot": _plain(np.invert),
    "BitwiseOr": _plain(np.bitwise_or),
    "BitwiseXor": _plain(np.bitwise_xor),
    "BatchNormalization": kernels.batch_normalization,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": _plain(np.ceil),
    "Clip": _clip,
    "ConstantOfShape": _fill,
    "DequantizeLinear": kernels.dequantize_linear,
    "Div": _plain(_divide),
    "Dropout": _first,
    "Equal": _plain(np.equal),
    "Exp": _plain(np.exp),
    "Floor": _plain(np.floor),
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "HardSigmoid": _hard_sigmoid,
    "Identity": _first,
    "IsInf": _is_inf,
    "IsNaN": _plain(np.isnan),
    "LeakyRelu": _leaky_relu,
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Log": _plain(np.log),
    "Max": _folded(np.maximum),
    "Mean": lambda node, inputs, dtype: np.asarray(
        reduce(np.add, _need_all(inputs)) / dtype.type(len(inputs))
    ),
    "Min": _folded(np.minimum),
    "Mod": _modulo,
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Not": _plain(np.logical_not),
    "Or": _plain(np.logical_or),
    "PRelu": _prelu,
    "Pow": lambda node, inputs, dtype: np.power(_need(inputs[0]), _need(inputs[1])).astype(
        _need(inputs[0]).dtype
    ),
    "QuantizeLinear": kernels.quantize_linear,
    "Reciprocal": lambda node, inputs, dtype: dtype.type(1) / _need(inputs[0]),
    "Relu": lambda node, inputs, dtype: np.maximum(_need(inputs[0]), 0),
    "Round": _plain(np.round),
    "Shrink": _shrink,
    "Sigmoid": lambda node, inputs, dtype: dtype.type(1) / (1 + np.exp(-_need(inputs[0]))),
    "Sign": _plain(np.sign),
    "Softplus": _plain(lambda x: np.logaddexp(x, 0)),
    "Softsign": _plain(lambda x: x / (1 + np.abs(x))),
    "Sqrt": _plain(np.sqrt),
    "Sub": _plain(np.subtract),
    "Sum": _folded(np.add),
    "Tanh": _plain(np.tanh),
    "ThresholdedRelu": _thresholded_relu,
    "Where": _plain(np.where),
    "Xor": _plain(np.logical_xor),
}
