"""A placement of your own."""

import torch

from byzshield_exp.assignments import Assignment


def ring(num_workers: int, replication: int) -> Assignment:
    """File i goes to workers i, i + 1, ..., i + r - 1 of a ring: K files, l = r."""
    behind = torch.arange(num_workers)[:, None] - torch.arange(replication)
    return Assignment(behind % num_workers)
