"""Quantities formatted for people."""

from __future__ import annotations


def gigabytes(size_bytes: int) -> str:
    """Format a size in units of 10^9 bytes, or of 10^6 below 50 MB."""
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 5e7 else f"{size_bytes / 1e6:,.1f} MB"
