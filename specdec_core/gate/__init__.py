"""The gate: compatibility check of a pair, from configurations and tokenizers, before any weight is read."""
