"""The load bar: preset choice, progress and status."""
