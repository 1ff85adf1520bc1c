"""Builds the site of these pages: `make docs` leaves it in build/site, and fails where a page or link is broken.

pages of the repository ─► build/pages, with the reference that is written from the code ─► Sphinx ─► build/site
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

import reference
from sphinx.cmd.build import main as sphinx

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = ROOT / "build" / "pages"
SITE: Final = ROOT / "build" / "site"
_FRONT: Final = ROOT / "README.md"
_LINK: Final = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def build() -> int:
    """Returns the exit status of Sphinx, which takes every warning for an error."""
    shutil.rmtree(PAGES, ignore_errors=True)
    pages = [_FRONT, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    pages = [page for page in pages if Path(__file__).parent not in page.parents]
    pictures = sorted((ROOT / "docs").rglob("*.png"))
    staged = {page: PAGES / page.relative_to(ROOT) for page in [*pages, *pictures]}
    staged[_FRONT] = PAGES / "index.md"
    for source, target in staged.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            target.write_text(relinked(source, staged), encoding="utf-8")
        else:
            target.symlink_to(source)
    with staged[_FRONT].open("a", encoding="utf-8") as front:
        front.write(Path(__file__).with_name("contents.md").read_text(encoding="utf-8"))
    (PAGES / "conf.py").symlink_to(Path(__file__).with_name("conf.py"))
    reference.write(PAGES / "reference")
    return int(sphinx(["-q", "-W", "--keep-going", "-b", "html", str(PAGES), str(SITE)]))


def relinked(source: Path, staged: dict[Path, Path]) -> str:
    """The text of a page. A link to what the site does not have, such as a folder, becomes its text.

    Raises:
        FileNotFoundError: a link points to nothing.
    """

    def link(match: re.Match[str]) -> str:
        label, target, heading = match.groups()
        path = Path(os.path.normpath(source.parent / target))
        if not path.exists():
            raise FileNotFoundError(f"{source.relative_to(ROOT)} links to {target}, which does not exist")
        if path not in staged:
            return str(label)
        return f"[{label}]({os.path.relpath(staged[path], staged[source].parent)}{heading or ''})"

    return _LINK.sub(link, source.read_text(encoding="utf-8"))


if __name__ == "__main__":
    raise SystemExit(build())
