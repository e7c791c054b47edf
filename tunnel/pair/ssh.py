"""One connection of the system's ssh, over which all that is done on the other host goes.

ssh is the user's own: its configuration, agent, known hosts and jumps. What it asks for, it asks on
the terminal, once, as later sessions share the first connection (ControlMaster in ssh_config(5)).
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from tunnel.log.redact import printable
from tunnel.pair.messages import PairError

_PROGRAMS: Final = "/opt/tunnel/bin/tunnel /usr/local/bin/tunnel /usr/bin/tunnel"

_PROBE: Final = (
    'echo "tunnel-connection=$SSH_CONNECTION"; '
    'echo "tunnel-uid=$(id -u)"; '
    'echo "tunnel-machine=$(uname -m)"; '
    f'for each in "$(command -v tunnel)" {_PROGRAMS}; do '
    'if [ -x "$each" ]; then echo "tunnel-program=$each"; break; fi; done; '
    'if [ -e /dev/net/tun ]; then echo "tunnel-device=yes"; fi'
)
"""Says what matters of a host, each in a line: a login may print others."""

_ALWAYS: Final = (
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
    *("-o", "RemoteCommand=none", "-o", "ClearAllForwardings=yes"),
)
"""A dead connection is noticed after a quarter of a minute. What the user's configuration has for
other uses of the host is left out.
"""

_LINGERS: Final = "ControlPersist=20"
"""Seconds that the connection stays without a session, if nobody is left to end it."""


@dataclass(frozen=True, slots=True)
class Remote:
    """The host that ssh reached. `hostname` is what ssh connected to, if not through a jump.

    `outside` is our address as it is seen there, `inside` that host's own. `program` is the path
    of `tunnel` there, empty if it is not found.
    """

    hostname: str
    has_jump: bool
    outside: str
    inside: str
    is_root: bool
    machine: str
    program: str
    has_device: bool

    def as_root(self, command: Sequence[str]) -> list[str]:
        """The words of a command that run it as root there."""
        return [*(() if self.is_root else ("sudo", "-n")), *command]


class Ssh:
    """The connection to `destination`, [user@]host or ssh://…; use as a context manager."""

    def __init__(self, destination: str) -> None:
        self.destination = destination
        self._folder = tempfile.TemporaryDirectory(prefix="tunnel-pair-")
        self._control = ("-o", f"ControlPath={Path(self._folder.name, 's')}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            subprocess.run(
                ["ssh", *self._control, "-O", "exit", "--", self.destination],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        self._folder.cleanup()

    def connect(self) -> Remote:
        """Connect, and look. ssh asks the user for what it needs. Raises PairError."""
        master = ("-o", "ControlMaster=yes", "-o", _LINGERS, *_ALWAYS)
        try:
            done = subprocess.run(
                ["ssh", *self._control, *master, "--", self.destination, "true"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                check=False,
            )
        except FileNotFoundError:
            raise PairError("ssh is not installed here; apt-get install openssh-client") from None
        if done.returncode:
            raise PairError(f"cannot log in to {self.destination}; ssh says why above")
        said = self._settings()
        found = dict(
            line.removeprefix("tunnel-").split("=", 1)
            for line in self.output(["sh", "-c", _PROBE]).splitlines()
            if line.startswith("tunnel-") and "=" in line
        )
        if "uid" not in found:
            raise PairError(f"{self.destination} gives no shell: no command can be run there")
        outside, _, inside, *_ = [*found.get("connection", "").split(), "", "", ""]
        return Remote(
            said.get("hostname", ""),
            any(said.get(key, "none") != "none" for key in ("proxyjump", "proxycommand")),
            outside,
            inside,
            found["uid"] == "0",
            found.get("machine", ""),
            found.get("program", ""),
            "device" in found,
        )

    def command(self, words: Sequence[str]) -> list[str]:
        """The words that run a command there over this connection, for any shell there."""
        # Without the connection, nothing may be asked for.
        options = ("-T", *self._control, "-o", "ControlMaster=no", "-o", "BatchMode=yes", *_ALWAYS)
        return ["ssh", *options, "--", self.destination, shlex.join(words)]

    def output(self, words: Sequence[str], *, stdin: IO[bytes] | None = None) -> str:
        """What a command there prints. Raises PairError with its reason if it fails."""
        done = subprocess.run(
            self.command(words),
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            raise PairError(f"{self.destination}: {printable(lines[-1])}")
        return done.stdout

    def _settings(self) -> dict[str, str]:
        """What the user's configuration makes of the destination."""
        done = subprocess.run(
            ["ssh", "-G", "--", self.destination],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
