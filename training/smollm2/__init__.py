"""Distillation of a drafter for SmolLM2-135M-Instruct from conversations that the target writes itself."""
