"""Draw charts as SVG, PDF and PNG without a browser, and as specifications for a page."""

import json
import re
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import vl_convert

from byzshield_exp.files import cache_folder, write_atomically

PICTURES = ("svg", "pdf", "png")
_PPI = 300


def pictures(specification: dict[str, Any], forms: tuple[str, ...]) -> dict[str, bytes]:
    """Draw a chart.

    Args:
        specification: of Vega-Lite, for paper; compiled and laid out once.
        forms: of ``PICTURES``; a unit of the chart is a point in each.
    """
    if not forms:
        return {}
    svg = vl_convert.vegalite_to_svg(specification)
    drawn = {}
    if "svg" in forms:
        in_points = re.sub(
            r'(<svg[^>]*? width="[\d.]+)("[^>]*? height="[\d.]+)"', r'\1pt\2pt"', svg, count=1
        )
        drawn["svg"] = in_points.encode()
    if "pdf" in forms:
        drawn["pdf"] = vl_convert.svg_to_pdf(svg)
    if "png" in forms:
        drawn["png"] = vl_convert.svg_to_png(svg, ppi=_PPI)
    return drawn


def script() -> str:
    """Return Vega, Vega-Lite and vegaEmbed as a script that needs no network.

    To join it takes seconds, so that it is kept in the cache.
    """
    kept = cache_folder() / f"vega-{version('vl-convert-python')}.js"
    with suppress(OSError, UnicodeDecodeError):
        return kept.read_text(encoding="utf-8")
    bundle: str = vl_convert.javascript_bundle()
    with suppress(OSError):
        write_atomically(kept, bundle.encode(), shared=True)
    return bundle


def in_page(specification: dict[str, Any]) -> str:
    """Return a chart as text for a script element of a page."""
    return json.dumps(specification, separators=(",", ":")).replace("<", "\\u003c")
