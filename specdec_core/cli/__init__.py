"""The `specdec` command: its parser, its commands, and the chat in the terminal."""

from .commands import main

__all__ = ["main"]
