"""Train a neural network with workers of which some lie: placement, vote, robust aggregation."""
