"""A step file for onnxruntime's JavaScript packages, in which states are inputs like any other.

    python required_states.py net.step.onnx net.js.onnx net.start.json

In a step file a state is an input with a default, which the JavaScript packages do not let a caller
give: onnxruntime-web refuses it, onnxruntime-node takes the default without a word. The file that
this writes has no defaults; net.start.json holds them, the state before the first step.
"""

import json
import sys

import onnx

source, target, start = sys.argv[1:]
model = onnx.load(source)
inputs = {i.name for i in model.graph.input}
defaults = [i for i in model.graph.initializer if i.name in inputs]
for initializer in defaults:
    model.graph.initializer.remove(initializer)
onnx.save(model, target)

types = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT64: "int64",
         onnx.TensorProto.UINT8: "uint8"}  # fmt: skip
state = {
    i.name: {"type": types[i.data_type], "dims": list(i.dims),
             "data": onnx.numpy_helper.to_array(i).ravel().tolist()}
    for i in defaults
}  # fmt: skip
with open(start, "w") as file:
    json.dump(state, file)
