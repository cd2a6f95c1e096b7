"""The gate: whether two models may be paired, decided before any weight is downloaded."""
