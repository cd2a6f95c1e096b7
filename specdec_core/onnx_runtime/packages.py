"""Presence of the optional packages. Needs neither."""

from __future__ import annotations

from importlib.util import find_spec


def missing_package() -> str | None:
    """Return the name of the package that is not installed, None if both are."""
    return next((name for name in ("onnx", "onnxruntime") if not _installed(name)), None)


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # it was made unavailable in this process
        return False
