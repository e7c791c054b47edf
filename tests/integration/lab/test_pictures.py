"""The pictures of terminals in the documentation can be made again, and show what they are for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from packages import pictures

pytestmark = pytest.mark.root


def test_each_scene_is_drawn(tmp_path: Path) -> None:
    drawn = {path.stem: _words(path) for path in pictures.draw(tmp_path)}
    kept = {path.stem: _words(path) for path in pictures.FOLDER.glob("*.svg")}
    assert set(drawn) == set(kept)
    for found in (drawn, kept):
        assert "passed" in found["trace"]
        assert "[firewall_drop]" in found["doctor"]
        assert "nft insert rule inet site" in found["doctor"]


def _words(path: Path) -> str:
    text = path.read_text()
    assert "url(http" not in text
    return " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", text)).replace("&#160;", " ")
