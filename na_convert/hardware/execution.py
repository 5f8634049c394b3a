"""A program in numpy: the definition that other implementations are compared with."""

from __future__ import annotations

from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .lowering import window_table
from .program import NOWHERE, Layer, Move, Product, Program

Array: TypeAlias = NDArray[Any]


def run(program: Program, currents: Array, timesteps: int) -> dict[str, NDArray[np.uint8]]:
    """Spike counts [T, N, ...] of every layer by name, up to and with each step.

    Args:
        currents: int32 [N, `Program.inputs`], the analog currents, the same at every step; or
            [T, N, `Program.inputs`], those of each step.
    """
    samples = currents.shape[-2]
    each = np.broadcast_to(currents, (timesteps, samples, program.inputs))
    received = np.zeros((samples, program.inputs), np.int64)
    memory = np.zeros((samples, program.memory), np.int64)
    found: dict[str, list[Array]] = {layer.name: [] for layer in program.layers}
    for t, current in enumerate(each, start=1):
        received += current
        for op in program.operations:
            if isinstance(op, Move):
                memory[:, op.output : op.output + len(op.table)] = _moved(op, memory)
                continue
            counts = memory[:, op.output : op.output + op.size]
            total, reached = _reached(op, memory, received, t)
            counts += 2 * total >= reached * (2 * counts + 1)
            found[op.name].append(counts.astype(np.uint8).reshape(samples, *op.shape))
    return {name: np.stack(counts) for name, counts in found.items()}


def _reached(layer: Layer, memory: Array, currents: Array, t: int) -> tuple[Array, Array]:
    """M of each neuron [N, neurons], and ``resolution * threshold`` [neurons].

    ``currents``: their sum up to step ``t``, [N, `Program.inputs`].
    """
    size = prod(layer.summed)
    total = np.zeros((len(memory), size), np.int64) + t * _spread(layer.bias, size)
    for product in layer.products:
        total += _multiplied(product, memory)
    for offset in layer.currents:
        total += currents[:, offset : offset + size]
    if layer.window is not None:
        lowest = np.iinfo(np.int64).min
        entries = total[:, layer.window]
        total = np.where(layer.window == NOWHERE, lowest, entries).max(axis=-1)
    total = layer.resolution * total
    for shortcut in layer.shortcuts:
        counts = memory[:, shortcut.source : shortcut.source + layer.size]
        total += _spread(shortcut.times, layer.size) * counts
    return total, layer.resolution * _spread(layer.threshold, layer.size)


def _spread(values: Array, size: int) -> Array:
    """Numbers per channel (or per entry) for each entry, in order, int64."""
    return np.repeat(values.astype(np.int64), size // len(values))


def _multiplied(product: Product, memory: Array) -> Array:
    """[N, O * height * width]; float64 holds every sum."""
    made, depth = product.weight.shape[:2]
    channels = depth * product.group
    kernel = product.weight.shape[2:]
    attributes = {
        "kernel_shape": kernel,
        "strides": product.strides,
        "pads": product.pads,
        "dilations": product.dilations,
    }
    size = (channels, *product.size)
    table = window_table(attributes, size, (channels, *product.made))
    counts = memory[:, product.source : product.source + prod(size)].astype(np.float64)
    seen = np.where(table == NOWHERE, 0, counts[:, table])
    pixels = prod(product.made)
    seen = seen.reshape(len(memory), product.group, depth, pixels, prod(kernel))
    weight = product.weight.astype(np.float64)
    weight = weight.reshape(product.group, made // product.group, depth, prod(kernel))
    found = np.einsum("ngdpk,godk->ngop", seen, weight, optimize=True)
    return np.asarray(found.reshape(len(memory), -1), np.int64)


def _moved(move: Move, memory: Array) -> Array:
    counts = np.where(move.table == NOWHERE, 0, memory[:, move.table])
    return np.asarray(counts.sum(axis=-1) if move.adds else counts.max(axis=-1))
