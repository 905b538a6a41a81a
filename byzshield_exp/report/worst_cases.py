"""Draw how many files the worst q workers win, by placement."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from byzshield_exp.errors import ConfigError
from byzshield_exp.files import write_atomically
from byzshield_exp.report import drawing, words
from byzshield_exp.report.panels import Panels
from byzshield_exp.report.theme import PAPER

_BOUNDS = {"epsilon_baseline": "no redundancy, q / K", "lower_bound_any": "any placement: at least"}


def plot(series: Mapping[str, Sequence[Mapping[str, Any]]], path: str) -> None:
    """Draw eps_hat(q) of placements, with no redundancy and the lower bound of all placements.

    Args:
        series: by placement, rows of ``byzshield_exp.distortion.report.describe``.
        path: of the picture: svg, pdf or png.

    Raises:
        ConfigError: for another suffix, or if the file cannot be written.
    """
    form = path.rpartition(".")[2].lower()
    if form not in drawing.PICTURES:
        raise ConfigError(f"plot={path} must end in {', '.join(drawing.PICTURES)}")
    picture = drawing.pictures(_chart(series).to_dict(), (form,))[form]
    try:
        write_atomically(Path(path), picture)
    except OSError as error:
        raise ConfigError(f"plot={path} cannot be written: {error}") from error


def _chart(series: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    curves = {
        words.value("approach", name): [(row["q"], row["epsilon_hat"]) for row in rows]
        for name, rows in series.items()
    }
    longest = max(series.values(), key=len)
    curves |= {
        said: [(row["q"], row[column]) for row in longest] for column, said in _BOUNDS.items()
    }
    points = [
        {"series": name, "q": q, "share": share} for name in curves for q, share in curves[name]
    ]
    panels = Panels(list(curves))
    whole = alt.Axis(format="d", tickMinStep=1)
    base = alt.Chart().encode(
        x=alt.X("q:Q", title="Byzantine workers q", axis=whole, scale=alt.Scale(zero=False)),
        y=alt.Y("share:Q", title="share of files won by the worst q workers"),
        detail=alt.Detail("series:N"),
    )
    line = base.mark_line(stroke=panels.colour, strokeDash=panels.dash(PAPER))
    dot = base.mark_point(fill=panels.colour, shape=panels.shape, opacity=1, strokeWidth=0)
    return panels.arranged(panels.with_legend([line, dot], PAPER), pd.DataFrame(points), PAPER)
