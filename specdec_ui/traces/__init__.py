"""The Traces tab: saving, opening and drawing answers."""
