"""Pages that are not written by hand: copied from the repository, or made from the code."""

import os
import re
from pathlib import Path
from typing import Any

import reference

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
MADE = DOCS / "reference"  # ignored by git

# Pages of the repository that the site has too, and their names there.
COPIED = {
    "CONTRIBUTING.md": "contributing",
    "examples/README.md": "examples",
    "CHANGELOG.md": "changelog",
}
_LINK = re.compile(r"(?<=\]\()([^)#\s]+)")


def setup(app: Any) -> dict[str, bool]:
    """Make the pages before Sphinx reads any, and turn links out of docs/ into links to them."""
    app.connect("builder-inited", lambda app: write_pages())
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages() -> None:
    """Write ``docs/reference``; a page that has not changed is left alone."""
    MADE.mkdir(exist_ok=True)
    pages = reference.pages()
    for path, name in COPIED.items():
        if (ROOT / path).exists():
            pages[name] = _moved((ROOT / path).read_text(encoding="utf-8"), ROOT / path, MADE)
    for old in MADE.glob("*.md"):
        if old.stem not in pages:
            old.unlink()
    for name, text in pages.items():
        page = MADE / f"{name}.md"
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def _read(app: Any, name: str, source: list[str]) -> None:
    page = DOCS / f"{name}.md"
    if page.parent != MADE:
        source[0] = _moved(source[0], page, page.parent)


def _moved(text: str, page: Path, folder: Path) -> str:
    """Rewrite the relative links of a page as links from a folder, to the site's own pages."""

    def link(match: re.Match[str]) -> str:
        if "://" in match[0] or match[0].startswith("mailto:"):
            return match[0]
        target = (page.parent / match[0]).resolve()
        return os.path.relpath(_on_the_site(target), folder)

    return _LINK.sub(link, text)


def _on_the_site(target: Path) -> Path:
    """Find where the site has a file of the repository."""
    if target == ROOT / "README.md":
        return DOCS / "index.md"
    path = target.relative_to(ROOT).as_posix()
    return MADE / f"{COPIED[path]}.md" if path in COPIED else target
