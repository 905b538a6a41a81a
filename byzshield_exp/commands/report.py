"""``byzshield report``: figures and tables of runs, and a page of them.

    byzshield report outputs
    byzshield report outputs by=attack,aggregator metric=best_test_accuracy
    byzshield report outputs/default out=figures formats=html,pdf

It takes folders of runs, or with runs below them at any depth, finished or not, and draws what
varied: accuracy over steps, at the end by q, K and r, heatmaps, what liars win, time, traffic and
memory. report.html opens in a browser without a network; figures/ has each figure for a paper and
its table.

    by       settings that tell runs apart; means are over all others (all that varied)
    metric   what is compared: a column of the tables of byzshield_exp.results.load (the accuracy)
    out      the folder of the report (FOLDER/report; of several folders: report)
    formats  of html, svg, pdf, png, csv, md, tex (all)
"""

from collections.abc import Sequence
from pathlib import Path

from byzshield_exp.commands.arguments import asks_for_help, near, read_keys, spelled
from byzshield_exp.commands.exits import exit_codes
from byzshield_exp.errors import ConfigError
from byzshield_exp.notices import say

_KEYS = {"by": (), "metric": (), "out": (), "formats": ()}
_FORMATS = ("html", "svg", "pdf", "png", "csv", "md", "tex")


def words(before: Sequence[str]) -> list[str]:
    """List what may come next, for tab completion."""
    return spelled(_KEYS)


@exit_codes()
def main(arguments: list[str]) -> None:
    """Make the report, and say where it is.

    Raises:
        ConfigError: for bad input, or folders without runs.
    """
    if not arguments or asks_for_help(arguments):
        say(__doc__ or "")
        return
    folders, given = _split(arguments)
    formats = _formats(given)
    out = Path(given["out"]) if "out" in given else _place(folders)
    try:
        import altair  # noqa: F401
        import pandas  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"report needs {error.name}: pip install 'byzshield_exp[report]'"
        ) from error
    from byzshield_exp.report.making import make_report
    from byzshield_exp.report.typeset import to_lines

    by = tuple(filter(None, given.get("by", "").split(",")))
    made = make_report(folders, out, by, given.get("metric"), formats)
    for line in [*to_lines(made.table), *made.lines]:
        say(line)
    for row in made.left.itertuples():
        say(f"{row.state}: {row.run} ({row.reason})")
    say(f"{len(made.figures)} figures in {made.folder / 'figures'}")
    if "html" in formats:
        say(f"the page: {made.folder / 'report.html'}")


def _split(arguments: Sequence[str]) -> tuple[list[Path], dict[str, str]]:
    """Separate folders, whose names may have an equals sign, from keys.

    Raises:
        ConfigError: if there is no folder, or an argument is neither.
    """
    keys = [one for one in arguments if one.partition("=")[0] in _KEYS and "=" in one]
    folders = [one for one in arguments if one not in keys]
    for folder in folders:
        if not Path(folder).is_dir():
            known = ", ".join(_KEYS)
            meant = near(folder.partition("=")[0], _KEYS)
            raise ConfigError(f"{folder} is no folder; the keys are {known}{meant}")
    if not folders:
        raise ConfigError("no folder is given: byzshield report FOLDER, of runs or with runs below")
    return [Path(folder) for folder in folders], read_keys(keys, _KEYS)


def _formats(given: dict[str, str]) -> tuple[str, ...]:
    chosen = tuple(given.get("formats", ",".join(_FORMATS)).split(","))
    for one in chosen:
        if one not in _FORMATS:
            raise ConfigError(f"formats={one} must be of {', '.join(_FORMATS)}")
    return chosen


def _place(folders: Sequence[Path]) -> Path:
    return folders[0] / "report" if len(folders) == 1 else Path("report")
