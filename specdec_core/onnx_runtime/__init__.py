"""ONNX Runtime for the runners and the samplers: graphs, sessions, threads. Knows nothing of models.

The packages onnxruntime and onnx are optional. Only `builder` and `session` cannot be imported without them.
"""
