"""Exports made here, with the installed versions of torch and onnxruntime, for `test_exports`."""
