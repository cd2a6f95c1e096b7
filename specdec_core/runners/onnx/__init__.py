"""The runner on ONNX Runtime, for CPUs.

Only `families` can be imported without the packages onnxruntime and onnx.
"""
