"""Integer networks for hardware: numbers and what to do with them, without ONNX around them.

In the order of the data: `lowering` turns an integer network into a `program`, a list of
operations on one memory of spike counts; `execution` runs it in numpy; `npz` and `header` write it;
`export` is all of it, from an int8 file to a file that was checked. docs/hardware.md has the
layout.
"""
