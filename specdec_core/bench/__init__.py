"""Measurements: speed, exactness and memory, with transformers' own generation and theory for comparison.

Built on the engine's public interface and on bare forwards of its runners. The engine knows nothing of it.
"""
