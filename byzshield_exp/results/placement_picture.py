"""Draw who computes which file, and what the worst set of liars wins."""

from collections.abc import Collection
from io import BytesIO
from typing import Any

import numpy as np

from byzshield_exp.assignments import Assignment

_LARGEST = 500  # files or workers of a picture
_WIDTH, _CELL, _DOTTED, _NUMBERED = 800, 18, 5, 10  # pixels: of the grid; of a cell, from which on
_MARGIN, _LINE, _LEAST_WIDTH = 34, 14, 330
_PAPER, _INK, _EMPTY = (255, 255, 255), (40, 40, 40), (238, 238, 238)
_HONEST, _LIAR = (86, 180, 233), (213, 94, 0)  # sky blue and vermillion of Okabe and Ito


def placement_png(assignment: Assignment, liars: Collection[int]) -> bytes | None:
    """Return a picture of workers (rows) and files (columns).

    The cells of liars are orange, those of honest workers blue. Where liars hold a majority of a
    file, their cells have a black dot, or are black where they are small.

    Args:
        assignment: who computes what.
        liars: workers.

    Returns:
        A PNG; None if there are more than 500 files or workers.
    """
    from PIL import Image, ImageDraw

    workers, files = assignment.num_workers, assignment.num_files
    if max(workers, files) > _LARGEST:
        return None
    size = max(1, min(_CELL, _WIDTH // max(files, workers)))
    held = assignment.incidence.numpy()
    lying = held & np.isin(np.arange(workers), list(liars))[:, None]
    won = lying.sum(axis=0) >= assignment.majority
    grid = _grid(held, lying, lying & won, size)
    height, width = grid.shape[:2]
    whole = max(width, _LEAST_WIDTH) + _MARGIN + 8, height + _MARGIN + 2 * _LINE + 8
    picture = Image.new("RGB", whole, _PAPER)
    picture.paste(Image.fromarray(grid), (_MARGIN, _MARGIN))
    pen = ImageDraw.Draw(picture)
    if size >= _NUMBERED:
        _number(pen, files, workers, size)
    below = _MARGIN + height + 4
    pen.text((_MARGIN, 2), f"{workers} workers (rows), {files} files (columns)", fill=_INK)
    pen.text((_MARGIN, below), f"orange: the {len(liars)} worst liars; blue: honest", fill=_INK)
    said = f"black: the {int(won.sum())} of {files} files that they win"
    pen.text((_MARGIN, below + _LINE), said, fill=_INK)
    content = BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def _grid(held: np.ndarray, lying: np.ndarray, winning: np.ndarray, size: int) -> np.ndarray:
    """Colour the cells ``[K, f]`` and enlarge them: ``[K size, f size, 3]``."""
    cells = np.empty((*held.shape, 3), dtype=np.uint8)
    cells[:] = _EMPTY
    cells[held], cells[lying] = _HONEST, _LIAR
    if size < _DOTTED:
        cells[winning] = _INK
    pixels = cells.repeat(size, axis=0).repeat(size, axis=1)
    if size >= _DOTTED:
        pixels[::size] = pixels[:, ::size] = _PAPER
        dot = np.zeros((size, size), dtype=bool)
        from_, to = size // 3 + 1, size - size // 3
        dot[from_:to, from_:to] = True
        pixels[np.kron(winning, dot).astype(bool)] = _INK
    return pixels


def _number(pen: Any, files: int, workers: int, size: int) -> None:
    """Write every fifth number beside the cells."""
    for file in range(0, files, 5):
        middle = _MARGIN + file * size + size // 2
        pen.text((middle, _MARGIN - 8), str(file), fill=_INK, anchor="mm")
    for worker in range(0, workers, 5):
        middle = _MARGIN + worker * size + size // 2
        pen.text((_MARGIN - 14, middle), str(worker), fill=_INK, anchor="mm")
