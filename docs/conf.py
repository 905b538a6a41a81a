"""The site of docs/: ``make docs``. Warnings are errors; no network is used."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

from byzshield_exp import __version__  # noqa: E402

project = "byzshield_exp"
release = version = __version__
extensions = ["myst_parser", "site_pages"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "byzshield_exp"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5d8f", "color-brand-content": "#0b5d8f"},
    "dark_css_variables": {"color-brand-primary": "#7cc4ee", "color-brand-content": "#7cc4ee"},
}
html_show_sphinx = False
html_copy_source = False
html_show_copyright = False
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
suppress_warnings = ["misc.highlighting_failure"]
# `make docs-links` looks at the links to other sites; the build itself checks all others.
linkcheck_timeout = 20
linkcheck_retries = 2
