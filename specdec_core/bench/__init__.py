"""The measurements: ours, the theory's and the peers', and what only a GPU can show.

Everything here stands on the engine's public side and on bare forwards of its runners; nothing in the engine
knows of it.
"""
