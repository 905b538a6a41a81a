"""Reproduce figures and tables one after the other, and write down what came out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from byzshield_exp.commands.exits import BAD_INPUT, INTERRUPTED, STOPPED
from byzshield_exp.commands.reproduce.comparison import Comparison
from byzshield_exp.commands.reproduce.contents import TABLES
from byzshield_exp.commands.reproduce.doing import done
from byzshield_exp.commands.reproduce.published import figures
from byzshield_exp.commands.reproduce.results_page import Shown, results_page
from byzshield_exp.commands.reproduce.spelling import as_csv, spelled
from byzshield_exp.distortion.papers import TABLES as PRINTED
from byzshield_exp.distortion.papers import PrintedTable
from byzshield_exp.distortion.side_by_side import papers
from byzshield_exp.errors import ConfigError
from byzshield_exp.files import write_atomically
from byzshield_exp.notices import say, warn

_ENDS = (BAD_INPUT, STOPPED, INTERRUPTED)  # exit codes after which nothing more is started


@dataclass(frozen=True)
class Order:
    """What is to be reproduced.

    Attributes:
        command: as it was typed.
        wanted: names of figures and tables.
        scale: one of ``SCALES``.
        overrides: for the runs.
        out: folder of tables and pictures.
        page: the page to write, if any.
    """

    command: str
    wanted: tuple[str, ...]
    scale: str
    overrides: tuple[str, ...]
    out: Path
    page: Path | None


def reproduce(order: Order) -> int:
    """Do, print and write all that is wanted.

    Returns:
        The exit code: 0, or that of the first figure whose runs have failed.

    Raises:
        ConfigError: if a file cannot be written.
    """
    tables = [table for table in PRINTED if f"table{table.number}" in order.wanted]
    for table in tables:
        say(f"{papers([table])}\n")
    compared: list[Comparison] = []
    first_code = 0
    for name in order.wanted:
        if name in TABLES:
            continue
        comparison, code = done(figures()[name], order.scale, order.overrides)
        if code in _ENDS:
            return code
        first_code = first_code or code
        compared.append(comparison)
        if "plan=true" not in order.overrides:
            _show(comparison)
    if "plan=true" not in order.overrides:
        try:
            _write(order, tables, compared)
        except OSError as error:
            raise ConfigError(f"{error.filename} cannot be written: {error.strerror}") from error
    return first_code


def _show(comparison: Comparison) -> None:
    figure = comparison.figure
    lines = [f"\n{figure.title} (scale={comparison.scale})", spelled(comparison)]
    for line in [*lines, *figure.differs(comparison.scale), ""]:
        say(line)


def _write(order: Order, tables: Sequence[PrintedTable], compared: Sequence[Comparison]) -> None:
    """Write tables, pictures and the page."""
    for table in tables:
        _text(order.out / f"table{table.number}.md", papers([table], markdown=True))
    for one in compared:
        stem = order.out / one.figure.name.replace("/", "_")
        _text(stem.with_suffix(".md"), f"### {one.figure.title}\n\n{spelled(one, markdown=True)}")
        _text(stem.with_suffix(".csv"), as_csv(one))
    pictures = _pictures(order, compared) if compared else {}
    say(f"written: {order.out}")
    if order.page:
        _text(order.page, results_page(order.command, order.scale, tables, compared, pictures))
        say(f"written: {order.page}")


def _pictures(order: Order, compared: Sequence[Comparison]) -> Shown:
    """Draw all pictures; return those of the page, by paper."""
    try:
        from byzshield_exp.commands.reproduce.gallery import write_few, write_pictures
    except ImportError as error:
        warn(f"no pictures without {error.name}: pip install 'byzshield_exp[report]'")
        return {}
    write_pictures(compared, order.command, order.out)
    if order.page is None:
        return {}
    folder = order.page.with_suffix("")
    found = write_few(compared, folder)
    return {
        group: [(said, f"{folder.name}/{name}") for said, name in few]
        for group, few in found.items()
    }


def _text(path: Path, text: str) -> None:
    write_atomically(path, f"{text.rstrip()}\n".encode())
