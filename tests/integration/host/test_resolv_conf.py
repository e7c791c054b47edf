"""The resolv.conf of a process with a root directory of its own, which makes of it what it likes.

Whoever owns that root chooses what stands in there; nothing of this host may be read or written.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from tunnel.host.errors import HostError
from tunnel.host.resolv_conf import set_servers, stands, unset_servers
from tunnel.host.state import Dns

pytestmark = pytest.mark.root

_STAY = "import os, sys; os.chroot(sys.argv[1]); print(flush=True); sys.stdin.read()"


@dataclass(frozen=True)
class Container:
    root: Path
    dns: Dns

    @property
    def file(self) -> Path:
        return self.root / "etc/resolv.conf"

    def place_of(self, path: Path) -> Path:
        """Where inside of its root a path of the host leads."""
        return self.root / str(path).lstrip("/")


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", _STAY, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline()
        file = f"/proc/{process.pid}/root/etc/resolv.conf"
        yield Container(root, Dns((ip_address("10.77.0.2"),), file=file))
        process.stdin.close()


def test_a_link_to_what_only_the_host_could_have_is_not_followed(
    container: Container, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    container.file.symlink_to(victim)
    with pytest.raises(HostError):
        set_servers("wg0", container.dns)
    assert not victim.exists()
    assert not container.place_of(victim).exists()


def test_nothing_is_written_past_a_pipe(container: Container) -> None:
    os.mkfifo(container.file)
    with pytest.raises(HostError):
        set_servers("wg0", container.dns)


def test_a_file_is_made_and_removed_in_there_alone(container: Container, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    # Seen from the host, this link leads to a folder of the host; from inside, to one in there.
    container.place_of(folder).mkdir(parents=True)
    container.file.parent.rmdir()
    container.file.parent.symlink_to(folder)
    set_servers("wg0", container.dns)
    assert stands("wg0", container.dns)
    made = container.place_of(folder) / "resolv.conf"
    assert made.stat().st_mode & 0o777 == 0o644
    assert not list(folder.iterdir())
    (folder / "resolv.conf").write_text("of the host\n")
    unset_servers("wg0", container.dns)
    assert not made.exists()
    assert made.parent.exists()
    assert (folder / "resolv.conf").read_text() == "of the host\n"


def test_a_file_without_end_is_not_read(container: Container) -> None:
    with open(container.file, "wb") as file:
        file.truncate(1 << 30)
    assert not stands("wg0", container.dns)
    for change in (set_servers, unset_servers):
        with pytest.raises(HostError, match="too large"):
            change("wg0", container.dns)
