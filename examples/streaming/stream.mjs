// Stream frames through a step file, one time step per frame, in JavaScript.
//
//     npm install --ignore-scripts        (onnxruntime-web, and onnxruntime-node)
//     python required_states.py net.step.onnx net.js.onnx net.start.json
//     node stream.mjs net.js.onnx net.start.json frames.json outputs.json [onnxruntime-node]
//
// frames.json: {"dims": [N, ...], "frames": [[...], ...]}, the numbers of each frame in one row.
// outputs.json: the first output after each step. In a page, fetch takes the place of fs.
import fs from "node:fs";

const [model, start, frames, outputs, library = "onnxruntime-web"] = process.argv.slice(2);
const ort = await import(library);
const session = await ort.InferenceSession.create(fs.readFileSync(model));
const tensor = ({ type, dims, data }) => {
  const arrays = { float32: Float32Array, uint8: Uint8Array, int64: BigInt64Array };
  return new ort.Tensor(type, arrays[type].from(data, type === "int64" ? BigInt : Number), dims);
};
const read = (file) => JSON.parse(fs.readFileSync(file, "utf8"));

let state = Object.fromEntries(
  Object.entries(read(start)).map(([name, value]) => [name, tensor(value)]));
const image = session.inputNames.find((name) => !(name in state));
const { dims, frames: rows } = read(frames);
const found = [];
for (const data of rows) {
  const made = await session.run({ [image]: tensor({ type: "float32", dims, data }), ...state });
  state = Object.fromEntries(Object.keys(state).map((name) => [name, made[`${name}_next`]]));
  found.push(Array.from(made[session.outputNames[0]].data));
}
fs.writeFileSync(outputs, JSON.stringify(found));
