"""Loading a pair: plan, placement, weights, warm-up and step times."""
