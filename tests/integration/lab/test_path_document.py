"""docs/path.md: its commands are typed in the lab, and what they print has the shape it shows.

With TUNNEL_WRITE_DOCS=1 the document gets the output of this run instead of being compared.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.pairs import Pair
from tunnel.lab import LabTimeoutError

pytestmark = pytest.mark.root

DOCUMENT = Path(__file__).parents[3] / "docs" / "path.md"
PROMPT = "A# "
MARK = "---- next command ----"

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    text: str
    output: str


def commands(block: str) -> Iterator[Command]:
    for piece in re.split(rf"^{re.escape(PROMPT)}", block, flags=re.MULTILINE)[1:]:
        text, _, output = piece.partition("\n")
        yield Command(text, output)


def shape(output: str) -> str:
    """What does not differ from machine to machine: words, and the addresses of the lab."""
    text = re.sub(r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b", "MAC", output)
    text = re.sub(r"@if\d+", "@ifN", text)
    text = re.sub(r"\buid \d+", "uid N", text)
    return "\n".join(line.rstrip() for line in re.sub(r" +", " ", text).splitlines())


def typed(pair: Pair, wanted: list[Command]) -> list[str]:
    """What the commands print, typed one after the other into one shell on host A."""
    host = pair.hosts[0]
    output = host.directory / "typed"
    # Into a file: what goes on in the background would keep a pipe open.
    lines = [f"exec >{output} 2>&1 </dev/null"]
    for command in wanted:
        lines += [command.text, f"echo '{MARK}'"]
    try:
        host.run(["bash", "-c", "\n".join(lines)], timeout=60, check=False)
    except LabTimeoutError:
        pytest.fail(f"a command does not end; before it: {output.read_text()}")
    return output.read_text().split(f"{MARK}\n")[:-1]


def test_the_document_shows_what_its_commands_print(pair: Pair) -> None:
    # The session stands in `tunnel lab --shell`, which pings before it opens the shell.
    pair.hosts[0].ping(pair.b.node.address())
    text = DOCUMENT.read_text()
    wanted = [command for block in _BLOCK.findall(text) for command in commands(block)]
    printed = typed(pair, wanted)
    assert len(printed) == len(wanted)
    if os.environ.get("TUNNEL_WRITE_DOCS"):
        outputs = iter(printed)

        def block(match: re.Match[str]) -> str:
            pieces = [f"{PROMPT}{c.text}\n{next(outputs)}" for c in commands(match[1])]
            return f"```console\n{''.join(pieces)}```"

        DOCUMENT.write_text(_BLOCK.sub(block, text))
        return
    for command, output in zip(wanted, printed, strict=True):
        assert shape(output) == shape(command.output), command.text


def test_every_idea_has_a_command_with_output() -> None:
    text = DOCUMENT.read_text()
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:-1]:
        title = section.partition("\n")[0]
        found = [c for block in _BLOCK.findall(section) for c in commands(block)]
        assert any(command.output for command in found), title
