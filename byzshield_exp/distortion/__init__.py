"""HOW BAD CAN q LIARS BE: the most files they can win, over all choices of q workers."""

from byzshield_exp.distortion.worst_case import (
    WorstCase,
    count_distorted,
    most_without,
    worst_case,
)

__all__ = ["WorstCase", "count_distorted", "most_without", "worst_case"]
