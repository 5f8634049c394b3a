"""SNNs as NIR files (Neuromorphic Intermediate Representation, Pedersen et al., Nature
Communications 2024), which other simulators and neuromorphic hardware read.

In the order of the data: `encoding` (the membrane at the first step, no rounding), `boundaries`
(where the NIR graph begins and ends), `lowering` (with `operators`, `maxima`, `movement`,
`values`, `geometry`, `builder`) to a `network`; `pulse` (membranes that start at 0); `targets`
(what a reader cannot hold); `outside` (what the Input takes); `file` (to HDF5 and back);
`verification` of the file as it is `read_back`, run in numpy (`simulate`, with the neuron's `law`);
`timesteps` that it is right at.
`export` is all of it. docs/nir.md.
"""
