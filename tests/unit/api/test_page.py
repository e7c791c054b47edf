"""Every example of docs/python.md is a part of a program that a test runs."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "python.md").read_text()
PROGRAMS = ("embed.py", "with_asyncio.py", "blocking.py", "test_over_a_bad_wire.py")


def test_every_example_stands_in_a_program() -> None:
    texts = [(ROOT / "examples" / name).read_text() for name in PROGRAMS]
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= len(PROGRAMS)
    for block in blocks:
        assert any(block in text for text in texts), block


def test_every_program_is_linked() -> None:
    linked = re.findall(r"\(\.\./examples/(\w+\.py)\)", PAGE)
    assert sorted(linked) == sorted(PROGRAMS)
