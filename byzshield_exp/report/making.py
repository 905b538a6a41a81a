"""Make a report of runs: figures, tables and the page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from byzshield_exp.errors import ConfigError
from byzshield_exp.files import write_atomically
from byzshield_exp.report import drawing, typeset
from byzshield_exp.report.comparisons import at_the_end, over_steps
from byzshield_exp.report.costs import costs, plane
from byzshield_exp.report.figures import Figure
from byzshield_exp.report.heatmaps import heatmaps
from byzshield_exp.report.liars import won, worst_by_size
from byzshield_exp.report.outcomes import counted, in_common, incomplete, main_table
from byzshield_exp.report.page import page
from byzshield_exp.report.study import Study, study_of
from byzshield_exp.report.theme import PAPER, SCREEN
from byzshield_exp.report.words import measure
from byzshield_exp.results import Runs, load
from byzshield_exp.results.outcome import ACCURACIES

FORMATS = ("html", "svg", "pdf", "png", "csv", "md", "tex")
FIGURES = "figures"  # below the folder of the report
_LISTING = ".report"  # what a report has written there: a later one removes no other file
_WRITERS = {"csv": typeset.to_csv, "md": typeset.to_markdown, "tex": typeset.to_latex}


@dataclass(frozen=True, eq=False)
class Written:
    """What a report has become.

    Attributes:
        folder: where it is.
        table: a row a setting.
        left: runs that are not done, with the reason.
        lines: how many runs there are, and remarks.
        figures: that were drawn.
    """

    folder: Path
    table: pd.DataFrame
    left: pd.DataFrame
    lines: tuple[str, ...]
    figures: tuple[Figure, ...]


def make_report(
    folders: Sequence[Path],
    out: Path,
    by: Sequence[str] = (),
    metric: str | None = None,
    formats: Sequence[str] = FORMATS,
) -> Written:
    """Draw what runs show, and write it.

    Args:
        folders: of runs, or with runs below them.
        out: folder of the report; files of an earlier one are replaced.
        by: settings that tell runs apart; empty: all that varied.
        metric: a column of ``results.load``; None: the accuracy that most runs have.
        formats: of ``FORMATS``.

    Raises:
        ConfigError: if there is no run, a name is unknown, or the folder cannot be written.
    """
    found = load([str(folder) for folder in folders])
    study = _study(found, by, metric)
    figures = tuple(_figures(study, bool(by)))
    left = incomplete(study, folders)
    common = in_common(study)
    lines = (counted(study, left), *study.remarks, *([f"All runs: {common}."] if common else []))
    written = Written(out, main_table(study), left, lines, figures)
    try:
        _write(written, _title(folders), formats)
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written: {error}") from error
    return written


def _study(found: Runs, by: Sequence[str], metric: str | None) -> Study:
    """Check the names, and choose what is compared.

    Raises:
        ConfigError: for the first name that is unknown.
    """
    varied = [*found.varied, "name"]
    for key in by:
        if key not in varied:
            there = ", ".join(varied)
            raise ConfigError(f"by={key} does not differ between these runs, there are {there}")
    known = [*_measures(found.runs), *_measures(found.steps)]
    if metric is not None and metric not in known:
        raise ConfigError(
            f"metric={metric} is unknown, there are {', '.join(dict.fromkeys(known))}"
        )
    name = metric or max(ACCURACIES, key=lambda one: _count(found, one))
    runs, steps = found.runs, found.steps
    if name not in runs:  # of steps alone: the last one counts
        last = steps.dropna(subset=name).groupby("folder")[name].last()
        runs = runs.assign(**{name: runs["folder"].map(last)})
    largest = max(float(table[name].max()) for table in (runs, steps) if name in table)
    return study_of(Runs(runs, steps, found.varied), measure(name, largest), by)


def _count(found: Runs, name: str) -> int:
    in_steps = found.steps[name].notna().sum() if name in found.steps else 0
    return int(found.runs[name].notna().sum() * 1000 + in_steps)


def _measures(table: pd.DataFrame) -> list[str]:
    """List the columns that are results, not settings."""
    first = list(table).index("approach") if "approach" in table else len(table.columns)
    return [
        str(name)
        for name in list(table)[:first]
        if pd.api.types.is_float_dtype(table[name]) or pd.api.types.is_integer_dtype(table[name])
        if name != "step" and table[name].notna().any()
    ]


def _figures(study: Study, is_chosen: bool) -> Iterator[Figure]:
    yield from over_steps(study)
    yield from at_the_end(study)
    yield from heatmaps(study, is_chosen)
    yield from worst_by_size(study)
    yield from won(study)
    yield from plane(study)
    yield from costs(study)


def _title(folders: Sequence[Path]) -> str:
    named = [folder.resolve().name for folder in folders]
    return f"Report of {', '.join(named)}"


def _write(written: Written, title: str, formats: Sequence[str]) -> None:
    folder = written.folder / FIGURES
    listing = folder / _LISTING
    for name in listing.read_text().splitlines() if listing.is_file() else ():
        (folder / Path(name).name).unlink(missing_ok=True)
    pictures = tuple(form for form in formats if form in drawing.PICTURES)
    files: dict[str, list[str]] = {}
    for figure in written.figures:
        made = drawing.pictures(figure.specification(PAPER), pictures) if pictures else {}
        made |= _tables(figure.table, formats)
        files[figure.name] = [f"{FIGURES}/{figure.name}.{form}" for form in made]
        for form, content in made.items():
            write_atomically(folder / f"{figure.name}.{form}", content)
    names = [Path(file).name for its in files.values() for file in its]
    write_atomically(listing, "".join(f"{name}\n" for name in names).encode())
    for form, content in _tables(written.table, formats).items():
        write_atomically(written.folder / f"table.{form}", content)
    if "html" in formats:
        write_atomically(written.folder / "report.html", _page(written, title, files).encode())


def _tables(table: pd.DataFrame, formats: Sequence[str]) -> dict[str, bytes]:
    return {form: _WRITERS[form](table).encode() for form in formats if form in _WRITERS}


def _page(written: Written, title: str, files: dict[str, list[str]]) -> str:
    drawn = [(figure, drawing.in_page(figure.specification(SCREEN))) for figure in written.figures]
    shown = {"Runs that are not done": written.left, "Settings": written.table}
    return page(title, written.lines, shown, drawn, drawing.script(), files)
