"""Training of the weights that ship, a package for each pair."""
