"""docs/first-hour.md: from nothing to a tunnel, a phone, a container and a page, typed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.docker import PROGRAMS, engine
from tests.support.hosts import two_hosts
from tests.support.sshd import SshServer, own_etc, own_folder
from tests.support.typed import BLOCK, Terminal, check_document, commands
from tunnel.lab import Host, Lab
from tunnel.pair.installing import wheels

pytestmark = [
    pytest.mark.root,
    pytest.mark.real_root,
    pytest.mark.slow,
    pytest.mark.foreign("ssh", "sshd", "ssh-keygen", "curl", *PROGRAMS),
]

DOCUMENT = Path(__file__).parents[3] / "docs" / "first-hour.md"
INTRODUCTION = """\
Time of the commands on two cores, with the wheels already on host A; without the time to read.

"""


@pytest.mark.timeout(300)
def test_the_document_shows_what_its_commands_print(lab: Lab, tmp_path: Path) -> None:
    two = two_hosts(lab)
    for host in (two.a, two.b):
        own_etc(host)
        for folder in ("/opt", "/usr/local"):
            own_folder(host, folder)
        host.run(["rm", "-rf", "/opt/tunnel", "/etc/tunnel", "/usr/local/bin/tunnel"])
    SshServer.start(two.b, "192.0.2.2").let_in(two.a, "office")
    for name, data in wheels(platform.machine()):
        (tmp_path / name).write_bytes(data)
    # The page's packages: pip gets them for a user; the hosts of a lab have no way to an index.
    words = ("download", "-q", "-d", str(tmp_path), "starlette", "hypercorn[trio]")
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    with ExitStack() as stack:
        stack.enter_context(engine(two.a))
        typed = {}
        for name, host in (("A", two.a), ("B", two.b)):
            typed[name] = _terminal(host, tmp_path)
            stack.callback(typed[name].close)
        check_document(DOCUMENT, typed)
    if os.environ.get("TUNNEL_WRITE_DOCS"):
        _note_times({text: took for each in typed.values() for text, took in each.seconds.items()})


def _terminal(host: Host, wheelhouse: Path) -> Terminal:
    """One in a folder with the wheels, which has nothing of this checkout."""
    found = Terminal(host, Path("/opt/tunnel/bin"))
    # There is no network of packages here: pip finds them beside the wheel.
    found.type(f"cd {wheelhouse}; export PIP_NO_INDEX=1 PIP_FIND_LINKS=.; umask 077")
    # /var is that of the machine.
    found.type("export STATE_DIRECTORY=/run/state")
    return found


def _note_times(seconds: dict[str, float]) -> None:
    """Write how long the commands of each section took, into the last one."""
    text, title, _ = DOCUMENT.read_text().partition("## How long it took\n")
    lines, total = [], 0.0
    for section in text.split("\n## ")[1:]:
        typed = [command for block in BLOCK.findall(section) for command in commands(block)]
        spent = sum(seconds[command.text] for command in typed)
        total += spent
        lines.append(f"| {section.partition(chr(10))[0]} | {spent:.0f} s | {total:.0f} s |\n")
    head = f"{INTRODUCTION}| section | commands | since the beginning |\n|---|---|---|\n"
    DOCUMENT.write_text(f"{text}{title}\n{head}{''.join(lines)}")
