"""Print tables of ByzShield beside what is computed here, and name what differs."""

from collections.abc import Iterable

from byzshield_exp.distortion.papers import TABLES, PrintedTable
from byzshield_exp.distortion.report import columns, describe

_COLUMNS = ("c_max", "eps_hat", "baseline", "FRC", "gamma")
_ROUNDING = 0.0051  # the print has two digits
Pair = tuple[int | float | None, int | float | None]  # printed, computed
Pairs = dict[int, tuple[Pair, ...]]  # per q: one for each of _COLUMNS


def papers(tables: Iterable[PrintedTable] = TABLES, markdown: bool = False) -> str:
    """Print tables of the paper: printed and computed values, and how many of them agree."""
    return "\n\n".join(_spelled(table, markdown) for table in tables)


def _spelled(table: PrintedTable, markdown: bool) -> str:
    pairs = _pairs(table)
    cells = [[str(q), *map(_cell, row)] for q, row in pairs.items()]
    title = f"{table.title} ({'printed / computed' if table.rows else 'computed'})"
    parts = [f"### {title}" if markdown else title, columns(["q", *_COLUMNS], cells, markdown)]
    if table.rows:
        parts += _differences(table, pairs, markdown)
    return ("\n\n" if markdown else "\n").join([*parts, *filter(None, [table.remark])])


def _differences(table: PrintedTable, pairs: Pairs, markdown: bool) -> list[str]:
    """Say how many values are as printed, by column where not all of them are."""
    if all(_agree(pair) for row in pairs.values() for pair in row):
        return [f"All {len(pairs) * len(_COLUMNS)} values are as printed."]
    lines = []
    for name, column in zip(_COLUMNS, zip(*pairs.values(), strict=True), strict=True):
        apart = max(abs((ours or 0.0) - (printed or 0.0)) for printed, ours in column)
        equal = sum(map(_agree, column))
        far = "rounding" if equal == len(column) else f"{apart:.3f}"
        lines.append([name, f"{equal} of {len(column)}", far])
    head = ["column", "as printed", "largest difference"]
    star = "\\*" if markdown else "*"
    return [columns(head, lines, markdown), f"{star} the print is wrong: {table.erratum}"]


def _pairs(table: PrintedTable) -> Pairs:
    assignment, found = table.make(), {}
    for q in table.numbers:
        row = describe(assignment, q)
        ours = [row[key] for key in ("epsilon_hat", "epsilon_baseline", "epsilon_frc", "gamma")]
        printed = table.rows.get(q, (None,) * len(_COLUMNS))
        found[q] = tuple(zip(printed, [row["c_max"], *ours], strict=True))
    return found


def _cell(pair: Pair) -> str:
    printed, ours = pair
    said = f"{ours:.3f}" if isinstance(ours, float) else str(ours)
    if printed is None:
        return said
    return f"{printed:g} / {said}{'' if _agree(pair) else ' *'}"


def _agree(pair: Pair) -> bool:
    printed, ours = pair
    return printed is not None and ours is not None and abs(printed - ours) < _ROUNDING
