"""docs/convert.md is made from the formats."""

from pathlib import Path

from tunnel.convert.reference import page

DOC = Path(__file__).parents[3] / "docs" / "convert.md"


def test_the_page_is_made_from_the_formats() -> None:
    assert DOC.read_text() == page(), "run python -m tunnel.convert.reference > docs/convert.md"
