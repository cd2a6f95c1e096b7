"""Quantities formatted for people."""

from __future__ import annotations


def gigabytes(size_bytes: int) -> str:
    """Format a size in units of 10^9 bytes, or of 10^6 below 50 MB."""
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 5e7 else f"{size_bytes / 1e6:,.1f} MB"


def counted(count: int, noun: str) -> str:
    """Return a number of things, such as "1 token" or "1,200 tokens"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
