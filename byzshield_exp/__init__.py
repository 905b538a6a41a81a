"""Train a neural network with workers of which some lie: placement, vote, robust aggregation."""

__version__ = "0.1.0"
