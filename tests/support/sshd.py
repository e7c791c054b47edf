"""Hosts of a lab with an /etc of their own, one of which other hosts log in to by a real sshd."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tunnel.lab import Host

TUNNEL = Path(sys.prefix, "bin", "tunnel")
HOME = "/run/home"
"""Where root and the ordinary user have theirs."""
USER = "pat"


def own_folder(host: Host, folder: str) -> None:
    """Let changes below `folder` be the host's own."""
    layers = f"/run/layers{folder}"
    host.run(["mkdir", "-p", f"{layers}/upper", f"{layers}/work"])
    options = f"lowerdir={folder},upperdir={layers}/upper,workdir={layers}/work"
    host.run(["mount", "-t", "overlay", "-o", options, "overlay", folder])


def own_etc(host: Host, *, sudoers: str = "") -> None:
    """Give the host an /etc, and in that an ordinary user."""
    own_folder(host, "/etc")
    passwd = [line for line in Path("/etc/passwd").read_text().splitlines() if line[:5] != "root:"]
    user = f"{USER}:x:1234:1234::{HOME}/{USER}:/bin/sh"
    lines = [f"root:x:0:0:root:{HOME}/root:/bin/sh", user, *passwd]
    write(host, "/etc/passwd", "\n".join(lines))
    write(host, "/etc/group", Path("/etc/group").read_text() + f"{USER}:x:1234:")
    write(host, "/etc/shadow", f"root:*:20000::::::\n{USER}:*:20000::::::", mode="640")
    for name in ("hosts", "resolv.conf"):
        write(host, f"/etc/{name}", (host.etc / name).read_text())
    if sudoers:
        write(host, "/etc/sudoers", f"root ALL=(ALL) ALL\n{sudoers}", mode="440")
    for home in ("root", USER):
        host.run(["mkdir", "-p", f"{HOME}/{home}/.ssh"])


def write(host: Host, path: str, text: str, *, mode: str = "644") -> None:
    """Write a file as the host sees it."""
    # A link, such as that of resolv.conf, is replaced.
    script = 'rm -f "$1"; mkdir -p "$(dirname "$1")"; cat >"$1"; chmod "$2" "$1"'
    host.run(["sh", "-c", script, "sh", path, mode], stdin=f"{text}\n")


def read(host: Host, path: str) -> str:
    """A file as the host sees it."""
    return host.run(["cat", path]).stdout


@dataclass(frozen=True)
class SshServer:
    """The sshd of a host, which lets in whoever has the key that `client` was given."""

    host: Host
    address: str
    key: Path

    @classmethod
    def start(cls, host: Host, address: str, *, path: str = "", options: str = "") -> SshServer:
        """Start one. `path` is put before the PATH of sessions."""
        host.run(["mkdir", "-p", "/run/sshd"])
        keys = host.directory / "ssh"
        keys.mkdir()
        for name in ("host", "user"):
            host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)])
        folder = Path("/run/ssh")
        for name in ("host", "user.pub"):
            write(host, str(folder / name), (keys / name).read_text(), mode="600")
        host.run(["chmod", "644", "/run/ssh/user.pub"])
        lines = (
            "HostKey /run/ssh/host",
            "AuthorizedKeysFile /run/ssh/user.pub",
            "StrictModes no",
            "PermitRootLogin yes",
            "UsePAM no",
            "PidFile none",
            f"SetEnv PATH={path}{os.environ['PATH']}",
            options,
        )
        write(host, "/run/ssh/config", "\n".join(lines))
        program = shutil.which("sshd")
        assert program is not None
        host.popen([program, "-D", "-e", "-f", "/run/ssh/config"])
        host.wait_for(lambda: ":22 " in host.run(["ss", "-Hltn"]).stdout, 10, "sshd listens")
        return cls(host, address, keys / "user")

    def let_in(self, client: Host, alias: str, *, more: str = "") -> None:
        """Let the users of `client` log in, by a configuration of ssh that calls this `alias`."""
        public = (self.key.parent / "host.pub").read_text()
        for user, number in (("root", 0), (USER, 1234)):
            home = f"{HOME}/{user}"
            known = f"{home}/.ssh/known"
            config = f"Host {alias}\n  HostName {self.address}\n  User root\n"
            config += f"  IdentityFile {home}/.ssh/id\n  UserKnownHostsFile {known}\n{more}"
            write(client, f"{home}/.ssh/config", config, mode="600")
            write(client, f"{home}/.ssh/id", self.key.read_text(), mode="600")
            write(client, known, f"{self.address} {public}")
            client.run(["chown", "-R", f"{number}:{number}", home])
