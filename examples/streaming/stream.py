"""Stream frames through a step file, one time step per frame.

    na-convert MODEL.onnx --form step -o net.step.onnx
    python stream.py net.step.onnx frames.npy outputs.npy

frames.npy: [T, N, ...], T frames for each of N streams, as the network's input takes them.
outputs.npy: [T, N, ...], its first output after each step, on the mean over the steps up to then.
"""

import sys

import numpy as np
import onnxruntime

model, frames, outputs = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.log_severity_level = 3  # onnxruntime warns that the states have defaults
session = onnxruntime.InferenceSession(model, options)
image = session.get_inputs()[0].name
names = [output.name for output in session.get_outputs()]

state, found = {}, []  # the first step takes the file's own state
for frame in np.load(frames):
    made = dict(zip(names, session.run(names, {image: frame, **state}), strict=True))
    state = {n.removesuffix("_next"): made[n] for n in names if n.endswith("_next")}
    found.append(made[names[0]])
np.save(outputs, np.stack(found))
