"""Training of the embedded pair on children's stories."""
