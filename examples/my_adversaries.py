"""An adversary of your own."""

from byzshield_exp.assignments import Assignment


def passing(
    step: int, assignment: Assignment, num_byzantine: int, stride: int = 1
) -> tuple[int, ...]:
    """Let q workers side by side lie, others at every step: ``stride`` workers further."""
    first = step * stride
    return tuple((first + place) % assignment.num_workers for place in range(num_byzantine))
