"""What trained the weights that ship, a package for each pair."""
