"""`tunnel run` in a host of a lab, as root or as an ordinary user, with a far end behind it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.hosts import TwoHosts, two_hosts
from tests.support.ordinary_user import NOBODY, OPEN_TUN, OrdinaryUser, ordinary_user
from tunnel.lab import Lab
from tunnel.lab.peers import End, Node, mesh, render_conf
from tunnel.lab.process import HostProcess

DNS_NAME = "corp.example"


@dataclass
class Near:
    """Host a, where commands are run, and host b behind the tunnel (10.77.0.2, fd77::2)."""

    hosts: TwoHosts
    conf: Path
    far: End
    user: OrdinaryUser | None = None
    prepare: str = OPEN_TUN.format(mode=666)

    def words(self, *arguments: str) -> list[str]:
        """The command `tunnel run ARGUMENTS`, to be run in host a."""
        return self.as_caller([sys.executable, "-m", "tunnel", "run", *arguments])

    def as_caller(self, command: Sequence[str]) -> list[str]:
        """Any command as the user of this run."""
        return (
            list(command) if self.user is None else self.user.command(command, prepare=self.prepare)
        )

    @property
    def environment(self) -> dict[str, str]:
        return {} if self.user is None else self.user.environment

    def run(self, *command: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command through the tunnel to its end."""
        return self.hosts.a.run(
            self.words(*options, str(self.conf), "--", *command),
            check=False,
            environment=self.environment,
        )

    def check(self, *command: str, options: Sequence[str] = ()) -> str:
        """What a command prints that has to succeed."""
        result = self.run(*command, options=options)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def start(self, *command: str, options: Sequence[str] = ()) -> HostProcess:
        """Start a command through the tunnel; its process is the one outside."""
        return self.hosts.a.popen(
            self.words(*options, str(self.conf), "--", *command), environment=self.environment
        )

    def popen(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start words in host a, with pipes for all three standard streams."""
        return subprocess.Popen(
            [*self.hosts.a.enter_command(), "env", f"--chdir={Path.cwd()}", *words],
            env={**os.environ, **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def leftovers(self) -> list[str]:
        """What is there of a run: its processes (in any namespace), and its files."""
        found = [str(pid) for pid in _processes_with(str(self.conf))]
        folder = Path("/run/tunnel") if self.user is None else self.user.directory
        if self.user is None:
            listed = self.hosts.a.run(["ls", str(folder)], check=False).stdout.split()
        else:
            listed = [path.name for path in folder.glob(f"tunnel-run-{NOBODY}/*")]
        return found + listed


def _processes_with(word: str) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if word.encode() in words and b"run" in words:
            yield int(entry.parent.name)


@contextmanager
def near(*, as_user: bool, foreign: str | None = None, extra: Sequence[str] = ()) -> Iterator[Near]:
    """Two hosts, and a conf for a whose peer, b, is up; `extra` are lines of [Interface]."""
    with ExitStack() as stack:
        hosts = two_hosts(stack.enter_context(Lab()))
        nodes = [
            Node(hosts.a, ("10.77.0.1/24", "fd77::1/64"), "192.0.2.1"),
            Node(hosts.b, ("10.77.0.2/24", "fd77::2/64"), "192.0.2.2"),
        ]
        ends = mesh(nodes, foreign={"b": foreign} if foreign else None)
        ends["b"].up()
        user = stack.enter_context(ordinary_user()) if as_user else None
        conf = ends["a"].conf if user is None else user.directory / "wg0.conf"
        conf.write_text(render_conf(nodes[0], [nodes[1]], extra=extra))
        conf.chmod(0o600)
        if user is not None:
            os.chown(conf, NOBODY, NOBODY)
        yield Near(hosts, conf, ends["b"], user)
