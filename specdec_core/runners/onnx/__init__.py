"""The runner on ONNX Runtime, for CPUs.

The packages onnxruntime and onnx are optional: only `families` can be imported without them.
"""
