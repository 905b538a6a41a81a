"""Write a table as CSV, Markdown, LaTeX and lines for a terminal."""

from typing import Any

import pandas as pd

from byzshield_exp.notices import aligned

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def to_csv(table: pd.DataFrame) -> str:
    """Return a table with all digits."""
    return str(table.to_csv(index=False))


def to_markdown(table: pd.DataFrame) -> str:
    """Return a table for a page, numbers on the right."""
    head = [_escaped_markdown(name) for name in table.columns]
    rule = ["---:" if is_number else "---" for is_number in _numeric(table)]
    lines = [head, rule, *([_escaped_markdown(cell) for cell in row] for row in cells(table))]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_latex(table: pd.DataFrame) -> str:
    """Return a ``tabular`` with the rules of the package booktabs."""
    columns = "".join("r" if is_number else "l" for is_number in _numeric(table))
    rows = [" & ".join(map(_escaped_latex, row)) + r" \\" for row in cells(table)]
    head = " & ".join(map(_escaped_latex, table.columns)) + r" \\"
    lines = [r"% needs \usepackage{booktabs}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def cells(table: pd.DataFrame) -> list[list[str]]:
    """Return the cells as people read them: four decimals at most, a dash where there is none."""
    return [[_spelled(cell) for cell in row] for row in table.itertuples(index=False, name=None)]


def to_lines(table: pd.DataFrame) -> list[str]:
    """Return a table as lines for a terminal."""
    return aligned([list(map(str, table.columns)), *cells(table)])


def _numeric(table: pd.DataFrame) -> list[bool]:
    return [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]


def _spelled(cell: Any) -> str:
    if cell is None or cell != cell:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.4f}" if abs(cell) < 10 else f"{cell:.1f}"
    return str(cell)


def _escaped_markdown(cell: Any) -> str:
    return str(cell).replace("|", "\\|").replace("\n", " ")


def _escaped_latex(cell: Any) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in str(cell))
