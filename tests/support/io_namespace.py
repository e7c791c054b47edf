"""A network namespace that a test's thread enters."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from tunnel.linux.netns import inside


def ip(*arguments: str) -> str:
    """Run iproute2's `ip`; its complaint is what the assertion shows."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout


class Namespace:
    """A network namespace that the calling thread can step into."""

    def __init__(self) -> None:
        self.name = f"tio-{uuid.uuid4().hex[:8]}"

    def ip(self, *arguments: str) -> str:
        return ip("-n", self.name, *arguments)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        assert done.returncode != 255, f"{command} was not started: {done.stderr}"
        return done

    def popen(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def entered(self) -> AbstractContextManager[None]:
        """Make the calling thread a part of the namespace for a while."""
        return inside(f"/run/netns/{self.name}")


@contextmanager
def namespace() -> Iterator[Namespace]:
    made = Namespace()
    ip("netns", "add", made.name)
    try:
        made.ip("link", "set", "lo", "up")
        yield made
    finally:
        ip("netns", "delete", made.name)
