"""Load bar: preset choice, progress and status."""
