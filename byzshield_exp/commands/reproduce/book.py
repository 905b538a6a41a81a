"""Reproduce figures and tables one after the other, and write down what came out."""

from dataclasses import dataclass
from pathlib import Path

from byzshield_exp.commands.exits import BAD_INPUT, INTERRUPTED, STOPPED
from byzshield_exp.commands.reproduce.comparison import Comparison
from byzshield_exp.commands.reproduce.contents import TABLES
from byzshield_exp.commands.reproduce.doing import done
from byzshield_exp.commands.reproduce.page import page
from byzshield_exp.commands.reproduce.published import figures
from byzshield_exp.commands.reproduce.spelling import as_csv, spelled
from byzshield_exp.distortion.papers import TABLES as PRINTED
from byzshield_exp.distortion.papers import PrintedTable
from byzshield_exp.distortion.side_by_side import papers
from byzshield_exp.errors import ConfigError
from byzshield_exp.files import write_atomically
from byzshield_exp.notices import say

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
    tables: list[PrintedTable] = []
    compared: list[Comparison] = []
    worst = 0
    for name in order.wanted:
        if name in TABLES:
            tables += [table for table in PRINTED if table.number == TABLES[name]]
            say(f"{papers(tables[-1:])}\n")
            _write(order.out / f"{name}.md", papers(tables[-1:], markdown=True))
            continue
        comparison, code = done(figures()[name], order.scale, order.overrides)
        if code in _ENDS:
            return code
        worst = worst or code
        if "plan=true" not in order.overrides:
            compared.append(comparison)
            _show(comparison, order.out)
    if order.page and "plan=true" not in order.overrides:
        _write(order.page, page(order.command, order.scale, tables, compared))
        say(f"written: {order.page}")
    return worst


def _show(comparison: Comparison, out: Path) -> None:
    figure = comparison.figure
    say(f"\n{figure.title} (scale={comparison.scale})\n{spelled(comparison)}")
    for line in figure.differs(comparison.scale):
        say(line)
    stem = out / figure.name.replace("/", "_")
    _write(stem.with_suffix(".md"), f"### {figure.title}\n\n{spelled(comparison, markdown=True)}")
    _write(stem.with_suffix(".csv"), as_csv(comparison))
    say(f"written: {stem}.md, .csv\n")


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, f"{text.rstrip()}\n".encode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}") from error
