"""A network namespace for the tests of `tunnel.host`."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Namespace:
    """A network namespace of our own, driven from outside with iproute2."""

    name: str

    @property
    def path(self) -> str:
        return f"/run/netns/{self.name}"

    def run(self, *argv: str, check: bool = True) -> str:
        command = ["ip", "netns", "exec", self.name, *argv]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        # Status 255 is that of `ip`: the program was not started.
        if done.returncode == 255 or (check and done.returncode != 0):
            raise AssertionError(f"{argv}: {done.stderr}")
        return done.stdout

    def ip(self, *arguments: str) -> str:
        return self.run("ip", *arguments)

    def add_tun(self, name: str) -> None:
        self.ip("tuntap", "add", name, "mode", "tun")

    def snapshot(self) -> str:
        """Everything a tunnel may change, as text."""
        shown = [
            self.ip("-br", "address"),
            self.ip("-4", "rule"),
            self.ip("-6", "rule"),
            self.ip("-4", "route", "show", "table", "all"),
            self.ip("-6", "route", "show", "table", "all"),
            self.run("nft", "list", "ruleset"),
            self.run("sysctl", "net.ipv4.conf.all.src_valid_mark"),
        ]
        return "\n".join(shown)


@contextmanager
def new_namespace() -> Iterator[Namespace]:
    name = f"tho-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Namespace(name)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
