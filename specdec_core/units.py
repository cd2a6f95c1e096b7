"""Quantities as people read them."""

from __future__ import annotations


def gigabytes(size_bytes: int) -> str:
    """In units of 10^9 bytes, or of 10^6 where that would be 0.0."""
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 5e7 else f"{size_bytes / 1e6:,.1f} MB"
