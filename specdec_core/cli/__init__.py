"""The `specdec` command: its parser, its commands, and a chat in the terminal."""

from .commands import main

__all__ = ["main"]
