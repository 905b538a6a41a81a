"""Draw who computes which file, and what the worst liars win: docs/pictures/placement.svg.

python scripts/draw_placement.py > docs/pictures/placement.svg
"""

from collections.abc import Iterator

from byzshield_exp.assignments import Assignment, mols
from byzshield_exp.distortion import worst_case

_CELL, _LEFT, _TOP = 22, 92, 64  # pixels
_HONEST, _LIE, _WON = "#7fb4d6", "#d55e00", "#f6c7a3"


def picture(assignment: Assignment, num_byzantine: int) -> str:
    """Draw a placement as SVG: a row a worker, a column a file, a square a replica."""
    worst = worst_case(assignment, num_byzantine)
    liars = set(worst.workers)
    holders = assignment.workers_of_file.tolist()
    won = [f for f, held in enumerate(holders) if len(liars & {*held}) >= assignment.majority]
    width = _LEFT + assignment.num_files * _CELL + 14
    height = _TOP + assignment.num_workers * _CELL + 64
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
            f"<title>{_sentence(assignment, num_byzantine, won)}</title>",
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *_frame(assignment, liars, won),
            *_squares(assignment, liars),
            *_legend(assignment, num_byzantine, won, height),
            "</svg>\n",
        ]
    )


def _sentence(assignment: Assignment, num_byzantine: int, won: list[int]) -> str:
    return (
        f"{num_byzantine} liars of {assignment.num_workers} workers win {len(won)} of "
        f"{assignment.num_files} files, r = {assignment.replication}"
    )


def _frame(assignment: Assignment, liars: set[int], won: list[int]) -> Iterator[str]:
    """Shade the files that are won, and number files and workers."""
    tall = assignment.num_workers * _CELL
    for file in won:
        yield _rect(_LEFT + file * _CELL, _TOP, _CELL, tall, _WON)
    yield _label(_LEFT, _TOP - 28, "files")
    for file in range(assignment.num_files):
        middle = _LEFT + file * _CELL + _CELL // 2
        yield _label(middle, _TOP - 8, str(file), anchor="middle", bold=file in won)
    for worker in range(assignment.num_workers):
        text = f"{'liar' if worker in liars else 'worker'} {worker}"
        low = _TOP + worker * _CELL + 15
        yield _label(_LEFT - 8, low, text, anchor="end", bold=worker in liars)


def _squares(assignment: Assignment, liars: set[int]) -> Iterator[str]:
    for worker, files in enumerate(assignment.files_of_worker.tolist()):
        for file in files:
            colour = _LIE if worker in liars else _HONEST
            left, top = _LEFT + file * _CELL + 3, _TOP + worker * _CELL + 3
            yield _rect(left, top, _CELL - 6, _CELL - 6, colour)


def _legend(
    assignment: Assignment, num_byzantine: int, won: list[int], height: int
) -> Iterator[str]:
    yield _label(14, 22, _sentence(assignment, num_byzantine, won) + " (MOLS)", bold=True)
    low = height - 34
    for left, colour, text in (
        (_LEFT, _HONEST, "a replica: this worker computes this file"),
        (_LEFT + 270, _LIE, "a forged one"),
        (_LEFT + 385, _WON, f"{assignment.majority} of {assignment.replication} forged: won"),
    ):
        yield _rect(left, low, 14, 14, colour)
        yield _label(left + 20, low + 12, text)


def _rect(left: int, top: int, width: int, height: int, colour: str) -> str:
    return f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="{colour}"/>'


def _label(left: int, low: int, text: str, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{left}" y="{low}" text-anchor="{anchor}"{weight} fill="#222">{text}</text>'


if __name__ == "__main__":
    print(picture(mols(15, 3), num_byzantine=3), end="")
