"""A vote of your own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from byzshield_exp.votes import ABSENT


def rounded(replicas: Sequence[Sequence[Tensor | None]], digits: int = 4) -> Tensor:
    """Replicas are equal whose entries are equal after rounding to so many decimals."""
    labels = torch.full((len(replicas), len(replicas[0])), ABSENT)
    for file, rows in enumerate(replicas):
        seen: dict[bytes, int] = {}  # and where first
        for place, row in enumerate(rows):
            if row is not None:
                key = (row.round(decimals=digits) + 0.0).cpu().numpy().tobytes()
                labels[file, place] = seen.setdefault(key, place)
    return labels
