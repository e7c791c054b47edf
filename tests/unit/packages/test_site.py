"""The site has every page, and asks no other host for anything."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packages import site


def test_every_page_has_a_place_in_the_navigation(tmp_path: Path) -> None:
    site.collect(tmp_path)
    pages = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.md")}
    config = tomllib.loads((site.ROOT / "packages" / "site.toml").read_text())
    assert sorted(_paths(config["project"]["nav"])) == sorted(pages)


def _paths(items: list[dict[str, Any]]) -> Iterator[str]:
    for item in items:
        for value in item.values():
            yield from [value] if isinstance(value, str) else _paths(value)


def test_it_is_built_and_asks_no_other_host(tmp_path: Path) -> None:
    site.build(tmp_path / "site")
    index = tmp_path / "site" / "index.html"
    assert "<h1" in index.read_text()
    commands = (tmp_path / "site" / "docs" / "commands.html").read_text()
    assert 'id="tunnel-peer-add"' in commands
    loads = re.compile(r"<(?:script|img|link)[^>]+(?:src|href)=\"?([^\" >]+)")
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = loads.findall(page.read_text())
        assert loaded, page
        assert [url for url in loaded if re.match(r"(https?:)?//", url)] == [], page
