"""Helpers of several tests: tiny models, tokenizers, a model hub on this machine, the replayed page."""
