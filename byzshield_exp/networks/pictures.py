"""A check of the size of pictures."""

Shape = tuple[int, int, int]
"""Channels, height and width."""


def refuse_small(network: str, shape: Shape, smallest: int) -> None:
    """Refuse pictures of which a network's poolings would leave nothing.

    Raises:
        ValueError: if height or width is below ``smallest``.
    """
    _, height, width = shape
    if min(height, width) < smallest:
        raise ValueError(
            f"{network} needs pictures of at least {smallest} x {smallest}, got {height} x {width}"
        )
