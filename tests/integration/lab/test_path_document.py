"""docs/path.md: its commands are typed in the lab, and what they print has the shape it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.typed import BLOCK, check_document, commands, terminals
from tunnel.lab import Lab
from tunnel.lab.building import build
from tunnel.lab.plans import PAIR

pytestmark = pytest.mark.root

DOCUMENT = Path(__file__).parents[3] / "docs" / "path.md"


@pytest.mark.slow
def test_the_document_shows_what_its_commands_print(lab: Lab, tmp_path: Path) -> None:
    built = build(lab, PAIR.with_keys())
    built.up()
    # `tunnel lab --shell` pings before it opens the shell.
    built.hosts["A"].ping(built.address("B"))
    with terminals(built.hosts, tmp_path) as typed:
        check_document(DOCUMENT, typed)


def test_every_idea_has_a_command_with_output() -> None:
    text = DOCUMENT.read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:-1]
    for section in sections:
        title = section.partition("\n")[0]
        found = [c for block in BLOCK.findall(section) for c in commands(block)]
        drawn = "◀" in section
        assert drawn or any(command.output for command in found), title
