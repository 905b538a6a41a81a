"""Write the figures of comparisons as pictures, and as a page that opens in a browser."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from byzshield_exp.commands.reproduce.comparison import Comparison
from byzshield_exp.commands.reproduce.drawn import drawn, overview
from byzshield_exp.files import write_atomically
from byzshield_exp.report import drawing
from byzshield_exp.report.figures import Figure
from byzshield_exp.report.page import page
from byzshield_exp.report.theme import PAPER, SCREEN
from byzshield_exp.report.typeset import to_latex

PAGE = "reproduced.html"
_FORMS = ("svg", "pdf", "png")


def write_pictures(compared: Sequence[Comparison], command: str, out: Path) -> int:
    """Draw all figures into a folder, with a page of them; return how many there are.

    Raises:
        OSError: if the folder cannot be written.
    """
    figures = [figure for comparison in compared for figure in drawn(comparison)]
    figures = [*_overviews(compared), *figures]
    files = {figure.name: _write(figure, out, _FORMS) for figure in figures}
    for figure in figures:
        write_atomically(out / f"{figure.name}.tex", to_latex(figure.table).encode())
    shown = [(figure, drawing.in_page(figure.specification(SCREEN))) for figure in figures]
    remarks = dict.fromkeys(
        line
        for comparison in compared
        for line in comparison.figure.differs(comparison.scale, of_all=True)
    )
    lines = [command, *remarks]
    if figures:
        text = page("Ours beside the papers'", lines, {}, shown, drawing.script(), files)
        write_atomically(out / PAGE, text.encode())
    return len(figures)


def write_few(compared: Sequence[Comparison], folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Draw, of each paper, an overview and the curves of its first figure.

    Returns:
        By paper, their titles and the names of their files.

    Raises:
        OSError: if the folder cannot be written.
    """
    few: dict[str, list[tuple[str, str]]] = {}
    for group, members in groupby(compared, key=lambda one: one.figure.group):
        for figure in (*_overviews(list(members)), *_first_curves(compared, group)):
            (name,) = _write(figure, folder, ("svg",))
            few.setdefault(group, []).append((f"{figure.title}. {figure.caption}", name))
    return few


def _overviews(compared: Sequence[Comparison]) -> list[Figure]:
    made = [
        overview(group, list(members))
        for group, members in groupby(compared, key=lambda one: one.figure.group)
    ]
    return [figure for figure in made if figure is not None]


def _first_curves(compared: Sequence[Comparison], group: str) -> list[Figure]:
    of_group = (one for one in compared if one.figure.group == group)
    return next((found[:1] for one in of_group if (found := list(drawn(one)))), [])


def _write(figure: Figure, folder: Path, forms: tuple[str, ...]) -> list[str]:
    made = drawing.pictures(figure.specification(PAPER), forms)
    for form, content in made.items():
        write_atomically(folder / f"{figure.name}.{form}", content)
    return [f"{figure.name}.{form}" for form in made]
