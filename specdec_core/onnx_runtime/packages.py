"""Check for the optional packages. Needs neither."""

from __future__ import annotations

from importlib import import_module

from ..errors import quote


def obstacle() -> str | None:
    """Return the reason why onnx or onnxruntime cannot be used, None if both can. Imports them."""
    for name in ("onnx", "onnxruntime"):
        try:
            import_module(name)
        except ModuleNotFoundError:
            return f"{name} is not installed"
        except Exception as error:  # a library of the system that is too old, or missing
            return f"{name} cannot be imported: {quote(error)}"
    return None
