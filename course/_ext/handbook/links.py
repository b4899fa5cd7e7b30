"""Every link of the built book: each local href, src and #fragment must lead somewhere, none of it outside.

    python course/_ext/handbook/links.py build/book      lists the external links, fails on a broken one

The build itself ends with the same check. Nothing is asked of the network.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
_LOADING_RELS = {"stylesheet", "preload", "icon", "modulepreload", "preconnect", "dns-prefetch"}


@dataclass
class Page:
    """What one page links to, loads, and can be linked at."""

    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = {key: value or "" for key, value in attrs}
        self.page.ids |= {about[key] for key in ("id", "name") if about.get(key) and tag != "meta"}
        if tag == "link":
            loading = _LOADING_RELS & set(about.get("rel", "").split())
            (self.page.loads if loading else self.page.links).append(about.get("href", ""))
        elif tag in _LOADS and about.get(_LOADS[tag]):
            self.page.loads.append(about[_LOADS[tag]])
        elif tag == "a" and "href" in about:
            self.page.links.append(about["href"])


def read(path: Path) -> Page:
    """The links of one page."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page


def check(book: Path) -> tuple[list[str], list[str]]:
    """(faults, external links) of every page below `book`."""
    found = (
        path for path in sorted(book.rglob("*.html")) if "_static" not in path.parts
    )  # parts of the theme
    pages = {path.resolve(): read(path) for path in found}
    faults, outside = [], set()
    for path, page in pages.items():
        shown = path.relative_to(book.resolve()).as_posix()
        for url in page.loads:
            if _external(url):
                faults.append(f"{shown}: loads {url} from outside")
        for url in [*page.links, *page.loads]:
            if _external(url):
                outside.add(url)
            else:
                faults += [f"{shown}: {url}: {why}" for why in _faults(url, path, pages)]
    return faults, sorted(outside)


def _external(url: str) -> bool:
    return bool(urlsplit(url).netloc) or urlsplit(url).scheme in ("http", "https", "mailto")


def _faults(url: str, path: Path, pages: dict[Path, Page]) -> Iterator[str]:
    parts = urlsplit(url)
    if parts.scheme:  # data:, javascript:
        return
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        yield "a folder, which a file:// page cannot open: name its index.html"
    elif not target.is_file():
        yield "there is no such file"
    elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
        yield f"there is no #{unquote(parts.fragment)}"


def _at_the_end(app: Any, exception: Exception | None) -> None:
    from sphinx.errors import ExtensionError

    if exception is None and app.builder.name == "html":
        faults, _ = check(Path(app.outdir))
        if faults:
            raise ExtensionError("broken links:\n" + "\n".join(faults))


def setup(app: Any) -> None:
    """Check when the build ends."""
    app.connect("build-finished", _at_the_end, priority=900)  # after those that still write files


def main() -> int:
    """The command line."""
    faults, outside = check(Path(sys.argv[1]))
    for line in [*(f"outside: {url}" for url in outside), *(f"BROKEN {fault}" for fault in faults)]:
        print(line)
    print(f"{len(faults)} broken links, {len(outside)} external ones, which are not tried")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
