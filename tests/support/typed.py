"""Documents whose commands are typed into hosts of the lab: what they print has the shape shown.

In a block ```console, a line `HOST# COMMAND` is a command, and what follows it is its output. With
TUNNEL_WRITE_DOCS=1 the document gets the output of this run instead of being compared.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tunnel.lab import Host, LabTimeoutError

MARK = "---- next command ----"
SECONDS = 30.0

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^([AB])# (.*)\n", re.MULTILINE)

_VARYING = (
    (r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b", "MAC"),
    (r"\b(link-netns) \S+|(link-netnsid) \d+", "NETNS"),
    (r"@if\d+", "@ifN"),
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\bveth[0-9a-f]+\b", "VETH"),
    (r"\b(uid|id|index|counter|handle|qlen) (0x)?[0-9a-f]+\b", r"\1 N"),
    (r"\+ *\d+ µs|in \d+ µs", ""),
    (r"time[= ][\d.]+ ?ms", "TIME"),
    (r"= [\d.]+(/[\d.]+){2,3} ms", "TIMES"),
    (r"\[\d\] \d+|peer +\S{8,}", "N"),
    (r"(:|sequence )\d{5,}\b(?= |$)", "DEALT"),
    (r"· the Python datapath is in use.*?(?=in use datapath)", ""),
    (r"in use datapath.*", "IN USE"),
    (r"datapath: .*?(?= (Python|offloads):)", "DATAPATH"),
    (r"CPython \S+ \(\S+\)", "PYTHON"),
    (r"[A-Za-z0-9+/]{43}=", "KEY"),
    (r"packets \d+ bytes \d+ masquerade", "MASQUERADED"),
    (r"[▀▄█]+", ""),
    (r"took \d+ µs|… [\d.]+ ms", "TIME"),
    (r"handshake: (now|.*? ago)|transfer: .*? sent", "LATELY"),
)
"""What differs from machine to machine, or from run to run."""


@dataclass(frozen=True)
class Command:
    host: str
    text: str
    output: str


def commands(block: str) -> Iterator[Command]:
    found = list(_COMMAND.finditer(block))
    ends = [*(match.start() for match in found[1:]), len(block)] if found else []
    for match, end in zip(found, ends, strict=True):
        yield Command(match[1], match[2], block[match.end() : end])


def shape(command: Command, output: str) -> list[str]:
    """The words that do not differ; those of a trace sorted, as its command prints in between."""
    output = re.sub(r"^\d+: ", "N: ", output, flags=re.MULTILINE)
    # Where lines are folded depends on what varies in them.
    output = " ".join(output.replace("│", " ").split())
    for pattern, sign in _VARYING:
        output = re.sub(pattern, sign, output)
    words = output.split()
    return sorted(words) if "tunnel trace" in command.text else words


class Terminal:
    """A shell on a host, as one types into it. `seconds` is how long each command took."""

    def __init__(self, host: Host, programs: Path) -> None:
        self._host = host
        self._output = host.directory / "typed"
        self._count = 0
        self.seconds: dict[str, float] = {}
        # As a terminal is: a command that prints a key warns of a file that others can read.
        with open(os.open(self._output, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as output:
            self._shell = subprocess.Popen(
                [*host.enter_command(), "env", f"--chdir={Path.cwd()}", "bash"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                env={
                    **os.environ,
                    "COLUMNS": "80",
                    "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
                    "TUNNEL_LAB": host.netns.split("-")[1],
                },
            )

    def type(self, text: str) -> str:
        """What a command prints."""
        assert self._shell.stdin is not None
        begin = time.monotonic()
        self._shell.stdin.write(f"{{ {text}\n}} </dev/null\necho '{MARK}'\n")
        self._shell.stdin.flush()
        self._count += 1
        try:
            self._host.wait_for(lambda: self._parts()[1:][self._count - 1 :], SECONDS, text)
        except LabTimeoutError:
            pytest.fail(f"does not end: {text}\n{self._parts()[-1]}")
        self.seconds[text] = time.monotonic() - begin
        return self._parts()[self._count - 1]

    def _parts(self) -> list[str]:
        return self._output.read_text().split(f"{MARK}\n")

    def close(self) -> None:
        # With what it has left in the background: C is in no host of the lab.
        os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.communicate()


@contextmanager
def terminals(hosts: Mapping[str, Host], folder: Path) -> Iterator[dict[str, Terminal]]:
    """A shell on each host; the command `tunnel`, which is put into `folder`, is this program."""
    program = folder / "tunnel"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tunnel "$@"\n')
    program.chmod(0o755)
    with ExitStack() as stack:
        found = {name: Terminal(host, folder) for name, host in hosts.items()}
        for terminal in found.values():
            stack.callback(terminal.close)
        yield found


def check_document(document: Path, hosts: Mapping[str, Terminal], title: str = "") -> None:
    """Type all commands of a document in their order, and compare what they print.

    With `title`, only those of the section of that title.
    """
    before, found_title, text = document.read_text().partition(title or "\n")
    assert found_title
    after = ""
    if title:
        text, next_section, after = text.partition("\n## ")
        after = next_section + after
    writes = bool(os.environ.get("TUNNEL_WRITE_DOCS"))
    wanted = [command for block in BLOCK.findall(text) for command in commands(block)]
    assert wanted
    printed = []
    for command in wanted:
        printed.append(hosts[command.host].type(command.text))
        if not writes:
            expected = shape(command, command.output)
            assert shape(command, printed[-1]) == expected, f"{command.text}\n{printed[-1]}"
    if writes:
        outputs = iter(printed)

        def block(match: re.Match[str]) -> str:
            found = list(commands(match[1]))
            if not found:
                return match[0]
            pieces = [f"{c.host}# {c.text}\n{next(outputs)}" for c in found]
            return f"```console\n{''.join(pieces)}```"

        document.write_text(before + found_title + BLOCK.sub(block, text) + after)
