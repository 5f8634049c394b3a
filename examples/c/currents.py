"""Images to the analog currents that reference.c reads.

    na-convert export net.snn.onnx -o network.npz
    python currents.py net.snn.onnx network.npz images.npy currents

images.npy: [N, ...], as the network's input takes them. The currents are those of onnxruntime, in
whole units of the layer's weights: clip(round(gain * x), low, high).
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime

snn, exported, images, output = sys.argv[1:]
numbers = np.load(exported)
currents = json.loads(str(numbers["network"]))["currents"]
model = onnx.load(snn)
known = {value.name for value in (*model.graph.input, *model.graph.output)}
tensors = list(dict.fromkeys(current["tensor"] for current in currents))
model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in known)
session = onnxruntime.InferenceSession(model.SerializeToString())
image = session.get_inputs()[0].name
x = np.load(images)
wanted = [name for name in tensors if name != image]
found = {image: x, **dict(zip(wanted, session.run(wanted, {image: x}), strict=True))}

parts = []
for i, current in enumerate(currents):
    gain, low, high = (numbers[f"current{i}/{name}"] for name in ("gain", "low", "high"))
    units = np.clip(np.rint(found[current["tensor"]] * gain), low, high).astype(np.int32)
    parts.append(np.broadcast_to(units, (len(x), *current["shape"])).reshape(len(x), -1))
np.concatenate(parts, axis=1).tofile(output)
