"""The figures of `na-convert check` on the example, computed again: numpy, onnx and onnxruntime.

Nothing of na_convert is imported. It is written for the example alone: one threshold per layer,
levels from zero, convolutions fed by spikes.
"""

from __future__ import annotations

import json
from itertools import product
from math import sqrt
from typing import Any

import numpy as np
import onnx
import onnxruntime


def run(model: onnx.ModelProto, outputs: list[str], feeds: dict[str, Any]) -> list[np.ndarray]:
    """Any tensors of a model; the values of inner tensors may be given too."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    for node in part.graph.node:  # a tensor that is given is not computed
        node.output[:] = [f"{name}_unused" if name in feeds else name for name in node.output]
    known = [i.name for i in part.graph.input]
    part.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in feeds
        if name not in known
    )
    del part.graph.output[:]
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(part.SerializeToString(), options)
    return session.run(outputs, feeds)


def wilson(p: float, n: int, z: float = 1.959963984540054) -> list[float]:
    middle, spread = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [(middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)]


def figures(ann_path: str, snn_path: str, x: np.ndarray, labels: np.ndarray, T: int) -> dict:
    """``by_timestep``, ``by_class``, ``layers``, ``replay_mismatches`` and operations, as in the
    JSON; layers, classes and operations after ``T`` steps, the file's own T."""
    ann, snn = onnx.load(ann_path), onnx.load(snn_path)
    props = {p.key: p.value for p in snn.metadata_props}
    neurons = json.loads(props["na_convert.neurons"])
    nodes = [next(n for n in snn.graph.node if n.name == neuron["name"]) for neuron in neurons]
    theta = [next(a.f for a in node.attribute if a.name == "threshold") for node in nodes]
    logits = {t: [] for t in (0, *range(1, T + 1))}
    sums: list[dict[str, Any]] = [{} for _ in neurons]
    counts: list[Any] = [0 for _ in neurons]
    mismatches = 0
    for start in range(0, len(x), 60):
        feeds = {ann.graph.input[0].name: x[start : start + 60]}
        inner = [n[key] for n in neurons for key in ("output", "root")]
        y, *values = run(ann, [ann.graph.output[0].name, *inner], feeds)
        logits[0].append(y)
        recorded = [name for node in nodes for name in (node.output[0], node.input[0])]
        for t in range(1, T + 1):
            y, *seen = run(
                snn, [snn.graph.output[0].name, *recorded], {**feeds, "timesteps": np.array(t)}
            )
            logits[t].append(y)
        given = dict(zip([n.output[0] for n in nodes], values[::2], strict=True))
        replayed = run(
            snn, [node.input[0] for node in nodes], {**feeds, **given, "timesteps": np.array(1)}
        )
        for i, neuron in enumerate(neurons):
            p, level = neuron["levels"], np.round(values[2 * i] / neuron["output_step"])
            a, own = level / p, np.float64(values[2 * i + 1])
            count = np.count_nonzero(seen[2 * i].reshape(T, *a.shape), axis=0)
            mean = np.float64(seen[2 * i + 1].reshape(T, *a.shape)).mean(axis=0)
            even, ideal = (np.clip(np.floor(T * z / theta[i] + 0.5), 0, T) for z in (mean, own))
            tie = np.abs(T * mean / theta[i] + 0.5 - np.round(T * mean / theta[i] + 0.5)) < 1e-5
            parts = {
                "clipping": np.clip(a, 0, 1) - a,
                "quantisation": ideal / T - np.clip(a, 0, 1),
                "inherited": (even - ideal) / T,
                "unevenness": (count - even) / T,
                "total": count / T - a,
            }
            found = {
                "spike_rate": count / T, "unevenness": (count != even) & ~tie,
                "occasional": (level == 0) & (count > 0), "mean_error": parts["total"],
                "at_lowest": level == 0, "at_highest": level == p,
                "between": (level > 0) & (level < p), "saturation": count == T,
                "squared error": parts["total"] ** 2, "squared output": a**2,
                **{f"{k} mean": v for k, v in parts.items()},
                **{f"{k} mean_abs": np.abs(v) for k, v in parts.items()},
            }  # fmt: skip
            for key, value in found.items():
                sums[i][key] = sums[i].get(key, 0) + value.sum() / (len(x) * a[0].size)
            counts[i] = counts[i] + count.sum(axis=0)
            u, fired = np.full(a.shape, theta[i] / 2), 0
            for _ in range(p):  # constant current: the ANN's own level
                u = u + replayed[i]
                fired, u = fired + (u >= theta[i]), u - theta[i] * (u >= theta[i])
            edge = np.abs(own / (theta[i] / p) - np.floor(own / (theta[i] / p)) - 0.5) < 1e-4
            mismatches += int(np.count_nonzero((fired != level) & ~edge))
    classes = {t: np.concatenate(y).argmax(1) for t, y in logits.items()}
    right = {t: np.mean(c == labels) for t, c in classes.items()}
    rows = []
    for t in range(1, T + 1):
        agreement, n = np.mean(classes[t] == classes[0]), len(labels)
        gap = np.float64(np.concatenate(logits[t])) - np.concatenate(logits[0])
        rows.append({
            "T": t, "agreement": agreement, "ann_accuracy": right[0], "snn_accuracy": right[t],
            "drop": right[0] - right[t], "logit_rmse": sqrt(np.mean(gap**2)),
            "agreement_interval": wilson(agreement, n), "ann_interval": wilson(right[0], n),
            "snn_interval": wilson(right[t], n),
        })  # fmt: skip
    by_class = [
        {
            "label": int(c), "count": int(np.sum(labels == c)),
            "ann_accuracy": np.mean(classes[0][labels == c] == c),
            "snn_accuracy": np.mean(classes[T][labels == c] == c),
            "agreement": np.mean((classes[T] == classes[0])[labels == c]),
        }
        for c in np.unique(labels)
    ]  # fmt: skip
    layers = [
        {
            "name": neuron["name"], "exercised": s["between"] > 0,
            "relative_error": sqrt(s["squared error"] / s["squared output"]),
            "error": {
                k: {m: s[f"{k} {m}"] for m in ("mean", "mean_abs")}
                for k in ("clipping", "quantisation", "inherited", "unevenness", "total")
            },
            **{k: v for k, v in s.items() if " " not in k},
        }
        for neuron, s in zip(neurons, sums, strict=True)
    ]  # fmt: skip
    spikes = {node.output[0]: c / len(x) for node, c in zip(nodes, counts, strict=True)}
    return {
        "by_timestep": rows, "by_class": by_class, "layers": layers,
        "replay_mismatches": mismatches, "operators": operations(snn, spikes, x.shape[1:]),
    }  # fmt: skip


def operations(snn: onnx.ModelProto, spikes: dict[str, np.ndarray], image: tuple[int, ...]) -> dict:
    """Multiply-accumulates and synaptic operations of each Conv and Gemm, by node name."""
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in snn.graph.initializer}
    found = {}
    for node in snn.graph.node:
        if node.op_type == "Gemm":
            found[node.name] = (weights[node.input[1]].size, 0.0)
        if node.op_type != "Conv":
            continue
        outputs, _, *kernel = weights[node.input[1]].shape
        attributes = {a.name: list(a.ints) for a in node.attribute}
        strides, pads = attributes.get("strides", [1, 1]), attributes.get("pads", [0, 0, 0, 0])
        count = spikes.get(node.input[0], np.zeros(image))
        leaving = []
        for n, k, s, p in zip(count.shape[1:], kernel, strides, pads, strict=False):
            arrivals = [
                i * s - p + j for i, j in product(range((n + 2 * p - k) // s + 1), range(k))
            ]
            leaving.append(np.bincount([r for r in arrivals if 0 <= r < n], minlength=n))
        fan_out = outputs * np.outer(*leaving)
        found[node.name] = (int(len(count) * fan_out.sum()), float((count * fan_out).sum()))
    return found
