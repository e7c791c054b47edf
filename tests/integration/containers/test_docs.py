"""docs/containers.md: what its commands print is what it says."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.ordinary_user import NOBODY, ROOT
from tests.support.runs import near

pytestmark = [pytest.mark.root, pytest.mark.real_root]

MANUAL = ROOT / "docs/containers.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[tuple[str, str]]:
    """Each command of an ordinary user that ends by itself, and what it prints."""
    found = []
    for block in BLOCK.findall(text):
        if "&\n" in block or not block.startswith("$ "):
            continue
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed))
    return found


def test_commands_print_what_the_manual_says() -> None:
    listed = commands(MANUAL.read_text(encoding="utf-8").replace("1000", str(NOBODY)))
    assert len(listed) >= 6
    with near(as_user=True, extra=["DNS = 10.77.0.2, corp.example"]) as run:
        conf = run.conf.rename(run.conf.with_name("peer.conf"))
        run = replace(run, conf=conf)
        program = f"{sys.executable} -m tunnel run {conf}"
        for command, printed in listed:
            typed = command.replace("tunnel run peer.conf", program)
            words = run.as_caller(["sh", "-c", f"{{ {typed}; }} 2>&1"])
            result = run.hosts.a.run(
                words, check=False, environment=run.environment, directory=Path.cwd()
            )
            assert result.stdout == printed, command
