"""Write the page: one HTML file that needs no network."""

from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd

from byzshield_exp.report.figures import Figure
from byzshield_exp.report.typeset import cells

_STYLE = """
:root { color-scheme: light; }
body { background: white; color: #1a1a1a; font: 15px/1.5 Arial, 'Liberation Sans', Helvetica,
  sans-serif; margin: 0 auto; max-width: 960px; padding: 16px 24px 60px; }
h1 { font-size: 24px; margin: 8px 0; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 4px; }
p { margin: 6px 0; } .quiet { color: #555; }
.chart { overflow-x: auto; } .chart svg { display: block; }
table { border-collapse: collapse; font-size: 13px; margin: 8px 0; }
th { border-bottom: 1px solid #444; text-align: left; vertical-align: bottom; }
td, th { padding: 3px 14px 3px 0; } td { border-bottom: 1px solid #eee; }
td { max-width: 440px; width: max-content; overflow-wrap: anywhere; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
.table { overflow: auto; max-height: 75vh; }
.short { white-space: nowrap; } summary { cursor: pointer; color: #0056a0; }
nav a { margin-right: 14px; display: inline-block; } a { color: #0056a0; }
@media print { nav, details { display: none; } section { break-inside: avoid; } }
"""
_SHORT = " class=short"
_SCRIPT = """
for (const spec of document.querySelectorAll('script.spec')) {
  const place = spec.previousElementSibling;
  const actions = {export: true, source: false, compiled: false, editor: false};
  vegaEmbed(place, JSON.parse(spec.textContent), {renderer: 'svg', actions})
    .then(() => { place.dataset.drawn = 'yes'; });
}
"""


def page(
    title: str,
    lines: Sequence[str],
    tables: Mapping[str, pd.DataFrame],
    figures: Sequence[tuple[Figure, str]],
    script: str,
    files: Mapping[str, Sequence[str]],
) -> str:
    """Return the page.

    Args:
        title: of the page.
        lines: paragraphs below it.
        tables: by title, before the figures.
        figures: each with its chart as text.
        script: vegaEmbed and what it needs.
        files: by figure, the names of its files beside the page.
    """
    links = "".join(f'<a href="#{one.name}">{escape(one.title)}</a> ' for one, _ in figures)
    parts = [
        f"<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8><title>{escape(title)}</title>",
        "<meta name=viewport content='width=device-width'>",
        f"<link rel=icon href='data:,'><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(line)}</p>" for line in lines),
        *(
            f"<h2>{escape(name)}</h2>{_table(table)}"
            for name, table in tables.items()
            if len(table)
        ),
        f"<nav><h2>Figures</h2>{links}</nav>",
        *(_section(one, spec, files.get(one.name, ())) for one, spec in figures),
        f"<script>{script}</script><script>{_SCRIPT}</script></body></html>\n",
    ]
    return "\n".join(parts)


def _section(figure: Figure, spec: str, files: Sequence[str]) -> str:
    links = " ".join(f'<a href="{name}">{name.rpartition(".")[2].upper()}</a>' for name in files)
    return (
        f'<section id="{figure.name}"><h2>{escape(figure.title)}</h2>'
        f"<p class=quiet>{escape(figure.caption)} {links}</p>"
        f'<div class=chart></div><script type="application/json" class=spec>{spec}</script>'
        f"<details><summary>Table</summary>{_table(figure.table)}</details></section>"
    )


def _table(table: pd.DataFrame) -> str:
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    marks = [" class=number" if is_number else "" for is_number in numeric]
    head = "".join(
        f"<th{mark}>{escape(str(name))}</th>"
        for name, mark in zip(table.columns, marks, strict=True)
    )
    rows = [
        "".join(
            f"<td{mark or _SHORT * (len(cell) <= 45)}>{escape(cell)}</td>"
            for cell, mark in zip(row, marks, strict=True)
        )
        for row in cells(table)
    ]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f"<div class=table><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
